package presence

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"
)

// desk is one user with its model, without a gateway.
type desk struct {
	*world
	*actor
	t *testing.T
}

func newDesk(t *testing.T) *desk {
	w := newWorld(DefaultConfig())
	w.checked = true
	w.fail = func(format string, args ...any) {
		t.Helper()
		t.Fatal(fmt.Sprintf(format, args...)[:min(2000, len(fmt.Sprintf(format, args...)))])
	}
	w.open()
	return &desk{w, w.actor(Key{testApp, "u"}), t}
}

// do steps the user and holds the model against it.
func (d *desk) do(in Input) Output {
	out := d.u.Step(d.now, in)
	d.checkUser(d.actor, in, &out)
	d.keep("u", out.Records)
	return out
}

func (d *desk) tick(after time.Duration) Output {
	d.now = d.now.Add(after)
	return d.do(Tick{})
}

func (d *desk) conn(n int) Conn { return Conn{"e1", 1, uint64(n)} }

func (d *desk) attach(device string, conn int, pos *Position) Output {
	return d.do(Attach{Conn: d.conn(conn), Session: "s-" + device, Device: device, Class: Web, Attempt: uint64(conn), Grace: -1, Outbox: pos})
}

func (d *desk) letter(size int) Publish {
	return Publish{ID: d.newID(d.now), Body: `"` + strings.Repeat("x", size) + `"`, Fresh: 7, Digest: 1}
}

// TestOutboxModel drives one outbox to its bounds: entries, bytes, windows, gaps.
func TestOutboxModel(t *testing.T) {
	for seed := range int64(4) {
		r := rand.New(rand.NewSource(seed))
		d := newDesk(t)
		conns := 0
		for range 60 {
			dev := []string{"a", "b", "c"}[r.Intn(3)]
			o := d.actor.m.box
			switch n := r.Intn(20); {
			case n < 7:
				size := []int{10, 10, 5000}[r.Intn(3)]
				for range 1 + r.Intn(150) {
					p := d.letter(r.Intn(size + 1))
					p.AnyDevice, p.Collapse = r.Intn(5) == 0, []string{"", "", "", "k", "l"}[r.Intn(5)]
					p.TTL = []time.Duration{0, 0, 20 * time.Second, time.Hour}[r.Intn(4)]
					d.do(p)
				}
			case n < 11:
				conns++
				pos := []Position{{}, {o.epoch, uint64(r.Int63n(int64(o.head + 1)))}, {o.epoch, o.head}, {o.epoch + 1, 3}, {o.epoch, o.head + 5}}[r.Intn(5)]
				d.attach(dev, conns, &pos)
			case n < 16:
				if rd := o.readers[dev]; rd != nil {
					d.do(AckOutbox{Conn: rd.conn, Epoch: o.epoch, Offset: rd.acked + uint64(r.Int63n(int64(rd.next-rd.acked+2)))})
				}
			case n < 17:
				d.do(SetDevice{Device: dev, Forget: r.Intn(4) == 0})
			case n < 18 && r.Intn(6) == 0:
				d.do(Purge{uint64(r.Int63())})
			case n < 19 && r.Intn(6) == 0:
				d.now = d.now.Add(20 * 24 * time.Hour)
			default:
				d.tick(time.Duration(r.Intn(20)) * time.Second)
			}
			if r.Intn(8) == 0 {
				d.checkRestore(d.actor)
			}
		}
	}
}

// TestOutboxBounds: what no device has acked fills it; what one has gives way, and the
// others are told.
func TestOutboxBounds(t *testing.T) {
	d := newDesk(t)
	d.attach("a", 1, &Position{})
	d.do(SetDevice{Device: "b"})
	for range maxEntries {
		d.do(d.letter(1))
	}
	if out := d.do(d.letter(1)); out.Reply.Code != OutboxFull || len(out.Records) > 0 {
		t.Fatalf("one more: %+v", out.Reply)
	}
	d.do(AckOutbox{Conn: d.conn(1), Epoch: 7, Offset: 100})
	out := d.do(d.letter(1))
	if out.Reply.Code != OK {
		t.Fatalf("after an ack: %+v", out.Reply)
	}
	dropped, set := false, OutboxSet{}
	for _, r := range out.Records {
		switch r := r.(type) {
		case EntriesDropped:
			dropped = r == EntriesDropped{1, 1, GapOverflow} && !Lazy(r)
		case OutboxSet:
			set = r
		}
	}
	if !dropped || set.Lazy || len(set.Gaps) != 1 || set.Gaps[0] != (Gap{1, 1, GapOverflow}) {
		t.Fatalf("%+v", out.Records)
	}
	got := items(&Output{Reply: d.attach("b", 2, &Position{7, 0}).Reply})
	if len(got) != 1+windowEntries || got[0].what != "gap" || got[0].reason != GapOverflow || got[1].offset != 2 {
		t.Fatalf("the lagging device gets %d: %v", len(got), got[:2])
	}
	big := newDesk(t)
	for range 63 {
		big.do(big.letter(maxBody - 2))
	}
	big.do(big.letter(maxBody - 3))
	if out := big.do(big.letter(0)); out.Reply.Code != OutboxFull {
		t.Fatalf("one byte more than 1 MiB: %+v", out.Reply)
	}
}

