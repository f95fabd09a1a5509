// Package edge holds the sockets of clients and what ends with them: tokens checked, pings
// and idle clocks, limits, and who here watches whom. Everything that outlives a socket is
// the core's; the two talk in the messages of actors/link.
//
// A socket costs no goroutine. netpoll tells when there is something to read, a goroutine
// reads until the kernel has no more and ends. Writing goes through one sequencer per
// socket (sequencer): a server frame is not masked, so its bytes are the same for every socket,
// and they are written straight to the descriptor without blocking. Only while the
// kernel's buffer is full does a goroutine exist that writes for that socket.
//
// Hubs are actors, each owning the shards that are equal to its number modulo the count of
// hubs: for a shard, the sessions of its users, the interest in its users and its rooms. So an
// announcement of a shard is made in one place, and nothing can precede it. What a hub has to
// tell a socket about a watched user it keeps as a reference to that user, never as bytes:
// the latest view wins, and a reader that stalls costs four bytes a user. Of what it told it keeps a sum per user and mask: a
// new leader sends every view again under versions of its own, and what shows the same is not sent on.
//
// There is a link with each core (Edge.Core). A shard is led by the core that tells the highest term in its beats; what
// comes under another term is dropped. When that changes the shard is announced to the new core; calls in flight go again if they may be
// put twice and else end as moving. A shard that no beat has named for 5 s is shown as stale, after 10 s its own clients
// are sent to another edge, and after 120 s its users are unknown; never is anyone offline for it.
//
// A change goes at once. The hub marks the sockets it concerns and sends itself a flush
// message; what was in the mailbox before it is merged into the same frames, without a
// tick. A socket waits only as package-level rules in schedule say.
//
// A crowd of connects begins a few at a time (crowd), so that those who are connected do not wait for all who come.
//
// What a user keeps (contacts, outbox, devices) is the core's; the edge checks, passes on and words it. A publish goes again with
// the same client id while its outcome is open. Outbox entries are neither merged nor dropped: the core's window bounds what
// can wait here, and a reader that stays full is closed and resumes. What a session has acked is all the edge keeps
// of it, and what it announces: a new leader goes on from there.
//
// One timing wheel serves pings, answers, inactivity, token expiry and deadlines; a
// heartbeat reaches no actor and no runtime timer.
package edge
