//go:build linux

package chaos

import (
	"context"
	"net/http"

	"muster/actors/link"
)

// replicas asks all cores for the hashes of what they hold, again until all voters of each group were heard at one index.
func (c *campaign) replicas(ctx context.Context) verdict {
	c.show(1, c.scenario.Name+"  comparing replicas")
	ctx, cancel := context.WithTimeout(ctx, c.opt.Settle)
	defer cancel()
	var said []replica
	for {
		for _, name := range c.top.cores() {
			if c.joined[name] {
				said = append(said, c.replicasOf(ctx, name)...)
			}
		}
		if len(said) > 0 && len(uncompared(said)) == 0 || !pause(ctx, probeEach) {
			return equalReplicas(said, link.Shards+1)
		}
	}
}

// replicasOf is what one core says; nothing if it does not answer.
func (c *campaign) replicasOf(ctx context.Context, name string) []replica {
	var doc struct{ Replicas []replica }
	if c.load.call(ctx, c.top.place(name), 10*callPatience, http.MethodGet, "/v1/cluster/replicas", "", &doc) != nil {
		return nil
	}
	for i := range doc.Replicas {
		doc.Replicas[i].node = name
	}
	return doc.Replicas
}
