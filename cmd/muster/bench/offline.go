//go:build linux

package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"muster/actors"
	"muster/actors/link"
	"muster/cmd/muster/durable"
	"muster/persistence"
)

const offlineUsers = 1_000_000

// populated is what Populate prints.
type populated struct {
	Users         int // who came and went while it was measured
	Seconds       float64
	Before, After int64 // resident bytes of the process
	Heap          int64 // live, more than before
	Resident      int64 // activations left
}

// Populate lets n users come and go once, on a node without sockets, so that each has
// what the store keeps of somebody who is away. It prints a populated.
func Populate(dir string, n int, out io.Writer) error {
	d, err := durable.Open(durable.Config{
		Dir: dir, Fatal: func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) },
		Store: persistence.Options{Create: &persistence.Identity{Node: 1, Name: "bench"}},
	})
	if err != nil {
		return err
	}
	core, err := actors.New(actors.Config{Name: "bench", Store: d})
	if err != nil {
		return err
	}
	if err := core.Start(); err != nil {
		return err
	}
	if err := d.Start(core); err != nil {
		return err
	}
	port := durable.NewPort("bench", uint64(time.Now().UnixNano()), core, nil)
	if err := d.Ready(context.Background()); err != nil {
		return err
	}
	debug.SetGCPercent(60) // as a server does
	warm := n / 4          // fills the store's caches, which do not grow with the users
	if err := comeAndGo(port, 0, warm); err != nil {
		return err
	}
	allGone(core)
	p := populated{Users: n - warm}
	heap := liveHeap()
	debug.FreeOSMemory()
	p.Before = ownMemory()
	begin := time.Now()
	if err := comeAndGo(port, warm, n); err != nil {
		return err
	}
	p.Seconds = time.Since(begin).Seconds()
	p.Resident = allGone(core)
	p.Heap = liveHeap() - heap
	debug.FreeOSMemory()
	p.After = ownMemory()
	port.Close()
	d.Stop()
	core.Stop()
	if err := d.Close(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(p)
}

// allGone waits until nobody has an activation, at most 90 s, and returns how many have.
func allGone(core *actors.Node) int64 {
	for deadline := time.Now().Add(90 * time.Second); core.Stats().Users.Load() > 0 && time.Now().Before(deadline); {
		<-time.After(100 * time.Millisecond)
	}
	return core.Stats().Users.Load()
}

