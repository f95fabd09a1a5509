package actors_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"muster/actors"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/cluster"
	"muster/cmd/muster/durable"
	"muster/persistence"
	"muster/persistence/memdisk"
)

const app = "acme"

// process is one node and what is left of its disk.
type process struct {
	id  uint64
	fs  *memdisk.Disk
	now atomic.Pointer[life] // nil: it is dead

	trap atomic.Pointer[trap] // nil: none
}

// trap is a point at which the engine of a process dies, once.
type trap struct {
	at     cluster.Failpoint
	sprung chan struct{}
}

// set makes the process die at a point. What it returns is closed when it has.
func (p *process) set(at cluster.Failpoint) <-chan struct{} {
	t := &trap{at, make(chan struct{})}
	p.trap.Store(t)
	return t.sprung
}

func (p *process) spring(at cluster.Failpoint) bool {
	t := p.trap.Load()
	if t == nil || t.at != at || !p.trap.CompareAndSwap(t, nil) {
		return false
	}
	close(t.sprung)
	return true
}

// life is a process from start to end: store, engine, actors and an edge of its own.
type life struct {
	disk *durable.Node
	core *actors.Node
	port *durable.Port
}

// term is that in which the process leads a shard, 0 if it does not.
func (p *process) term(shard uint32) uint64 {
	l := p.now.Load()
	if l == nil || l.port.Term(shard) == 0 {
		return 0
	}
	if leader, term := l.disk.Engine().Leader(shard); leader == p.id {
		return term
	}
	return 0
}

// system is three processes in one, with the books of all their acknowledgements.
type system struct {
	t     testing.TB
	mesh  *cluster.Mesh
	nodes []*process
	lives atomic.Uint64
	at    time.Time
	size  int

	mu     sync.Mutex
	audits map[[2]uint64]string // shard, index → term and what was acknowledged
	highs  map[uint64][2]uint64 // shard → index, term: the latest acknowledgement
}

func newSystem(t testing.TB, nodes int) *system {
	s := &system{t: t, mesh: cluster.NewMesh(), at: time.Now(), size: nodes, audits: map[[2]uint64]string{}, highs: map[uint64][2]uint64{}}
	for i := range nodes {
		p := &process{id: uint64(i + 1), fs: memdisk.New()}
		s.nodes = append(s.nodes, p)
		s.start(p)
	}
	t.Cleanup(func() {
		for _, p := range s.nodes {
			s.stop(p)
		}
		s.mesh.Close()
	})
	return s
}

// audit is the fence: an index belongs to one term and one message, and terms do not fall.
func (s *system) audit(shard uint32, term, index uint64, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, what := [2]uint64{uint64(shard), index}, fmt.Sprint(term)
	if old, ok := s.audits[at]; ok && old != what {
		s.t.Errorf("shard %d, index %d: acknowledged in term %s and in %s (%s)", shard, index, old, what, client)
	}
	s.audits[at] = what
	high := s.highs[uint64(shard)]
	if index > high[0] && term < high[1] || index < high[0] && term > high[1] {
		s.t.Errorf("shard %d: index %d in term %d after index %d in term %d", shard, index, term, high[0], high[1])
	}
	if index > high[0] {
		s.highs[uint64(shard)] = [2]uint64{index, term}
	}
}

func (s *system) start(p *process) {
	members := make([]persistence.Member, s.size)
	for i := range members {
		members[i] = persistence.Member{Replica: uint64(i + 1), Node: uint64(i + 1)}
	}
	cfg := durable.Config{Dir: "d", Store: persistence.Options{FS: p.fs, Create: &persistence.Identity{Cluster: "c", Node: p.id, Name: fmt.Sprint("n", p.id)}},
		Members: members, BornAt: s.at, Transport: s.mesh.Port(p.id), Failpoint: p.spring, Fatal: func(err error) { s.t.Error(err) }}
	must := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	l, err := &life{}, error(nil)
	l.disk, err = durable.Open(cfg)
	must(err)
	route := func(shard uint32, m *link.Up) error {
		for _, q := range s.nodes {
			if other := q.now.Load(); q != p && other != nil && other.port.Term(shard) != 0 {
				other.core.Routed(m)
				return nil
			}
		}
		return actors.ErrNotLeader
	}
	l.core, err = actors.New(actors.Config{Name: fmt.Sprint("n", p.id), Store: l.disk, Audit: s.audit, Route: route})
	must(err)
	must(l.core.Start())
	l.port = durable.NewPort(fmt.Sprint("e", p.id), s.lives.Add(1), l.core, nil)
	must(l.disk.Start(l.core))
	p.now.Store(l)
}

