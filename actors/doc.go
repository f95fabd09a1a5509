// Package actors runs the pure cores of presence and rooms on protoactor-go.
//
// The tree is node → shard gateway → user and room activations. A Node is the core
// end of the links to the edges (link.Core). It posts every message to the gateway of
// its shard; the gateway steps presence.Gateway, spawns activations on demand, keeps
// the one deadline heap and the one timer of the shard, and lets activations go by
// agreed counts: an activation asks to stop with the number of inputs it has seen, and
// goes only if the gateway routed no more.
//
// An activation has no goroutine: protoactor's mailbox is replaced by one that handles a
// message in the turn of the gateway that posts it. It is an actor all the same, with a
// life, a supervisor and a mailbox of its own.
//
// An activation does, in this order: step its core, persist the records, tell the
// gateway, send, reply. It is one FIFO, so nothing leaves before what precedes it is
// durable. Everything that leaves an open shard goes through its outlet, which one
// step cuts.
//
// A panic is contained to one activation: it is dropped, counted and logged, and the
// edges are asked to announce what they hold of it; the input that caused it is not
// given again. The third panic in a minute parks the activation for 30 s: its commands
// answer BUSY. A panic of a gateway itself reopens its shard under the next term.
package actors
