package edge

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

const (
	epoch1 = 0x77a1c0de00112233
	word1  = "77a1c0de00112233"
)

func from(epoch string, offset uint64) *wire.Connect {
	return &wire.Connect{Outbox: &wire.OutboxPosition{Epoch: epoch, Offset: offset}}
}

// told position of the last announcement of the session.
func (k *kept) announced() *link.OutboxPosition {
	synctest.Wait()
	k.core.mu.Lock()
	defer k.core.mu.Unlock()
	var p *link.OutboxPosition
	for _, m := range k.core.ups {
		for _, s := range m.GetAnnounce().GetSessions() {
			p = s.Outbox
		}
	}
	k.core.ups = nil
	return p
}

// relink loses the link and makes a new one.
func (k *kept) relink() {
	k.pipe.Cut()
	synctest.Wait()
	k.pipe.Dial()
}

// From the reply to connect on, a device is told what the core gives; its acks go to the core, once each, and
// are where a new leader goes on.
func TestOutboxStory(t *testing.T) {
	first := &link.OutboxBatch{Epoch: epoch1, Head: 33, Entries: entries(31, 32, 1), Gap: &link.OutboxGap{From: 29, To: 30, Reason: 1}}
	inKept(t, "u", from(word1, 28), first, func(k *kept) {
		r := k.replies()
		if len(r) != 1 {
			t.Fatalf("%v", r)
		}
		o := string(r[0].GetConnect().GetOutbox().AppendJSON(nil))
		equal(t, "connect", o, `{"epoch":"`+word1+`","head":33,"entries":[`+
			`{"offset":31,"client_id":"c","from":"s","type":"message","class":"normal","at":1,"expires_at":2,"body":"x"},`+
			`{"offset":32,"client_id":"c","from":"s","type":"message","class":"normal","at":1,"expires_at":2,"body":"x"}],`+
			`"gap":{"from":29,"to":30,"reason":"ttl"}}`)
		k.outbox(&link.OutboxBatch{Epoch: epoch1, Head: 33, Entries: entries(33, 33, 1)})
		equal(t, "push", k.got(), `{"push":{"outbox":{"epoch":"`+word1+`","head":33,"entries":[`+
			`{"offset":33,"client_id":"c","from":"s","type":"message","class":"normal","at":1,"expires_at":2,"body":"x"}]}}}`)
		ack := func(id uint64, epoch string, offset uint64) string {
			k.send(&wire.Command{Id: id, Method: &wire.Command_Ack{Ack: &wire.Ack{Outbox: offset, Epoch: epoch}}})
			return k.told()
		}
		k.told()
		equal(t, "ack", ack(0, word1, 31), "ack u "+word1+"/31 true")
		equal(t, "the same again", ack(0, word1, 31), "")
		equal(t, "less", ack(0, word1, 30), "")
		equal(t, "of another epoch", ack(0, "00000000000000aa", 33), "")
		equal(t, "without epoch", ack(9, "", 32), "ack u "+word1+"/32 true")
		equal(t, "replies", k.got(), `{"id":9,"ack":{}}`)
		equal(t, "more than was given", ack(10, word1, 34), "")
		equal(t, "not hex", ack(11, "77a1", 33), "")
		if e := k.replies(); len(e) != 2 || e[0].GetError().GetCode() != 107 || e[1].GetError().GetCode() != 107 {
			t.Fatalf("%v", e)
		}
		k.relink()
		if p := k.announced(); p.GetEpoch() != epoch1 || p.GetOffset() != 32 {
			t.Fatalf("announced %v", p)
		}
	})
}