// kill ends a process as kill -9 and a power cut would: of what was not synced some may be left.
func (s *system) kill(p *process, seed uint64) {
	s.mesh.Crash(p.id)
	left := p.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))})
	s.stop(p)
	p.fs = left
}

func (s *system) stop(p *process) {
	l := p.now.Swap(nil)
	if l == nil {
		return
	}
	l.port.Close()
	l.disk.Engine().Stop()
	l.core.Stop()
	if err := l.disk.Close(); err != nil {
		s.t.Log(err)
	}
}

// call gives a command to whoever leads the shard, again and again until it is done or ctx is.
func (s *system) call(ctx context.Context, shard uint32, up func(call uint64) *link.Up) *link.Down {
	for ctx.Err() == nil {
		for _, p := range s.nodes {
			l := p.now.Load()
			if l == nil || l.port.Term(shard) == 0 {
				continue
			}
			try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			call := l.port.NextCall()
			m := up(call)
			m.Shard = shard
			d, err := l.port.Call(try, call, m)
			cancel()
			if err != nil {
				continue
			}
			switch code(d) {
			case link.Code_MOVING, link.Code_BUSY, link.Code_UNKNOWN_OUTCOME, link.Code_UNAVAILABLE:
				continue
			}
			return d
		}
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

func code(d *link.Down) link.Code {
	switch b := d.Body.(type) {
	case *link.Down_Acted:
		return b.Acted.Code
	case *link.Down_Answer:
		return b.Answer.Code
	case *link.Down_Attached:
		return b.Attached.Code
	}
	return link.Code_OK
}

func clientID(n uint64) []byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|0x7000)
	binary.BigEndian.PutUint64(id[8:], n|1<<63)
	return id[:]
}

// publish sends one message and returns its place.
func (s *system) publish(ctx context.Context, user string, n uint64) (*link.Published, link.Code) {
	id, body := clientID(n), fmt.Sprint(n)
	d := s.call(ctx, link.ShardOf(app, link.KindUser, user), func(call uint64) *link.Up {
		return &link.Up{Body: &link.Up_Act{Act: &link.Act{Call: call, App: app, User: user,
			What: &link.Act_Publish{Publish: &link.Publish{Id: id, ClientId: fmt.Sprintf("%x", id), Body: body}}}}}
	})
	if d == nil {
		return nil, link.Code_UNKNOWN_OUTCOME
	}
	return d.GetActed().GetPublished(), d.GetActed().GetCode()
}

// inbox reads a user's whole outbox as a new device. It begins again where it was when the shard's leader changes.
func (s *system) inbox(ctx context.Context, user, device string) (got map[uint64]string, head uint64) {
	got = map[uint64]string{}
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		again := s.read(attempt, user, device, got, &head)
		cancel()
		if !again {
			break
		}
	}
	return got, head
}

// read is one attempt of inbox; again: it did not get to the end.
func (s *system) read(ctx context.Context, user, device string, got map[uint64]string, head *uint64) (again bool) {
	shard := link.ShardOf(app, link.KindUser, user)
	leader := s.leader(ctx, user)
	if leader == nil {
		return true
	}
	core := leader.now.Load().core
	batches := make(chan *link.OutboxBatch, 1000)
	conn := s.lives.Add(1) << 8
	port := durable.NewPort(fmt.Sprint("reader", conn), conn, core, func(d *link.Down) {
		if b := d.GetOutbox(); b != nil {
			batches <- b
		}
	})
	defer port.Close()
	call := port.NextCall()
	d, err := port.Call(ctx, call, &link.Up{Shard: shard, Body: &link.Up_Attach{Attach: &link.Attach{Call: call, App: app, User: user, Device: device,
		Class: uint32(presence.Bot), Session: device, Conn: conn, Attempt: conn, GraceMs: -1, Outbox: &link.OutboxPosition{}}}})
	switch c := code(d); {
	case err != nil, c == link.Code_MOVING, c == link.Code_UNKNOWN_OUTCOME:
		return true
	case c != link.Code_OK:
		s.t.Errorf("%s: attach: %v", user, d)
		return false
	}
	b := d.GetAttached().GetOutbox()
	for {
		*head = max(*head, b.GetHead())
		for _, e := range b.GetEntries() {
			if old, ok := got[e.Offset]; ok && old != e.Body {
				s.t.Errorf("%s: offset %d is %s and %s", user, e.Offset, old, e.Body)
			}
			got[e.Offset] = e.Body
			if e.Offset%100 == 0 { // opens the window
				_ = port.Send(&link.Up{Shard: shard, Body: &link.Up_Ack{Ack: &link.OutboxAck{App: app, User: user, Session: device, Conn: conn, Epoch: b.Epoch, Offset: e.Offset}}})
			}
		}
		if uint64(len(got)) >= *head {
			return false
		}
		select {
		case b = <-batches:
		case <-ctx.Done():
			return true
		}
	}
}

