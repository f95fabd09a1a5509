// Package link is what an edge and a core say to each other, and the link that
// carries it.
//
// A link has an epoch, new per connection, and a sequence per direction. Whoever
// receives a number that does not follow the last one, or a beat that names a
// higher one, resets the link: a new epoch. On a new epoch the core's first Beat
// lists (shard, term); the edge announces each of these shards (sessions, watches,
// done) before it sends anything else for it. So start, loss, failover and repair
// are one mechanism, and nothing is ever resent.
//
// Pipe is the link between an edge and a core in one process.
package link
