package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"muster/actors"
	"muster/actors/link"
	"muster/cmd/muster/durable"
	"muster/persistence"
	"muster/persistence/memdisk"
)

const (
	tornRounds  = 6
	tornWorkers = 16
	tornUsers   = 32
	tornPadding = 200 // bytes more in each body: an outbox takes more than one message of the link
)

// torn is a node in this process on a file system that loses, at a crash, a share of what
// was not synced.
type torn struct {
	t   *testing.T
	rnd *rand.Rand
	fs  *memdisk.Disk

	durable *durable.Node
	core    *actors.Node
	port    *durable.Port

	mu    sync.Mutex
	sent  map[string]string            // client id → user
	acked map[string]uint64            // client id → offset that the publisher was told
	epoch map[string]uint64            // user → epoch that publishers were told
	got   map[string]map[uint64]string // user → offset → client id
	last  map[string]uint64
}

// TestTornWrites crashes a node with 0, 50 and 100 % of its unsynced data on the disk. What
// was acknowledged before the crash must be there after it.
func TestTornWrites(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("%d%%", percent), func(t *testing.T) {
			seed := rand.Uint64()
			w := &torn{
				t: t, rnd: rand.New(rand.NewPCG(seed, 0)), fs: memdisk.New(),
				sent: map[string]string{}, acked: map[string]uint64{}, epoch: map[string]uint64{},
				got: map[string]map[uint64]string{}, last: map[string]uint64{},
			}
			pending := make([]string, tornWorkers)
			w.start()
			for range tornRounds {
				w.round(percent, pending)
			}
			w.read()
			w.judge()
			w.stop()
			t.Logf("seed %d: %d sent, %d acknowledged", seed, len(w.sent), len(w.acked))
		})
	}
}