// What a session announces to a new leader: what is done with, never what was only sent.
func TestAnnouncedPosition(t *testing.T) {
	for _, c := range []struct {
		name   string
		con    *wire.Connect
		attach *link.OutboxBatch
		more   []*link.OutboxBatch
		epoch  uint64
		offset uint64
	}{
		{"as the client said", from(word1, 5), &link.OutboxBatch{Epoch: epoch1, Head: 5}, nil, epoch1, 5},
		{"sent is not acked", from(word1, 5), &link.OutboxBatch{Epoch: epoch1, Head: 9, Entries: entries(6, 9, 1)}, nil, epoch1, 5},
		{"a gap is done with", from(word1, 5), &link.OutboxBatch{Epoch: epoch1, Head: 9, Gap: &link.OutboxGap{From: 6, To: 8}, Entries: entries(9, 9, 1)}, nil, epoch1, 8},
		{"a gap further on is not", from(word1, 5), &link.OutboxBatch{Epoch: epoch1, Head: 9, Entries: entries(6, 6, 1)},
			[]*link.OutboxBatch{{Epoch: epoch1, Head: 9, Gap: &link.OutboxGap{From: 7, To: 8}}}, epoch1, 5},
		{"a first read begins at the oldest", from("", 0), &link.OutboxBatch{Epoch: epoch1, Head: 9, Entries: entries(7, 9, 1)}, nil, epoch1, 6},
		{"an outbox that begins later", from("", 0), &link.OutboxBatch{}, []*link.OutboxBatch{{Epoch: epoch1, Head: 1, Entries: entries(1, 1, 1)}}, epoch1, 0},
		{"a reset", from("00000000000000aa", 50), &link.OutboxBatch{Epoch: epoch1, Head: 3, Reset_: true, Entries: entries(2, 3, 1)}, nil, epoch1, 1},
		{"purged meanwhile", from("00000000000000aa", 50), &link.OutboxBatch{Epoch: 0xaa, Head: 50}, []*link.OutboxBatch{{Epoch: epoch1, Reset_: true}}, epoch1, 0},
	} {
		inKept(t, "u", c.con, c.attach, func(k *kept) {
			for _, b := range c.more {
				k.outbox(b)
				synctest.Wait()
			}
			k.relink()
			if p := k.announced(); p == nil || p.Epoch != c.epoch || p.Offset != c.offset {
				t.Fatalf("%s: announced %v", c.name, p)
			}
		})
	}
	inKept(t, "u", &wire.Connect{}, nil, func(k *kept) {
		k.relink()
		if p := k.announced(); p != nil {
			t.Fatalf("a device that does not read announced %v", p)
		}
	})
}

// A device that is forgotten is not registered again by an announcement.
func TestForgottenDevice(t *testing.T) {
	inKept(t, "u", from(word1, 5), &link.OutboxBatch{Epoch: epoch1, Head: 5}, func(k *kept) {
		k.act(func(*link.Act) *link.Acted { return &link.Acted{} })
		k.send(&wire.Command{Id: 2, Method: &wire.Command_Device{Device: &wire.Device{Forget: true}}})
		k.got()
		k.relink()
		if p := k.announced(); p != nil {
			t.Fatalf("announced %v", p)
		}
	})
}

// However much there is, no frame is longer than 64 KiB, and nothing is lost or moved.
func TestOutboxFrames(t *testing.T) {
	for _, size := range []int{1, 1000, wire.MaxBody - 2} {
		n := uint64(min(256, (1<<20)/size))
		first := &link.OutboxBatch{Epoch: epoch1, Head: 2 * n, Entries: entries(1, n, size)}
		inKept(t, "u", from("", 0), first, func(k *kept) {
			k.outbox(&link.OutboxBatch{Epoch: epoch1, Head: 2 * n, Entries: entries(n+1, 2*n, size)})
			want := uint64(1)
			for i, r := range k.replies() {
				o := r.GetPush().GetOutbox()
				if i == 0 {
					o = r.GetConnect().GetOutbox()
				}
				if o.GetEpoch() != word1 || o.GetHead() != 2*n || len(o.GetEntries()) == 0 {
					t.Fatalf("frame %d: %v", i, o)
				}
				for _, e := range o.Entries {
					if e.Offset != want || len(e.Body) != size+2 {
						t.Fatalf("offset %d of %d bytes, want %d", e.Offset, len(e.Body), want)
					}
					want++
				}
			}
			if want != 2*n+1 || k.big > wire.MaxFrame {
				t.Fatalf("%d of %d entries, longest frame %d", want-1, 2*n, k.big)
			}
		})
	}
}

// An epoch or offset that means nothing ends the socket before anything is asked of the core.
func TestBadPosition(t *testing.T) {
	for _, con := range []*wire.Connect{from("77a1", 1), from("zza1c0de00112233", 1), from("", 1)} {
		inKept(t, "u", con, nil, func(k *kept) {
			r := k.replies()
			if len(r) == 0 || r[0].GetError().GetCode() != uint32(wire.CodeBadRequest) || k.conn != 0 {
				t.Fatalf("%v", r)
			}
		})
	}
}

