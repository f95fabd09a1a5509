// Package presence decides who is there, and what a user owns. It holds two pure state
// machines: User, the activation of one user (sessions, devices, claims, audience,
// contacts, outbox), and Gateway, which keeps for every watched or active user of a shard
// what it shows and who wants to see it.
//
// Neither does I/O, reads a clock, starts a goroutine, logs or draws randomness: equal
// inputs give equal outputs, so that a naive model and a seeded simulator can be held
// against them and every failure can be replayed. Their callers, the actors, carry
// inputs in and effects out.
//
// A User publishes what it shows (Shown) to the Gateway of its shard. The Gateway knows
// every row (edge, watcher, watched) with the mask of fields that the watched user's
// audience grants, raises the shard's version counter, and sends one Change to each edge
// with one view per distinct mask there: the cost follows the edges, not the watchers.
// Interest and queries are answered by the Gateway alone.
//
// Soft state lives at the edges: after a failover or a lost link they announce again what
// they hold. Until all have done so a Gateway is settling, and says "pending" where it
// would otherwise have to say "offline".
//
// What a user owns for good leaves Step as Records, and comes back through Restore, in any
// order. An activation without sessions is stored completely and needs not stay: what ends
// meanwhile ends at the first Step after Restore, and the Gateway wakes a user whose offline
// view or audience ends by itself while somebody looks. Lazy records may be lost in a crash;
// what follows from that is a redelivery, never a loss.
//
// The outbox keeps what is needed to decide, not the bodies: a Delivery names offsets, and
// the shell reads the rows. Offsets are dense; whatever is dropped before a device has
// acked it is told to it as a Gap with the reason. A purge begins a new epoch but not new
// offsets, so that a lazy record about the old ones can never meet a new entry.
//
// Two users change together only by transfers (TransferOut, Received), in order and applied
// once. The contact handshake stays symmetric when requests, answers and withdrawals
// cross, because each names the request that it is about.
package presence
