package birth_test

import (
	"context"
	"fmt"
	"time"

	"muster/cluster/birth"
)

// world stands for gossip (Candidates) and the node streams (Call).
type world struct{}

func (world) Candidates() []birth.Node { return nil }

func (world) Call(ctx context.Context, to birth.Node, req []byte) ([]byte, error) {
	return nil, ctx.Err() // the other node's handler returns its b.Serve(req)
}

// An empty node that was started with --expect and --join.
func Example() {
	b, err := birth.Open(birth.Config{
		Dir: "/var/lib/muster", Name: "n1", Expect: 3, Addr: "10.0.0.1:7946",
		Join: []string{"10.0.0.1:7946", "10.0.0.2:7946", "10.0.0.3:7946"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	// Here: gossip starts as node b.Node(), and b.Serve answers the calls of others.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	switch d, err := b.Decide(ctx, world{}); {
	case err != nil:
		fmt.Println(err)
	case d.Bootstrap:
		fmt.Println("make the store of cluster", d.Cluster, "born at", d.BornAt, "and show the id in gossip")
	default:
		fmt.Println("join the members that gossip shows with a cluster id")
	}
}