func ownMemory() int64 {
	rss, _ := residentBytes(os.Getpid())
	return rss
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// comeAndGo attaches and detaches the users from one number to another, a thousand at a time.
func comeAndGo(port *durable.Port, from, to int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	const width = 1000
	errs := make([]error, width)
	var wg sync.WaitGroup
	for w := range width {
		wg.Go(func() {
			for i := from + w; i < to && errs[w] == nil; i += width {
				errs[w] = comeAndGoOne(ctx, port, i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func comeAndGoOne(ctx context.Context, port *durable.Port, i int) error {
	user := userName(i)
	shard := link.ShardOf(benchApp, link.KindUser, user)
	call := port.NextCall()
	conn, session := uint64(i+1), fmt.Sprintf("%032x", i+1)
	for {
		d, err := port.Call(ctx, call, &link.Up{Shard: shard, Body: &link.Up_Attach{Attach: &link.Attach{
			Call: call, App: benchApp, User: user, Device: "d1", Class: 1, Session: session, Conn: conn, Attempt: 1, GraceMs: -1,
			ActiveAt: time.Now().UnixMilli(), Node: "bench",
		}}})
		if err != nil {
			return err
		}
		code := d.GetAttached().GetCode()
		if code == link.Code_OK {
			break
		}
		if code != link.Code_BUSY && code != link.Code_MOVING {
			return fmt.Errorf("%s: %v %s", user, code, d.GetAttached().GetMessage())
		}
		<-time.After(5 * time.Millisecond)
		call = port.NextCall()
	}
	return port.Send(&link.Up{Shard: shard, Body: &link.Up_Detach{Detach: &link.Detach{
		App: benchApp, User: user, Session: session, Conn: conn, Attempt: 1, Cause: link.Cause_BYE, ActiveAt: time.Now().UnixMilli(),
	}}})
}

// offline measures what a million registered users cost who are away (P10): memory of
// the node that saw them go, disk, and a restart.
func (r *runner) offline() error {
	n := r.conns(offlineUsers)
	res := newResult("offline", fmt.Sprintf("%d users, all away, nobody watches", n))
	dir, err := os.MkdirTemp("", "muster-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var p populated
	expect := time.Duration(n) * 40 * time.Microsecond
	if err := r.childJSON(&p, expect, "users come and go", false, "bench", "populate", dir, fmt.Sprint(n)); err != nil {
		return r.done(res, err)
	}
	million := float64(n) / 1e6
	grown := float64(p.Users) / 1e6
	res.set("come_and_go_per_s", float64(p.Users)/p.Seconds)
	res.set("rss_per_million_MB", float64(p.After-p.Before)/(1<<20)/grown)
	res.set("live_heap_per_million_MB", float64(p.Heap)/(1<<20)/grown)
	var disk diskUse
	if err := r.childJSON(&disk, 10*time.Second, "compacting", false, "bench", "compact", dir); err != nil {
		return r.done(res, err)
	}
	res.set("disk_rows_per_user_B", float64(disk.Rows)/float64(n))
	res.set("disk_all_MB", float64(disk.All)/(1<<20))
	if err := r.restart(res, dir, million); err != nil {
		return r.done(res, err)
	}
	res.atMost("P10", "rss_per_million_MB", 16, 100)
	res.atMost("P10", "restarted_rss_per_million_MB", 16, 100)
	res.atMost("P10", "disk_rows_per_user_B", 200, 400)
	res.atMost("restart", "ready_after_s", 5, 10)
	if p.Resident > 0 {
		err = fmt.Errorf("%d activations are still resident 90 s after everybody left", p.Resident)
	}
	return r.done(res, err)
}

// restart measures a server that starts on dir, beside one that starts on nothing.
func (r *runner) restart(res *Result, dir string, million float64) error {
	var rss [2]int64
	for i, flags := range [][]string{nil, {"--data", dir}} {
		r.bar.Show("starting", float64(i), 2)
		begin := time.Now()
		t, err := r.server(flags...)
		if err != nil {
			return err
		}
		if took := time.Since(begin); i == 1 {
			res.set("ready_after_s", took.Seconds())
		}
		t.collect()
		u, err := t.usage()
		rss[i] = u.rss
		if err := errors.Join(err, t.stop()); err != nil {
			return err
		}
	}
	res.set("restarted_rss_per_million_MB", float64(rss[1]-rss[0])/(1<<20)/million)
	return nil
}

// diskUse is what Compact prints, bytes.
type diskUse struct{ Rows, All int64 }

// Compact rewrites the files of a data directory and tells what they take.
func Compact(dir string, out io.Writer) error {
	db, err := pebble.Open(filepath.Join(dir, "pebble"), &pebble.Options{FormatMajorVersion: pebble.FormatTableFormatV6, Logger: silent{}})
	if err != nil {
		return err
	}
	if err := db.Compact(context.Background(), []byte{0}, []byte{0xff}, false); err != nil {
		return err
	}
	var use diskUse
	for group := range uint32(1 + link.Shards) { // the keys are in persistence/doc.go
		prefix := binary.BigEndian.AppendUint32([]byte{3}, group)
		n, err := db.EstimateDiskUsage(append(prefix, 4), append(prefix[:5:5], 5))
		if err != nil {
			return err
		}
		use.Rows += int64(n)
	}
	if err := db.Close(); err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			use.All += info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(use)
}

// silent is a logger of Pebble that says nothing.
type silent struct{}

func (silent) Infof(string, ...any)      {}
func (silent) Errorf(string, ...any)     {}
func (silent) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
