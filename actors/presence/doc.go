// Package presence decides who is there. It holds two pure state machines: User, the
// activation of one user (sessions, devices, claims, audience), and Gateway, which keeps
// for every watched or active user of a shard what it shows and who wants to see it.
//
// Neither does I/O, reads a clock, starts a goroutine, logs or draws randomness: equal
// inputs give equal outputs, so that a naive model and a seeded simulator can be held
// against them and every failure can be replayed. Their callers, the actors, carry
// inputs in and effects out.
//
// A User publishes what changed (Publish) to the Gateway of its shard. The Gateway knows
// every row (edge, watcher, watched) with the mask of fields that the watched user's
// audience grants, raises the shard's version counter, and sends one Change to each edge
// with one view per distinct mask there: the cost follows the edges, not the watchers.
// Interest and queries are answered by the Gateway alone.
//
// Soft state lives at the edges: after a failover or a lost link they announce again what
// they hold. Until all have done so a Gateway is settling, and says "pending" where it
// would otherwise have to say "offline".
package presence
