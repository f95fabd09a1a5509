// Package members makes a process a member of a cluster. It wires gossip (who is there), the two ports of streams
// (links between edges and cores, and what replicates), the birth of a cluster or joining one, and the agent of the
// meta group, to the core and the edge of the process.
//
// Gossip is a hint: it says whom to connect to, which edges a shard waits for, and when an edge's lapsed lease may be
// believed. Who holds which shard is the meta group's word alone.
package members
