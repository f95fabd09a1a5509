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
// # Several cores
//
// Each core holds the actors of the shards that it leads. What one shard tells another goes through Config.Route to
// Routed of whoever leads that one. A command for a shard that is not open here is answered MOVING at once, and so
// is a transfer.
//
// An edge's process is held dead if its connection was reset and the redial refused, or if its lease has lapsed and
// gossip (EdgeAlive) holds it dead; neither lease nor gossip alone ends a session. An edge whose lease lapsed is
// unreachable: what it holds is kept for two minutes. One that was held dead and beats again is asked for all.
//
// A shard that opens waits, for 3 s at most, for the announcements of the edges that are alive; then it presumes who
// was online and was not announced. A leader that gives a shard away in good order first sends, by Leaving, what no
// edge can announce: sessions in grace, and places in rooms that are, with what is left of it, and makes durable who has just left. That counts for the term
// that follows and no other. A leader that dies takes its rooms' places in grace with it: rooms have no rows.
//
// # What is durable
//
// A Store keeps rows (package row says which) and opens and closes shards. A step's records
// become one proposal at once. What the step emits waits in the user's gate until the proposal
// is committed, and so does all that the user's later steps emit: one FIFO. Other users are
// not held up, and a user without records in flight has no gate. Lazy records open none:
// they wait in the user's slot for the next flush, every two seconds for all shards at once,
// or for the next proposal of the shard.
//
// The store's refusals come before anything is lost: over a bound of proposals in flight durable
// commands answer BUSY without being given to the core; without room on the disk they answer
// UNAVAILABLE, while soft presence goes on and lazy records wait. A store that does not take a
// proposal for the moment gets it again, in order.
//
// Reads are answered from memory. A linearizable one waits until the store has confirmed, by Confirm, that no later term has
// begun; a shard that closes or reopens meanwhile answers it MOVING.
//
// A user is read back in the gateway's turn: its profile, the rest of its rows if the profile says
// that there is more, then its records that are not committed yet. Whoever is watched
// or asked about without being resident is read for the answer alone.
//
// Closed cuts the shard's outlet, through which all leaves, in one step. What waited then is
// answered UNKNOWN_OUTCOME, what comes later MOVING. Opened begins anew from the rows:
// who was online, what is owed to other shards. The shard's time is the clock, but never before what
// was committed.
//
// A transfer, what a change means for a user of another shard, is a row of the source shard
// until the target has answered. The target remembers what it has taken until the source
// says that it has all outcomes up to there; so a transfer counts once, however often and late it
// comes. Transfers from one user to another keep their order.
//
// Expiry is an index by minute: a sweep wakes the users concerned, whose cores write what
// ends, and only then do the rows of the index go.
//
// # Faults
//
// A panic is contained to one activation: it is dropped, counted and logged, and the
// edges are asked to announce what they hold of it; the input that caused it is not
// given again. The third panic in a minute parks the activation for 30 s: its commands
// answer BUSY. So does a row that cannot be read. After a panic of a gateway its shard begins
// anew under its term, its versions go on, and what was proposed stays proposed.
package actors