// sender publishes to its user until told to stop, and remembers what was acknowledged.
type sender struct {
	user  string
	sent  uint64
	acked map[uint64]string // offset → body
}

func (s *system) send(ctx context.Context, user string, base uint64, stop <-chan struct{}) *sender {
	out := &sender{user: user, acked: map[uint64]string{}}
	for n := base; ; n++ {
		select {
		case <-stop:
			return out
		default:
		}
		out.sent++
		p, code := s.publish(ctx, user, n)
		switch {
		case code == link.Code_OUTBOX_FULL:
			return out
		case code != link.Code_OK:
			s.t.Errorf("%s: message %d: %v", user, n, code)
			return out
		case out.acked[p.Offset] != "":
			s.t.Errorf("%s: offset %d was given to %s and to %d", user, p.Offset, out.acked[p.Offset], n)
		}
		out.acked[p.Offset] = fmt.Sprint(n)
	}
}

// check finds every acknowledged message once, and nothing else than what was sent.
func (s *system) check(ctx context.Context, out *sender) {
	got, head := s.inbox(ctx, out.user, "check-"+out.user)
	if uint64(len(got)) != head {
		s.t.Errorf("%s: %d entries, head %d", out.user, len(got), head)
	}
	bodies := map[string]uint64{}
	for offset, body := range got {
		if at, twice := bodies[body]; twice {
			s.t.Errorf("%s: message %s stands at %d and at %d", out.user, body, at, offset)
		}
		bodies[body] = offset
	}
	for offset, body := range out.acked {
		if got[offset] != body {
			s.t.Errorf("%s: offset %d was acknowledged for message %s, and is %q", out.user, offset, body, got[offset])
		}
	}
	if len(out.acked) == 0 {
		s.t.Errorf("%s: nothing was acknowledged", out.user)
	}
	s.t.Logf("%s: %d acknowledged of %d, head %d", out.user, len(out.acked), out.sent, head)
}

// underLoad lets four senders send while fault is done three times, each time to a node that leads, and
// then finds all that was acknowledged.
func underLoad(t *testing.T, fault func(ctx context.Context, s *system, victim *process, round int)) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := newSystem(t, 3)
	stop := make(chan struct{})
	results := make(chan *sender, 4)
	for i := range 4 {
		go func() { results <- s.send(ctx, fmt.Sprint("user", i), uint64(i)<<32, stop) }()
	}
	for round := range 3 {
		victim := s.leader(ctx, fmt.Sprint("user", round))
		if victim == nil {
			t.Fatal("no leader")
		}
		<-time.NewTimer(300 * time.Millisecond).C
		fault(ctx, s, victim, round)
	}
	close(stop)
	for range 4 {
		s.check(ctx, <-results)
	}
	for _, p := range s.nodes {
		if n := p.now.Load().core.Stats().ResumeAhead.Load(); n != 0 {
			t.Errorf("node %d: resume ahead %d", p.id, n)
		}
	}
	if len(s.audits) == 0 {
		t.Error("nothing was audited")
	}
}

// Leaders are killed under load. Every acknowledged message is there once, offsets are
// dense, and no index was acknowledged by two activations.
func TestLeadersKilled(t *testing.T) {
	underLoad(t, func(ctx context.Context, s *system, victim *process, round int) {
		s.kill(victim, uint64(round))
		if p, code := s.publish(ctx, fmt.Sprint("other", round), uint64(round)); code != link.Code_OK || p.GetOffset() == 0 {
			t.Errorf("after round %d: %v", round, code)
		}
		s.start(victim)
	})
}

// Leaders die at each point of their loop at which something may be half done.
func TestLeadersDieAtFailpoints(t *testing.T) {
	for _, at := range []cluster.Failpoint{cluster.BeforeAppend, cluster.AfterAppendBeforeSend, cluster.AfterCommitBeforeAck, cluster.BeforeTransfer} {
		t.Run(string(at), func(t *testing.T) {
			underLoad(t, func(ctx context.Context, s *system, victim *process, round int) {
				dead := victim.set(at)
				if at == cluster.BeforeTransfer {
					shard := link.ShardOf(app, link.KindUser, fmt.Sprint("user", round))
					go func() { _ = victim.now.Load().disk.Engine().Transfer(shard, 0) }()
				}
				select {
				case <-dead:
				case <-ctx.Done():
					t.Fatal("nobody came by ", at)
				}
				s.kill(victim, uint64(round))
				if p, code := s.publish(ctx, fmt.Sprint("other", round), uint64(round)); code != link.Code_OK || p.GetOffset() == 0 {
					t.Errorf("after round %d: %v", round, code)
				}
				s.start(victim)
			})
		})
	}
}