// TestResume is the table of what a device is told when it comes back.
func TestResume(t *testing.T) {
	gap := func(from, to uint64, why GapReason) *Gap { return &Gap{from, to, why} }
	for _, tt := range []struct {
		name string
		pos  Position
		want Delivery
	}{
		{"up to date", Position{7, 6}, Delivery{}},
		{"behind", Position{7, 4}, Delivery{From: 5, To: 6}},
		{"behind what expired", Position{7, 1}, Delivery{Gap: gap(2, 3, GapExpired), From: 4, To: 6}},
		{"nothing read yet", Position{}, Delivery{From: 4, To: 6}},
		{"another epoch", Position{8, 2}, Delivery{Reset: true, From: 4, To: 6}},
		{"ahead", Position{7, 9}, Delivery{Reset: true, Ahead: true, From: 4, To: 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.attach("a", 1, &Position{})
			for i := range 6 {
				p := d.letter(1)
				if i < 3 {
					p.TTL = 10 * time.Second
				}
				d.do(p)
			}
			d.do(AckOutbox{Conn: d.conn(1), Epoch: 7, Offset: 1})
			d.do(Detach{Conn: d.conn(1), Session: "s-a", Attempt: 1, Cause: Gone})
			d.tick(10 * time.Second)
			got := *d.attach("a", 2, &tt.pos).Reply.Outbox
			tt.want.Conn, tt.want.Epoch, tt.want.Head = d.conn(2), 7, 6
			if fmt.Sprintf("%+v %+v", got, got.Gap) == "" || got.Reset != tt.want.Reset || got.Ahead != tt.want.Ahead || got.From != tt.want.From ||
				got.To != tt.want.To || (got.Gap == nil) != (tt.want.Gap == nil) || got.Gap != nil && *got.Gap != *tt.want.Gap || got.Head != 6 {
				t.Errorf("got %+v %+v, want %+v %+v", got, got.Gap, tt.want, tt.want.Gap)
			}
		})
	}
	t.Run("not registered any more", func(t *testing.T) {
		d := newDesk(t)
		d.attach("a", 1, &Position{})
		d.do(d.letter(1))
		d.do(Detach{Conn: d.conn(1), Session: "s-a", Attempt: 1, Cause: Bye})
		d.do(SetDevice{Device: "a", Forget: true})
		if got := d.attach("a", 2, &Position{7, 1}).Reply.Outbox; !got.Reset || got.From != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestRedelivery: 5 s, then twice as long each time up to a minute, until acked.
func TestRedelivery(t *testing.T) {
	d := newDesk(t)
	d.attach("a", 1, &Position{})
	d.do(d.letter(1))
	for _, wait := range []time.Duration{5, 10, 20, 40, 60, 60} {
		if early := d.tick(wait*time.Second - time.Millisecond); len(early.Deliver) > 0 {
			t.Fatalf("before %ds: %+v", wait, early.Deliver)
		}
		if out := d.tick(time.Millisecond); len(out.Deliver) != 1 || out.Deliver[0].From != 1 {
			t.Fatalf("after %ds: %+v", wait, out.Deliver)
		}
	}
	out := d.do(AckOutbox{Conn: d.conn(1), Epoch: 7, Offset: 1})
	if len(out.Records) != 4 || slices.ContainsFunc(out.Records, func(r Record) bool { return !Lazy(r) }) {
		t.Fatalf("an ack makes %+v", out.Records)
	}
	if out := d.tick(time.Hour); len(out.Deliver) > 0 {
		t.Fatalf("after the ack: %+v", out.Deliver)
	}
}

// TestSenders: over 1,024 ids of a sender the oldest goes and is the floor.
func TestSenders(t *testing.T) {
	d := newDesk(t)
	d.attach("a", 1, &Position{})
	var ids []ID
	for i := range maxSenderIDs + 3 {
		p := d.letter(1)
		after, need := d.u.NeedsOldest("", d.now)
		if need != (i >= maxSenderIDs) {
			t.Fatalf("publish %d: needs the oldest: %v", i, need)
		}
		if need {
			if i > maxSenderIDs && after != ids[i-maxSenderIDs-1] {
				t.Fatalf("publish %d: after %v", i, after)
			}
			p.Oldest = ids[i-maxSenderIDs]
		}
		ids = append(ids, p.ID)
		out := d.do(p)
		gone := false
		for _, r := range out.Records {
			if x, ok := r.(DedupeGone); ok {
				gone = x.ID == ids[i-maxSenderIDs]
			}
		}
		if out.Reply.Code != OK || gone != need {
			t.Fatalf("publish %d: %+v %v", i, out.Reply, out.Records)
		}
		d.do(AckOutbox{Conn: d.conn(1), Epoch: 7, Offset: out.Reply.Published.Offset})
	}
	d.tick(2 * time.Minute) // what was under way is committed
	at := func(id ID) Code {
		return d.u.Step(d.now, Publish{ID: id, Body: "1", Fresh: 7, Digest: 1}).Reply.Code
	}
	if c := at(ids[2]); c != IDExpired {
		t.Errorf("an id at the floor: %d", c)
	}
	if c := at(d.newID(d.now.Add(-24*time.Hour - time.Millisecond))); c != IDExpired {
		t.Errorf("an id of yesterday: %d", c)
	}
	if c := at(d.newID(d.now.Add(10*time.Minute + time.Millisecond))); c != IDExpired {
		t.Errorf("an id of tomorrow: %d", c)
	}
	d.now = d.now.Add(26 * time.Hour)
	out := d.u.Step(d.now, Tick{})
	gone := false
	for _, r := range out.Records {
		s, ok := r.(SenderSet)
		gone = gone || ok && len(s.Hours) == 0
	}
	if !gone {
		t.Errorf("after a day the sender stays: %+v", out.Records)
	}
}

// TestBlockedSender: one who is blocked cannot tell; who blocks is told.
func TestBlockedSender(t *testing.T) {
	free, blocked := newDesk(t), newDesk(t)
	blocked.do(SetRelations{Block: []string{"bob"}})
	var answers [2]string
	for i, d := range []*desk{free, blocked} {
		d.attach("a", 1, &Position{})
		p := d.letter(3)
		p.Sender = "bob"
		other := p
		other.Digest++
		bad := p
		bad.Body = "{"
		for _, in := range []Publish{p, p, other, bad, p} {
			r := d.u.Step(d.now, in).Reply
			answers[i] += fmt.Sprintf("%d %s %+v\n", r.Code, r.Message, r.Published)
			d.now = d.now.Add(time.Second)
		}
	}
	if answers[0] != answers[1] {
		t.Errorf("free:\n%sblocked:\n%s", answers[0], answers[1])
	}
	if free.u.box().head != 1 || blocked.u.box().head != 0 {
		t.Errorf("stored: %d, %d", free.u.box().head, blocked.u.box().head)
	}
	blocked.do(Received{Source: 1, Seq: 1, From: "cid", What: BlockedBy{true}})
	p := blocked.letter(1)
	if p.Sender = "cid"; blocked.do(p).Reply.Code != Blocked {
		t.Error("who blocks may send")
	}
}

// TestDevices: 50 are registered; the one not seen for longest gives way, none that reads.
func TestDevices(t *testing.T) {
	d := newDesk(t)
	for i := range maxRegistered {
		d.do(SetDevice{Device: fmt.Sprint("d", i), Provider: "fcm", Token: "t"})
		d.now = d.now.Add(12 * time.Hour)
	}
	out := d.do(SetDevice{Device: "x"})
	if g, ok := out.Records[0].(DeviceGone); !ok || g.Device != "d0" {
		t.Errorf("%+v", out.Records)
	}
	d.tick(31 * 24 * time.Hour)
	if o := d.u.box(); o != nil {
		t.Errorf("%d are left after 30 days", len(o.devices))
	}
}