func (w *torn) start() {
	w.t.Helper()
	fatal := func(err error) { w.t.Errorf("fatal: %v", err) }
	var err error
	w.durable, err = durable.Open(durable.Config{
		Dir: "data", Fatal: fatal,
		Store: persistence.Options{FS: w.fs, Create: &persistence.Identity{Node: 1, Name: "n1"}, Ballast: -1, Fatal: fatal},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.core, err = actors.New(actors.Config{Name: "n1", Store: w.durable}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.core.Start(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.durable.Start(w.core); err != nil {
		w.t.Fatal(err)
	}
	w.port = durable.NewPort("e1", uint64(time.Now().UnixNano()), w.core, w.pushed)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.durable.Ready(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *torn) stop() {
	w.port.Close()
	w.durable.Stop()
	w.core.Stop()
	if err := w.durable.Close(); err != nil {
		w.t.Error(err)
	}
}

// round publishes for a while, crashes, and starts again from what the disk kept.
// pending are the messages whose fate is unknown: they are sent again.
func (w *torn) round(percent int, pending []string) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	for i := range tornWorkers {
		running.Go(func() {
			for ctx.Err() == nil {
				if pending[i] == "" {
					pending[i] = uuid.Must(uuid.NewV7()).String()
					w.mu.Lock()
					w.sent[pending[i]] = fmt.Sprintf("u%d", w.rnd.IntN(tornUsers))
					w.mu.Unlock()
				}
				if w.publish(ctx, pending[i]) {
					pending[i] = ""
				}
			}
		})
	}
	w.mu.Lock()
	moment := time.Duration(50+w.rnd.IntN(150)) * time.Millisecond
	w.mu.Unlock()
	<-time.After(moment)
	w.mu.Lock()
	known := len(w.acked)
	after := w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(w.rnd.Uint64(), 0))})
	acked := make(map[string]uint64, known)
	for id, offset := range w.acked {
		acked[id] = offset
	}
	w.mu.Unlock()
	cancel()
	running.Wait()
	w.stop()
	w.fs, w.acked = after, acked // the world goes on from the crash
	w.start()
}

// publish sends once and notes the answer.
func (w *torn) publish(ctx context.Context, id string) bool {
	w.mu.Lock()
	user := w.sent[id]
	w.mu.Unlock()
	raw := uuid.MustParse(id)
	call := w.port.NextCall()
	d, err := w.port.Call(ctx, call, &link.Up{Shard: link.ShardOf(defaultApp, link.KindUser, user), Body: &link.Up_Act{Act: &link.Act{
		Call: call, App: defaultApp, User: user,
		What: &link.Act_Publish{Publish: &link.Publish{Id: raw[:], ClientId: id, Body: `{"id":"` + id + strings.Repeat(" ", tornPadding) + `"}`}},
	}}})
	if err != nil {
		return false
	}
	a := d.GetActed()
	if a.GetCode() != link.Code_OK {
		if a.GetCode() != link.Code_BUSY && a.GetCode() != link.Code_MOVING && a.GetCode() != link.Code_UNKNOWN_OUTCOME && a.GetCode() != link.Code_OUTBOX_FULL {
			w.t.Errorf("publish %s: %v %s", id, a.GetCode(), a.GetMessage())
		}
		<-time.After(time.Millisecond)
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[id] = a.Published.GetOffset()
	if was := w.epoch[user]; was != 0 && was != a.Published.GetEpoch() {
		w.t.Errorf("%s: epoch %d, was %d", user, a.Published.GetEpoch(), was)
	}
	w.epoch[user] = a.Published.GetEpoch()
	return true
}

// read gets every outbox from its start.
func (w *torn) read() {
	w.mu.Lock()
	for u := range tornUsers {
		w.got[fmt.Sprintf("u%d", u)] = map[uint64]string{}
	}
	w.mu.Unlock()
	for u := range tornUsers {
		user := fmt.Sprintf("u%d", u)
		call := w.port.NextCall()
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		d, err := w.port.Call(ctx, call, &link.Up{Shard: link.ShardOf(defaultApp, link.KindUser, user), Body: &link.Up_Attach{Attach: &link.Attach{
			Call: call, App: defaultApp, User: user, Device: "d1", Class: 1, Session: fmt.Sprintf("%032x", u+1), Conn: uint64(u + 1), Attempt: 1,
			GraceMs: -1, Node: "n1", Outbox: &link.OutboxPosition{},
		}}})
		cancel()
		if err != nil || d.GetAttached().GetCode() != link.Code_OK {
			w.t.Fatalf("attach %s: %v %v", user, d, err)
		}
		w.take(d.GetAttached().GetOutbox())
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if len(w.lost()) == 0 {
			return
		}
	}
}

func (w *torn) pushed(d *link.Down) { w.take(d.GetOutbox()) }

// take notes what came; what an answer holds may come after what was pushed behind it.
func (w *torn) take(b *link.OutboxBatch) {
	if b == nil {
		return
	}
	w.mu.Lock()
	got := w.got[b.User]
	if got == nil {
		w.mu.Unlock()
		return
	}
	if b.Reset_ || b.Gap != nil || w.epoch[b.User] != 0 && w.epoch[b.User] != b.Epoch {
		w.t.Errorf("%s: reset %v, gap %v, epoch %d (was %d)", b.User, b.Reset_, b.Gap, b.Epoch, w.epoch[b.User])
	}
	for _, e := range b.Entries {
		w.last[b.User] = max(w.last[b.User], e.Offset)
		got[e.Offset] = e.ClientId
	}
	last, conn := w.last[b.User], b.Conn
	w.mu.Unlock()
	session := fmt.Sprintf("%032x", conn)
	go func() { // not from within the link
		_ = w.port.Send(&link.Up{Shard: link.ShardOf(defaultApp, link.KindUser, b.User), Body: &link.Up_Ack{Ack: &link.OutboxAck{
			App: defaultApp, User: b.User, Session: session, Conn: conn, Epoch: b.Epoch, Offset: last,
		}}})
	}()
}

// lost are the ids that were acknowledged and are not where the publisher was told.
func (w *torn) lost() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, offset := range w.acked {
		if w.got[w.sent[id]][offset] != id {
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *torn) judge() {
	lost := w.lost()
	w.mu.Lock() // what nobody was told of may still come
	defer w.mu.Unlock()
	for _, id := range lost[:min(5, len(lost))] {
		w.t.Errorf("%s was acknowledged as %d of %s, where there is %q", id, w.acked[id], w.sent[id], w.got[w.sent[id]][w.acked[id]])
	}
	if len(lost) > 0 {
		w.t.Errorf("%d of %d acknowledged sends were lost", len(lost), len(w.acked))
	}
	seen := map[string]bool{}
	for user, entries := range w.got {
		if uint64(len(entries)) != w.last[user] {
			w.t.Errorf("%s: %d entries up to offset %d", user, len(entries), w.last[user])
		}
		for offset, id := range entries {
			if seen[id] || w.sent[id] != user {
				w.t.Errorf("%s: offset %d is %s, meant for %s (twice: %v)", user, offset, id, w.sent[id], seen[id])
			}
			seen[id] = true
		}
	}
	if len(w.acked) < 100 {
		w.t.Errorf("only %d sends were acknowledged: the run shows nothing", len(w.acked))
	}
}
