package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	firstRetry  = 500 * time.Millisecond
	lastRetry   = 5 * time.Second
	resolveTime = 3 * time.Second
	lostPerTurn = 3
)

// Join exchanges all that is known with each of addrs (host:port, or a host at this node's own port) and returns
// how many addresses answered. It fails if none did.
func (g *Gossip) Join(addrs []string) (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	targets, err := g.resolve(ctx, addrs)
	n, failed := g.contact(targets)
	if n > 0 {
		return n, nil
	}
	return 0, errors.Join(err, failed)
}

// JoinLoop keeps this node in touch until ctx ends or the node leaves or closes: it contacts each of addrs that no live member has,
// and members that were lost, at first after 0.5 s, later each 5 s. addrs may name this node too.
func (g *Gossip) JoinLoop(ctx context.Context, addrs []string) {
	wait := firstRetry
	for {
		targets, err := g.missing(ctx, addrs)
		if len(targets) == 0 && err == nil {
			wait = lastRetry
		} else {
			_, failed := g.contact(targets)
			if err = errors.Join(err, failed); err != nil && g.alone() {
				g.log.say(slog.LevelWarn, "alone", "nobody of the join list answers", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-g.stop:
			return
		case <-time.After(wait*3/4 + rand.N(wait/2)):
		}
		if g.hasLeft() {
			return
		}
		wait = min(wait*2, lastRetry)
	}
}

func (g *Gossip) hasLeft() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leaving
}

func (g *Gossip) alone() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.table.shown) < 2
}

// missing are the addresses to try: what the list names and nobody alive has, and a few of the lost.
func (g *Gossip) missing(ctx context.Context, addrs []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	targets, err := g.resolve(ctx, addrs)
	g.mu.Lock()
	lost := g.table.lost(time.Now())
	alive := map[string]bool{}
	for _, m := range g.table.shown {
		alive[m.Gossip] = true
	}
	g.mu.Unlock()
	targets = slices.DeleteFunc(targets, func(a string) bool { return alive[a] })
	rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
	targets = append(targets, lost[:min(len(lost), lostPerTurn)]...)
	slices.Sort(targets)
	return slices.Compact(targets), err
}

// resolve returns IP:port of all that can be resolved, and why others cannot.
func (g *Gossip) resolve(ctx context.Context, addrs []string) (out []string, failed error) {
	_, ownPort, _ := net.SplitHostPort(g.Self().Gossip)
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil && (!strings.Contains(addr, ":") || net.ParseIP(addr) != nil) {
			host, port = addr, ownPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			failed = errors.Join(failed, fmt.Errorf("gossip: %q is not host:port", addr))
			continue
		}
		if ip := net.ParseIP(host); ip != nil {
			out = append(out, net.JoinHostPort(ip.String(), port))
			continue
		}
		ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("gossip: %w", err))
		}
		for _, ip := range ips {
			out = append(out, net.JoinHostPort(ip.String(), port))
		}
	}
	return out, failed
}

// contact joins all targets but this node itself, at once: one that does not answer costs the others nothing.
func (g *Gossip) contact(targets []string) (n int, failed error) {
	own := g.Self().Gossip
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, target := range targets {
		if target == own {
			continue
		}
		all.Go(func() {
			_, err := g.ml.Join([]string{target})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("gossip: %w", err))
			} else {
				n++
			}
		})
	}
	all.Wait()
	return n, failed
}
