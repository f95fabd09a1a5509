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
// Pipe is the link between an edge and a core in one process. Far is the end of a link with another process, over a
// stream that has a lane for each class of traffic. There the messages of a lane are cut into numbered frames, many
// messages in one: a frame that does not follow the last one is a gap. Announcements have a lane of their own, so that they do
// not hold up commands; a message for a shard waits at the core for the announcement that was sent before it.
// A queue that is full costs the epoch. What follows is announced and answered in full, which is no less than what the queue did not
// take, so its bound doubles.
package link
