//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"muster/actors"
	"muster/actors/link"
	"muster/cluster"
	"muster/cmd/muster/durable"
	"muster/persistence"
)

const benchApp = "default"

// trio is three core nodes in this process over the in-process transport, each with a
// store of its own on the disk.
type trio struct {
	mesh  *cluster.Mesh
	nodes [3]trioNode
}

type trioNode struct {
	durable *durable.Node
	core    *actors.Node
	port    *durable.Port
}

// startTrio makes a cluster in dir and waits until all shards are led.
func startTrio(dir string, fatal func(error)) (*trio, error) {
	if os.Getenv("GOMAXPROCS") == "" { // each node has a thread that waits for the disk, as it would have alone
		runtime.GOMAXPROCS(runtime.NumCPU() + 3)
	}
	debug.SetGCPercent(60) // as a server does
	t := &trio{mesh: cluster.NewMesh()}
	var members []persistence.Member
	for i := range t.nodes {
		members = append(members, persistence.Member{Replica: uint64(i + 1), Node: uint64(i + 1)})
	}
	now := time.Now()
	for i := range t.nodes {
		if err := t.startNode(i, filepath.Join(dir, fmt.Sprintf("n%d", i+1)), members, now, fatal); err != nil {
			t.stop()
			return nil, err
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for shard := range uint32(link.Shards) {
		for t.leader(shard) == nil {
			if time.Now().After(deadline) {
				t.stop()
				return nil, fmt.Errorf("shard %d has no leader after 30 s: %v", shard, t.nodes[0].durable.NotReady())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	return t, nil
}

func (t *trio) startNode(i int, dir string, members []persistence.Member, born time.Time, fatal func(error)) error {
	id := uint64(i + 1)
	name := fmt.Sprintf("n%d", id)
	d, err := durable.Open(durable.Config{
		Dir: dir, Members: members, BornAt: born, Transport: t.mesh.Port(id), Fatal: fatal,
		Store: persistence.Options{Create: &persistence.Identity{Cluster: "bench", Node: id, Name: name}},
	})
	if err != nil {
		return err
	}
	n := &t.nodes[i]
	n.durable = d
	n.core, err = actors.New(actors.Config{Name: name, Store: d, Route: t.route})
	if err != nil {
		return err
	}
	if err := n.core.Start(); err != nil {
		return err
	}
	if err := d.Start(n.core); err != nil {
		return err
	}
	n.port = durable.NewPort("bench-"+name, uint64(time.Now().UnixNano()), n.core, nil)
	return nil
}

// leader is the node that leads a shard, as its beats say; nil: none yet.
func (t *trio) leader(shard uint32) (best *trioNode) {
	var highest uint64
	for i := range t.nodes {
		if p := t.nodes[i].port; p != nil {
			if term := p.Term(shard); term > highest {
				highest, best = term, &t.nodes[i]
			}
		}
	}
	return best
}

// route carries what one shard tells another to the node that leads it.
func (t *trio) route(shard uint32, m *link.Up) error {
	if n := t.leader(shard); n != nil {
		n.core.Routed(m)
		return nil
	}
	return actors.ErrNotLeader
}

func (t *trio) stop() {
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.port != nil {
			n.port.Close()
		}
		if n.durable != nil {
			n.durable.Stop()
		}
		if n.core != nil {
			n.core.Stop()
		}
		if n.durable != nil {
			_ = n.durable.Close()
		}
	}
	t.mesh.Close()
}

// trioResult is what one run of TrioSend or TrioIdle prints.
type trioResult struct {
	Sends, Retries uint64
	Seconds, CPU   float64 // of the whole process
	P50, P99       float64 // ms
	Syncs          uint64  // on one node
}

// TrioSend runs three nodes in this process and senders that wait for each answer, for
// the time given, and prints a trioResult.
func TrioSend(n int, d time.Duration, out io.Writer) error {
	dir, err := os.MkdirTemp("", "muster-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t, err := startTrio(dir, func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) })
	if err != nil {
		return err
	}
	defer t.stop()
	var res trioResult
	var retries atomic.Uint64
	var latency latencies
	begin, cpu := time.Now(), selfCPU()
	syncs := t.nodes[0].durable.Meter.Syncs.Load()
	ctx, cancel := context.WithTimeout(context.Background(), d+10*time.Second)
	defer cancel()
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for time.Since(begin) < d {
				if err := t.publish(ctx, i, &latency, &retries); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	res.Seconds, res.CPU = time.Since(begin).Seconds(), (selfCPU() - cpu).Seconds()
	res.Syncs = t.nodes[0].durable.Meter.Syncs.Load() - syncs
	slices.Sort(latency.all)
	res.Sends, res.Retries = uint64(len(latency.all)), retries.Load()
	res.P50, res.P99 = latency.quantile(.5), latency.quantile(.99)
	return json.NewEncoder(out).Encode(res)
}

// latencies of all senders. A histogram for each would be most of the memory that is measured.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// quantile of all, which are sorted, in ms.
func (l *latencies) quantile(q float64) float64 {
	if len(l.all) == 0 {
		return 0
	}
	return float64(l.all[int(q*float64(len(l.all)-1))]) / 1e6
}

// publish sends one entry until it is stored.
func (t *trio) publish(ctx context.Context, sender int, latency *latencies, retries *atomic.Uint64) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	user := userName(firstRecipient + rand.IntN(recipients))
	shard := link.ShardOf(benchApp, link.KindUser, user)
	begin := time.Now()
	for {
		if n := t.leader(shard); n != nil {
			call := n.port.NextCall()
			d, err := n.port.Call(ctx, call, &link.Up{Shard: shard, Body: &link.Up_Act{Act: &link.Act{
				Call: call, App: benchApp, User: user, What: &link.Act_Publish{Publish: &link.Publish{
					Sender: userName(sender), Id: id[:], ClientId: id.String(), Body: `"` + filler + `"`,
				}},
			}}})
			if err != nil {
				return err
			}
			switch a := d.GetActed(); a.GetCode() {
			case link.Code_OK:
				latency.add(time.Since(begin))
				return nil
			case link.Code_BUSY, link.Code_MOVING, link.Code_UNKNOWN_OUTCOME, link.Code_UNAVAILABLE:
			default:
				return fmt.Errorf("publish to %s: %v %s", user, a.GetCode(), a.GetMessage())
			}
		}
		retries.Add(1)
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TrioIdle runs three nodes that have nothing to do and prints a trioResult.
func TrioIdle(d time.Duration, out io.Writer) error {
	dir, err := os.MkdirTemp("", "muster-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t, err := startTrio(dir, func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) })
	if err != nil {
		return err
	}
	defer t.stop()
	<-time.After(3 * time.Second) // what the start left to do
	begin, cpu := time.Now(), selfCPU()
	<-time.After(d)
	return json.NewEncoder(out).Encode(trioResult{Seconds: time.Since(begin).Seconds(), CPU: (selfCPU() - cpu).Seconds()})
}

// sendThree measures durable sends of three nodes that share this machine, edges aside.
func (r *runner) sendThree() error {
	d := r.duration(5 * time.Second)
	for _, n := range []int{1, 64, r.conns(1000)} {
		res := newResult("send", fmt.Sprintf("three nodes, %d senders", n))
		var got trioResult
		if err := r.childJSON(&got, d+2*time.Second, res.Run, false, "bench", "trio", "send", fmt.Sprint(n), d.String()); err != nil {
			return r.done(res, err)
		}
		sends := float64(got.Sends)
		res.set("sends_per_s", sends/got.Seconds)
		res.set("cpu_per_send_us", got.CPU*1e6/max(sends, 1))
		res.set("p50_ms", got.P50)
		res.set("p99_ms", got.P99)
		res.set("sends_per_sync", sends/max(float64(got.Syncs), 1))
		res.set("retries", float64(got.Retries))
		switch n {
		case 1:
			res.atMost("P9 alone", "p50_ms", 1, 3)
		case 64:
			res.atLeast("P9 64 senders", "sends_per_s", 5000, 4000)
			res.atMost("P9 64 senders", "cpu_per_send_us", 90, 180)
		default:
			res.atLeast("P9 1,000 senders", "sends_per_s", 10_000, 4000)
			res.atMost("P9 1,000 senders", "cpu_per_send_us", 90, 180)
		}
		if err := r.done(res, nil); err != nil {
			return err
		}
	}
	return nil
}
