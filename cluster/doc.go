// Package cluster replicates the shards' rows: one Raft group for each shard, and group 0 for
// what is to be known of all of them.
//
// # The loop
//
// Host is the loop of a node without its surroundings: inputs go in, Turn says what to do, Wrote says that it
// was done. It has no goroutine and no clock, and its only I/O is reading its Disk, so that a simulator runs a
// whole cluster in one goroutine. host.go, turn.go, group.go and apply.go are the loop; election.go, contact.go,
// handover.go, change.go, log.go, reads.go, command.go and budget.go are its parts.
//
// All groups share a turn, and so one batch and one sync, and all proposals of a shard in a turn are one entry:
// under load the cost of a sync is divided by what came while the last one ran. Only groups to which something happened take
// part; to the others a turn costs nothing.
//
// Entries become rows in a turn of their own that asks for no sync: Pebble's log keeps the order of batches,
// and what is lost with it is applied again from the Raft log. So an acknowledgement waits for one sync of a quorum, and never for
// the sync of what was proposed after it. Raft runs with asynchronous storage writes for this: it says which
// messages may leave before the sync (a leader's appends) and which may not (votes, responses).
//
// # The fence
//
// Opened comes when the own empty entry of the term is applied: all that was ever acknowledged is then in this node's
// rows. A proposal carries its term, raft takes it only from the leader of that term, and apply drops a command whose
// term is not its entry's. Closed is told before the turn that found out writes or sends anything; after it there is no Committed
// of that term, even if its entries commit later: their outcome is unknown.
//
// Invariants of the design are assertions here; their panics begin with the invariant's number. A panic of
// raft itself, such as "tocommit is out of range" for a member that lost its log, is never caught.
//
// # Elections
//
// Pre-vote and quorum checks are on. A node whose stream was reset, or that left pings unanswered for 700 ms, is
// suspected: its followers forget it and campaign in the order of their ranks, which differ from group to group, so that
// the survivors share what the dead one led. A campaign that elects nobody is repeated, first after 100 ms and then ever
// more slowly: each ends the one before, and where votes take longer than that, none would ever get them. A wrong suspicion
// costs an election, never safety. A silence is not believed until the own
// loop has run for 700 ms without a stall. Sole voters campaign at the start.
//
// A leader that no quorum answered for 700 ms ends its term itself: by then another one may have been elected, and what
// it holds in memory may be old. A loop that stood still for as long finds that out before anything else.
//
// # Leadership that goes
//
// A planned transfer first tells Leaving, so that the shell can send what only its memory holds; proposals wait only for the transfer
// itself. A node that stops (HandOver), has no room on its disk or a wrong clock yields: it gives away what it
// leads, four groups at a time, and campaigns last.
//
// # Snapshots
//
// A snapshot is of what is applied at the moment raft asks for it, with the configuration of that moment; one made
// earlier can lack its receiver, who then ignores it in silence, again and again. The MsgSnap stands for the rows on
// the disk when it is sent, so the engine freezes them before it writes anything else, and streams outside of the loop. The
// receiver builds its own term, vote and log; its rows change only when raft has accepted the snapshot.
//
// # Configuration changes
//
// A change starts from the configuration its plan was made for. Learners come with replica ids that the group never
// had (the highest one stays in State.Members, with node 0 once it is gone), and become voters when they have been caught up for 2 s and a majority
// of the new voters is alive: a joint configuration that cannot commit ends a group for good. A replica that was removed
// stays until Destroy, which leaves a tombstone: it never campaigns, but while others are still in the joint configuration, they may
// need its vote and its log to leave it.
//
// # A majority lost for good
//
// Recover rewrites a group on the disk of one survivor, with no process running. The replica gets a new id, far above any that was planned:
// a member of the old group that comes back after all still names the old one, and so can neither depose the survivor nor write to it.
// Entries that the survivor has and has not applied are kept, since any of them may have been acknowledged. Generation grows, and so
// the epoch of every stream. Group 0 does not list the new id: who keeps its rows must take over the members of a State
// whose Generation is above the recorded one, and must not have the replica destroyed before.
package cluster
