// Package birth lets empty nodes agree who gives birth to a cluster, so that at most one is ever born.
//
// A cluster is born with one node, and everybody else joins it. The question is who that one is, asked of nodes that know nothing
// of each other but what gossip says, which may be late or wrong. Systems that let N nodes start "when they see each other" have
// rolled back data when a node that had data was counted among them, made two clusters of four nodes that saw each other in
// pairs, or made none when each waited for the other.
//
// # The rules
//
//   - A node with a cluster in its data directory joins, always (Config.Cluster).
//   - No join list, no expect: this node alone gives birth, at once.
//   - A join list, no expect: never; it joins.
//   - A join list and expect N: pledges. N is at least 2 and more than half of the planned nodes.
//
// # Pledges
//
// When a node sees N uninitialised nodes, itself included, that expect N too, the one with the smallest id of the N smallest is the
// initiator. It makes up a cluster id, writes it down with the N nodes, and asks each of the others for a pledge. A pledge binds a node to one
// cluster id and is on its disk before it answers. With all N pledges, its own included, the initiator writes down that it has won
// and gives birth. If somebody refuses, or is silent for 5 s, it gives the attempt up and tries again after 1 to 3 s. Any
// initialised node in sight ends the procedure: join it.
//
// An initiator numbers its attempts. To give one up it writes down the next number, and only then says that number to the others: whoever
// is pledged to an earlier one is free, and takes no message with an earlier number any more, however late it comes. So nobody need remember
// whom to free: each message frees.
//
// Two births need two sets of N nodes with all their pledges. If N is more than half of the planned nodes, the two sets share a node, and a node pledges to one
// id at a time: it is let go only by an initiator that can no longer win. Views, clocks and messages can delay this, never break it. What does break it is outside:
// more nodes than the join list names, or a disk that is wiped in the midst of a birth, because its pledge is gone with it.
//
// An initiator whose disk is lost while others are pledged to it leaves them waiting for ever, because it may have given birth.
// The log then names that node and the file to remove.
//
// # Durability
//
// The file "birth" in the data directory holds the node's id, its own attempt, the pledge it gave and the attempts of others given up. It is replaced
// as a whole, synced with its directory. It stays when the node is initialised. The directory is locked while it is open.
//
// machine is all of this without clock, disk, network or goroutine; Birth is the thin driver around it, and a simulator
// runs the machine through thousands of seeds with lost, doubled and reordered messages, partitions, stale views and crashes
// on both sides of every write.
package birth
