package gossip_test

import (
	"context"
	"log/slog"
	"time"

	"muster/cluster/gossip"
)

// A node's life in a cluster.
func Example() {
	g, err := gossip.Start(gossip.Config{
		Self: gossip.Member{
			Node: 4711, Name: "n1", Role: gossip.Core | gossip.Edge, Incarnation: uint64(time.Now().UnixNano()),
			Actor: "10.0.0.1:7947", Raft: "10.0.0.1:7948", Zone: "z1", Version: "1.2.3", Expect: 3,
		},
		ClusterName: "muster", Bind: "0.0.0.0", Port: 7946, Advertise: "10.0.0.1",
		Keys:    [][]byte{make([]byte, 32)},
		Changed: func() { /* wake whoever reads g.Members() */ },
		Dead:    func(m gossip.Member, left bool) { slog.Info("gone", "node", m.Name, "left", left) },
	})
	if err != nil {
		slog.Error("start", "error", err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	go g.JoinLoop(ctx, []string{"n1.example:7946", "n2.example:7946", "n3.example:7946"}) // also with an empty list

	_ = g.Update(func(m *gossip.Member) { m.Cluster = "the id, once it is known" })
	_ = g.Update(func(m *gossip.Member) { m.Draining = true })
	stop()
	g.Leave(2 * time.Second)
}