// Leaders are cut off under load, and clients still reach them: what they cannot commit they do not acknowledge.
func TestLeadersIsolated(t *testing.T) {
	underLoad(t, func(ctx context.Context, s *system, victim *process, round int) {
		user := fmt.Sprint("user", round)
		s.mesh.Isolate(victim.id)
		for n, other := uint64(0), victim; other == victim && ctx.Err() == nil; n++ {
			if p, code := s.publish(ctx, fmt.Sprint("other", round, "-", n), n); code != link.Code_OK || p.GetOffset() != 1 {
				t.Errorf("in round %d: %v, %v", round, code, p)
			}
			other = s.leader(ctx, user)
		}
		s.mesh.Heal()
	})
}

// leader waits until some process leads a user's shard; nil when ctx has ended before.
func (s *system) leader(ctx context.Context, user string) *process {
	shard := link.ShardOf(app, link.KindUser, user)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, p := range s.nodes {
			if p.term(shard) != 0 {
				return p
			}
		}
		<-tick.C
	}
	for _, p := range s.nodes {
		if l := p.now.Load(); l != nil {
			status, err := l.disk.Engine().Status(shard)
			s.t.Logf("no leader of shard %d (%s): node %d: told term %d, status %+v, %v", shard, user, p.id, l.port.Term(shard), status, err)
		}
	}
	return nil
}

// BenchmarkReadBack is a command to a user without activation, from its edge and back: the rows of 20,000
// users lie on the disk, each with ten relations.
func BenchmarkReadBack(b *testing.B) {
	const users = 20_000
	disk, err := durable.Open(durable.Config{Dir: b.TempDir(), Store: persistence.Options{Create: &persistence.Identity{Cluster: "c", Node: 1, Name: "n1"}}})
	if err != nil {
		b.Fatal(err)
	}
	core, err := actors.New(actors.Config{Name: "n1", Store: disk, Linger: -1})
	if err == nil {
		err = core.Start()
	}
	if err == nil {
		err = disk.Start(core)
	}
	if err != nil {
		b.Fatal(err)
	}
	port := durable.NewPort("e1", 1, core, nil)
	b.Cleanup(func() {
		port.Close()
		disk.Engine().Stop()
		core.Stop()
		_ = disk.Close()
	})
	if err := disk.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	rows := make([]*link.ContactRow, 10)
	for i := range rows {
		rows[i] = &link.ContactRow{User: fmt.Sprint("friend", i), To: true, From: true}
	}
	act := func(user string, a *link.Act) link.Code {
		a.Call, a.App, a.User = port.NextCall(), app, user
		d, err := port.Call(b.Context(), a.Call, &link.Up{Shard: link.ShardOf(app, link.KindUser, user), Body: &link.Up_Act{Act: a}})
		if err != nil {
			b.Fatal(err)
		}
		return code(d)
	}
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < users; i += 64 {
				if c := act(fmt.Sprint("user", i), &link.Act{What: &link.Act_Import{Import: &link.Import{Rows: rows}}}); c != link.Code_OK {
					b.Errorf("import: %v", c)
				}
			}
		})
	}
	wg.Wait()
	rng := rand.New(rand.NewPCG(1, 2))
	loads := core.Stats().Loads.Load()
	before := readBacks(core)
	var took []time.Duration
	for b.Loop() {
		user := fmt.Sprint("user", rng.IntN(users))
		begin := time.Now()
		if c := act(user, &link.Act{What: &link.Act_EndClaim{EndClaim: "none"}}); c != link.Code_NOT_FOUND {
			b.Fatal(c)
		}
		took = append(took, time.Since(begin))
	}
	if n := core.Stats().Loads.Load() - loads; n < uint64(len(took))/2 {
		b.Fatalf("%d loads for %d commands", n, len(took))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
	late, all := 0.0, 0.0
	for i, n := range readBacks(core) {
		if n -= before[i]; i >= len(actors.ReadBackBuckets) || actors.ReadBackBuckets[i] > 50e-6 {
			late += n
		}
		all += n
	}
	b.ReportMetric(100*late/all, "%-loads>50us")
}

func readBacks(core *actors.Node) (in []float64) {
	for i := range core.Stats().ReadBackIn {
		in = append(in, float64(core.Stats().ReadBackIn[i].Load()))
	}
	return in
}
