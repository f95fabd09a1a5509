package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster/cluster/birth"
)

// village is empty nodes that find each other by gossip and agree on a birth by calls over the same wire.
type village struct {
	w    *wire
	mu   sync.Mutex
	open map[uint64]*villager
}

type villager struct {
	*birth.Birth
	v *village
	g *peer
}

func (n *villager) Candidates() (out []birth.Node) {
	for _, m := range n.g.Members() {
		out = append(out, birth.Node{ID: m.Node, Name: m.Name, Expect: m.Expect, Cluster: m.Cluster})
	}
	return out
}

func (n *villager) Call(ctx context.Context, to birth.Node, req []byte) ([]byte, error) {
	n.v.mu.Lock()
	other := n.v.open[to.ID]
	n.v.mu.Unlock()
	if other == nil || n.g.port.to(other.g.port.addr()) == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return other.Serve(req)
}

// live runs a node for a while. Unless it is its last life, it ends before it has carried out what it may have decided.
func (v *village) live(t *testing.T, cfg birth.Config, p *port, list []string, lifetime time.Duration, last bool) (cluster string, bootstrap bool) {
	b, err := birth.Open(cfg)
	if err != nil {
		t.Error(err)
		return "", false
	}
	defer func() { _ = b.Close() }()
	g := start(t, p, member(b.Node(), cfg.Name), with(func(m *Member) { m.Expect = cfg.Expect }))
	n := &villager{b, v, g}
	v.mu.Lock()
	v.open[b.Node()] = n
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.open, b.Node())
	}()
	ctx, cancel := context.WithTimeout(t.Context(), lifetime)
	defer cancel()
	go g.JoinLoop(ctx, list)
	d, err := b.Decide(ctx, n)
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		g.Close()
		return "", false
	}
	if last {
		if err := g.Update(func(m *Member) { m.Cluster = d.Cluster }); err != nil {
			t.Error(err)
		}
	}
	<-ctx.Done() // the others must still see it
	g.Close()
	return d.Cluster, d.Bootstrap
}

// TestExpect: three empty nodes in any order, one late, one restarted, one cut off for a while.
func TestExpect(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			bubble(t, func(t *testing.T) { expect(t, rand.New(rand.NewPCG(seed, 3)), dir) })
		})
	}
}

func expect(t *testing.T, rng *rand.Rand, dir string) {
	random := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	v := &village{w: newWire(), open: map[uint64]*villager{}}
	var ports []*port
	var list []string
	for i := range 3 {
		p := v.w.plug(fmt.Sprint("10.0.0.", i+1))
		ports, list = append(ports, p), append(list, p.addr())
	}
	alone, begin, heal := rng.IntN(3), random(5*time.Second), random(time.Minute)
	restarted, lifetime := rng.IntN(3), random(6*time.Second)+time.Millisecond
	clusters, births := map[string]int{}, 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, p := range ports {
		late := random(10 * time.Second)
		all.Go(func() {
			cfg := birth.Config{Dir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprint("n", i), Expect: 3, Join: list, Addr: p.addr(), Logger: slog.New(slog.DiscardHandler)}
			time.Sleep(late)
			if i == restarted {
				v.live(t, cfg, p, list, lifetime, false)
				p = v.w.replug(p)
			}
			cluster, bootstrap := v.live(t, cfg, p, list, 150*time.Second, true)
			mu.Lock()
			defer mu.Unlock()
			clusters[cluster]++
			if bootstrap {
				births++
			}
		})
	}
	time.Sleep(begin)
	v.w.partition(func(from, to string) bool { return (from == list[alone]) != (to == list[alone]) })
	time.Sleep(heal)
	v.w.partition(nil)
	all.Wait()
	if len(clusters) != 1 || births != 1 || clusters[""] != 0 {
		t.Errorf("clusters %v, births %d", clusters, births)
	}
}
