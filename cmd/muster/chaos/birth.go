//go:build linux

package chaos

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	birthSpread   = 3 * time.Second // over which servers that are not late start
	birthPatience = time.Minute     // from the end of the fault until the cluster is whole
)

// births has empty servers become a cluster, again and again.
func (c *campaign) births(ctx context.Context) error {
	c.born = verdict{Checker: "one cluster", Of: "births"}
	c.load = newLoad(ctx, c.record, nil, c.opt)
	defer c.load.http.CloseIdleConnections()
	say, stop := c.progress()
	defer stop()
	over, cancel := c.over(ctx)
	defer cancel()
	var took []time.Duration
	c.each(ctx, over, say, func(p *planner, i injection) {
		span := faultSpan{Fault: i.fault, Nodes: i.nodes, From: c.now()}
		if err := c.birth(ctx, p, i); err != nil && ctx.Err() == nil {
			c.born.fail("birth %d at %v, %v: %v", c.born.Examined+1, span.From.Round(time.Millisecond), i, err)
		}
		c.born.Examined++
		span.To = c.now()
		span.Whole = span.To
		took = append(took, span.To-span.From)
		c.note(func() { c.faults = append(c.faults, span) })
		c.unmake()
	})
	c.born.Note = "whole after " + measure("", 0, took).say()
	return context.Cause(ctx)
}

// birth starts all servers in an order and with delays that the plan chooses, disturbs one of them, and waits for the cluster.
func (c *campaign) birth(ctx context.Context, p *planner, i injection) error {
	var starting sync.WaitGroup
	failed := make(chan error, len(c.top.places)+1+len(i.cuts))
	for _, name := range p.some(p.all, len(p.all)) {
		n, delay := c.nodes[name], p.between(0, birthSpread)
		disturbed := name == i.nodes[0]
		if disturbed && i.fault == lateStart {
			delay = i.hold
		}
		c.joined[name] = true
		starting.Go(func() {
			pause(ctx, delay)
			failed <- n.start()
			if disturbed && i.fault == killStarting {
				pause(ctx, i.hold)
				n.kill()
				failed <- n.start()
			}
		})
	}
	if i.fault == cutStarting {
		for _, k := range i.cuts {
			failed <- c.net.cut(cut{from: c.top.place(k[0]), to: c.top.place(k[1])})
		}
		pause(ctx, i.hold)
		c.net.heal()
	}
	starting.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	if err := c.whole(ctx, birthPatience); err != nil {
		return err
	}
	return c.oneBorn(ctx)
}

// oneBorn asks every core which cluster it is in.
func (c *campaign) oneBorn(ctx context.Context) error {
	var ids []string
	for _, name := range c.top.cores() {
		var s clusterState
		if err := c.load.call(ctx, c.top.place(name), callPatience, "GET", "/v1/cluster", "", &s); err != nil {
			return err
		}
		c.nodes[name].belongs(s.Cluster)
		ids = append(ids, c.nodes[name].belonged()...)
		if active := s.active(); len(active) != len(c.top.cores()) {
			return fmt.Errorf("%s knows the cores %v, of %v", name, active, c.top.cores())
		}
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != 1 {
		return fmt.Errorf("clusters %v", ids)
	}
	return nil
}

// unmake ends all servers and empties their directories.
func (c *campaign) unmake() {
	for _, n := range c.nodes {
		n.kill()
		n.forget()
		if err := os.RemoveAll(n.data); err != nil {
			c.wrong("%v", err)
		}
	}
}