// A batch for a conn that has gone, or of another user, is nobody's.
func TestBatchForNobody(t *testing.T) {
	inKept(t, "u", from(word1, 0), &link.OutboxBatch{Epoch: epoch1}, func(k *kept) {
		k.got()
		shard := userShard(presence.Key{App: "default", User: "u"})
		for _, b := range []*link.OutboxBatch{
			{App: "default", User: "u", Conn: k.conn + 1<<22, Epoch: epoch1, Entries: entries(1, 1, 1)},
			{App: "default", User: "v", Conn: k.conn, Epoch: epoch1, Entries: entries(1, 1, 1)},
			{App: "other", User: "u", Conn: k.conn, Epoch: epoch1, Entries: entries(1, 1, 1)},
		} {
			k.core.say(shard, &link.Down{Body: &link.Down_Outbox{Outbox: b}})
		}
		equal(t, "nobody", k.got(), "")
	})
}

// A reader that stays full for 5 s is closed with 4010; before that nothing is dropped, and what it has yet to
// read is not queued a second time.
func TestSlowReader(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SendBuffer = 4 << 10 })
	r.narrow = true
	p := r.peerAs(from("", 0), "u")
	var s *socket
	r.edge.sockets.each(func(o *socket) { s = o })
	give := func(b *link.OutboxBatch) {
		b.App, b.User, b.Conn = "default", "u", s.conn
		r.core.say(userShard(presence.Key{App: "default", User: "u"}), &link.Down{Body: &link.Down_Outbox{Outbox: b}})
	}
	const n = 60
	give(&link.OutboxBatch{Epoch: epoch1, Head: n, Entries: entries(1, n, wire.MaxBody-2)})
	give(&link.OutboxBatch{Epoch: epoch1, Head: n, Entries: entries(1, n, wire.MaxBody-2)})
	Eventually(t, "withheld", func() bool { return r.edge.Stats().Redelivered == n })
	for want := uint64(1); want <= n; {
		_, b, err := p.ws.Read(t.Context())
		if err != nil {
			t.Fatalf("at %d: %v", want, err)
		}
		r := new(wire.Reply)
		if err := wire.Decode(b, r); err != nil {
			continue // a ping
		}
		for _, e := range r.GetPush().GetOutbox().GetEntries() {
			if e.Offset != want {
				t.Fatalf("offset %d, want %d", e.Offset, want)
			}
			want++
		}
	}
	Eventually(t, "written", s.out.idle)
	// All was read and nothing acked: now it does come again.
	give(&link.OutboxBatch{Epoch: epoch1, Head: n, Entries: entries(1, 1, 1)})
	if _, b, err := p.ws.Read(t.Context()); err != nil || !strings.Contains(string(b), `"offset":1,`) {
		t.Fatalf("%.80s %v", b, err)
	}
	give(&link.OutboxBatch{Epoch: epoch1, Head: 200, Entries: entries(n+1, n+70, wire.MaxBody-2)})
	began := time.Now()
	Eventually(t, "closed", func() bool { return r.edge.Stats().Slow == 1 })
	if took := time.Since(began); took < 4*time.Second {
		t.Fatalf("closed after %v: within the window there are 5 s to read", took)
	}
}

// A device may ack each entry of its window at once; one that acks without end is closed.
func TestAckRate(t *testing.T) {
	first := &link.OutboxBatch{Epoch: epoch1, Head: 256, Entries: entries(1, 256, 1)}
	inKept(t, "u", from(word1, 0), first, func(k *kept) {
		k.got()
		k.told()
		acks := func(lines int, offset func(i int) uint64) {
			var b []byte
			for i := range lines {
				c := &wire.Command{Method: &wire.Command_Ack{Ack: &wire.Ack{Outbox: offset(i), Epoch: word1}}}
				b = append(c.AppendJSON(b), '\n')
				if i%wire.MaxLines == wire.MaxLines-1 {
					k.ws.Write(context.Background(), websocket.MessageText, b)
					b = b[:0]
				}
			}
		}
		acks(256, func(i int) uint64 { return uint64(i) + 1 })
		if got, told := k.got(), strings.Split(k.told(), "\n"); got != "" || len(told) != 256 || told[255] != "ack u "+word1+"/256 true" {
			t.Fatalf("%s, %d acks passed on", got, len(told))
		}
		acks(320, func(int) uint64 { return 1 })
		r := k.replies()
		if len(r) == 0 || r[len(r)-1].GetPush().GetDisconnect().GetCode() != uint32(wire.CloseRateLimited) {
			t.Fatalf("%v", r)
		}
	})
}
