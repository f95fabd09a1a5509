// Package gossip says which nodes are alive, what they do and where they are.
//
// It is memberlist (SWIM with Lifeguard's refinements) under names and rules of its own. What it says is a hint: it decides
// whom to connect to, which edges a shard waits for and when a lapsed lease may be believed. It never decides membership of a
// Raft group; late, lost or false gossip costs time and nothing else.
//
// # One name per process
//
// memberlist knows a node by its name and an address, and a restarted process must first refute what is remembered of the one before
// it; under another address it is refused until that one was found dead. So the name given to memberlist is the node's name
// and its incarnation: a process is a member of its own, a restart is seen with the first message, and "is that incarnation dead" has an
// exact answer. Of two processes with one node id, or with one name at one address, only the newer is shown: the older one
// is dead, even before its probes fail. Two live processes with one name and different node ids for more than 10 s are
// a mistake of the operator and logged as an error.
//
// # Times
//
// A probe each 500 ms, answered within 200 ms or asked for through others, then suspicion: 1.5 s if another
// node confirms it, 3 s if nobody does. A dead node is known after 2 to 5 s. memberlist's own
// factor for the unconfirmed case is 6, which would let the last node of three wait 9 s. Metadata travels in 100 ms steps, and a full exchange
// with a random member runs every 10 s.
//
// # Foreign clusters
//
// Four things keep clusters apart: the label (the cluster's name) on every packet, the key, and the cluster id in the metadata, checked when
// somebody joins and again for each single node that is heard of, because gossip also merges clusters through a third. A node without a cluster id
// takes that of the members it sees, so that it cannot become the bridge.
//
// # Healing
//
// memberlist forgets the dead after 30 s, and a partition that lasts longer would be for ever. JoinLoop therefore never ends: it
// tries, at most every 5 s, each address of the join list that no live member has, and the addresses of the
// members lost in the last 24 h.
//
// # Sizes
//
// The metadata is a version byte and protobuf fields, at most 512 bytes with room for a cluster id of 64; unknown fields are skipped. Names have
// 1 to 128 bytes. 1,024 departed processes are remembered, the oldest are dropped first.
package gossip
