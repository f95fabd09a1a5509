// Package meta says which nodes make up a cluster and which of them hold the replicas of which shard. It alone
// changes memberships.
//
// # Parts
//
// State is what the rows of group 0 say: the cluster, its nodes, and each group's replicas with the move in flight.
// Commands change it, and nothing else; a command's ops are proposed to group 0.
//
// Plan is pure: from a State, what the nodes reported, and the time, it makes the next steps: commands, and orders
// for the groups' leaders. It remembers nothing, so a new leader of group 0 goes on where the last one ended.
//
// Agent runs on every core. While its node leads group 0 it directs: each second (ten times a second while
// something moves) it asks every node for a Report, which is also the node's heartbeat, plans, commits the commands, and only then sends
// the orders. Everywhere it answers, executes orders on its Engine, and holds exactly the replicas that meta lists for its node.
//
// # Wiring
//
//	agent := meta.NewAgent(meta.Config{
//		Self:  meta.Node{ID: id, Name: name, Zone: zone, Version: version, Raft: raftAddr, Incarnation: started},
//		Birth: meta.Cluster{ID: clusterID, Born: bornAt, Expect: expect}, // ID: what the data directory says
//		Known: joined.Nodes,                                              // of Join, if it was called
//		Rows:  store, Net: raftNet, Peers: connectedCores,
//	})
//	for _, m := range meta.Methods() {
//		raftNet.Handle(m.Name, m.Open, func(ctx context.Context, from stream.Peer, req []byte) ([]byte, error) {
//			return agent.Handle(ctx, m.Name, from.Node, req)
//		})
//	}
//	engine, err := cluster.Start(cluster.EngineConfig{…, Meta: agent}) // group 0's Leading
//	go agent.Run(ctx, engine)                                          // end it before engine.Stop
//
// A node with an empty data directory that is not to give birth first asks any core: meta.Join(ctx, raftNet.CallAddr, addrs,
// self). Its data directory is then made with the cluster id of the answer and without groups; its agent creates the replicas
// that meta lists.
//
// # A move
//
// A Move names replicas to become voters and replicas to leave. Their ids are committed before anyone hears of them,
// and a group has one at most. What to order next follows from the configuration that the group's leader reports:
// add the learners; when they have caught up, one joint change promotes and removes; if the leader is to leave, it
// first gives its leadership away. An order names the configuration it starts from, so that a late or doubled one
// is refused. The move is over when a majority of its new voters, and each of them that keeps up, reports the final configuration,
// which a replica does only once it is synced: else a power loss, or the loss of the leader, could leave them in the joint one, whose old
// half has gone. Only then may the replicas that left be destroyed.
//
// # After a majority was lost for good
//
// cluster.Recover gives a survivor's replica an id that group 0 never gave out, in a higher generation. Its report makes group 0
// list what that leader has (Take), and from there the group is planned as any other: it grows again. Until then nobody destroys such
// a replica. Of two survivors that were both made to go on, the one whose term is higher is listed, and the other destroyed.
//
// # Who is asked what to destroy
//
// An agent destroys a replica only on a list that a leader of group 0 confirmed by a read index after the question. Gossip is
// never asked.
package meta
