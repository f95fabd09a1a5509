package muster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/clients/wire"
)

// steps collects what the outbox gives, as text.
type steps struct {
	got   []string
	ended chan struct{}
	stop  context.CancelFunc
}

func read(t *testing.T, c *Client) *steps {
	s := &steps{ended: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	go func() {
		defer close(s.ended)
		for d := range c.Outbox().Deliveries(ctx) {
			s.got = append(s.got, step(d))
		}
	}()
	return s
}

func step(d Delivery) string {
	switch {
	case d.Entry != nil:
		if string(d.Entry.Body) != fmt.Sprint(d.Entry.Offset) || d.Position.Offset != d.Entry.Offset {
			return fmt.Sprintf("%+v", d)
		}
		return string(d.Entry.Body)
	case d.Gap != nil:
		return fmt.Sprintf("gap %d-%d %s", d.Gap.From, d.Gap.To, d.Gap.Reason)
	case d.Reset:
		return "reset " + d.Position.Epoch
	}
	return "nothing"
}

func (s *steps) want(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := strings.Join(s.got, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// entries is the JSON of entries whose body is their offset.
func entries(from, to int) string {
	var list []string
	for n := from; n <= to; n++ {
		list = append(list, fmt.Sprintf(`{"offset":%d,"body":%d}`, n, n))
	}
	return `"entries":[` + strings.Join(list, ",") + `]`
}

func (srv *server) reader() Options {
	o := srv.options()
	o.Outbox = new(MemoryPosition)
	return o
}

func (p *peer) wantAck(offset uint64, epoch string) {
	p.t.Helper()
	cmd := p.read()
	if a := cmd.GetAck(); a.GetOutbox() != offset || a.GetEpoch() != epoch || cmd.Id != 0 {
		p.t.Errorf("got %v, want an ack of %d in %s", cmd, offset, epoch)
	}
}

func TestOutboxIsGivenOnceAndAcked(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, connect := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":5,`+entries(4, 5)+`}`)
		if connect.Outbox == nil || connect.Outbox.Epoch != "" || connect.Outbox.Offset != 0 {
			t.Errorf("connect names %v, want the oldest entry", connect.Outbox)
		}
		r := read(t, c)
		begin := time.Now()
		p.push(`"outbox":{"epoch":"e1","head":7,%s}`, entries(5, 7))
		r.want(t, "4, 5, 6, 7")
		p.wantAck(7, "e1")
		if d := time.Since(begin); d != time.Second {
			t.Errorf("acked after %v, want one ack of all a second", d)
		}
		p.push(`"outbox":{"epoch":"e1","head":8,%s}`, entries(8, 8))
		p.send("{}")
		p.wantAck(8, "e1") // in place of the pong
		p.send("{}")
		if cmd := p.read(); cmd.Method != nil {
			t.Errorf("got %v, want a pong", cmd)
		}
		p.push(`"outbox":{"epoch":"e1","head":72,%s}`, entries(9, 72))
		begin = time.Now()
		p.wantAck(72, "e1")
		if d := time.Since(begin); d != 0 {
			t.Errorf("acked %v after 64 entries, want at once", d)
		}
		c.Close()
		p.end()
		<-r.ended
	})
}

func TestOutboxResumes(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":3,`+entries(1, 3)+`}`)
		r := read(t, c)
		r.want(t, "1, 2, 3")
		p.close(0)
		p, connect := srv.next(`,"resumed":true,"done":true,"outbox":{"epoch":"e1","head":5,` + entries(2, 5) + `}`)
		if connect.Outbox.Epoch != "e1" || connect.Outbox.Offset != 3 {
			t.Errorf("resumes from %v", connect.Outbox)
		}
		r.want(t, "1, 2, 3, 4, 5")
		p.wantAck(5, "e1") // 3 was said by connect
		p.push(`"outbox":{"epoch":"e1","head":9,"gap":{"from":6,"to":8,"reason":"ttl"},%s}`, entries(9, 9))
		p.push(`"outbox":{"epoch":"e1","head":9,"gap":{"from":5,"to":9,"reason":"ttl"}}`)   // known
		p.push(`"outbox":{"epoch":"e1","head":12,"gap":{"from":8,"to":10,"reason":"ttl"}}`) // partly
		r.want(t, "1, 2, 3, 4, 5, gap 6-8 ttl, 9, gap 10-10 ttl")
		p.wantAck(10, "e1")
		r.stop()
		<-r.ended
		p.push(`"outbox":{"epoch":"e1","head":12,%s}`, entries(11, 12))
		p.close(0) // given, not processed
		p, connect = srv.next(`,"resumed":true,"done":true,"outbox":{"epoch":"e1","head":12,` + entries(11, 12) + `}`)
		if connect.Outbox.Offset != 10 {
			t.Errorf("resumes from %v, want what was processed", connect.Outbox)
		}
		r = read(t, c)
		r.want(t, "11, 12")
		if at := c.Outbox().Position(); at != (Position{"e1", 12}) {
			t.Error(at)
		}
		go c.Bye(t.Context())
		p.wantAck(12, "e1") // before the goodbye
		p.send(`{"id":%d,"bye":{}}`, p.read().Id)
		p.end()
		<-c.Done()
		<-r.ended
	})
}

// Entries that do not follow are left to come again, and so is what a server sends without end.
func TestOutboxOrder(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":2,`+entries(1, 2)+`}`)
		r := read(t, c)
		p.push(`"outbox":{"epoch":"e1","head":5,%s}`, entries(4, 5))
		p.push(`"outbox":{"epoch":"e1","head":6,"gap":{"from":5,"to":5,"reason":"acked"},%s}`, entries(6, 6))
		r.want(t, "1, 2")
		p.push(`"outbox":{"epoch":"e1","head":6,%s}`, entries(2, 6))
		r.want(t, "1, 2, 3, 4, 5, 6")
		r.stop()
		<-r.ended
		for n := 7; n < 700; n += 50 {
			p.push(`"outbox":{"epoch":"e1","head":800,%s}`, entries(n, n+49))
		}
		c.Outbox().mu.Lock()
		if n := len(c.Outbox().queue); n != 2*wire.OutboxWindow {
			t.Errorf("%d entries wait", n)
		}
		c.Outbox().mu.Unlock()
		c.Close()
		p.end()
	})
}

func TestOutboxReset(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.reader()
		_ = o.Outbox.Save(t.Context(), Position{"e1", 30})
		c, p, connect := srv.dial(o, `,"done":true,"outbox":{"epoch":"e2","head":4,"reset":true,`+entries(3, 4)+`}`)
		if connect.Outbox.Epoch != "e1" || connect.Outbox.Offset != 30 {
			t.Errorf("resumes from %v", connect.Outbox)
		}
		p.close(0) // nobody has read it
		p, connect = srv.next(`,"resumed":true,"done":true,"outbox":{"epoch":"e2","head":5,"gap":{"from":1,"to":2,"reason":"ttl"},` + entries(3, 5) + `}`)
		if connect.Outbox.Epoch != "e2" || connect.Outbox.Offset != 0 {
			t.Errorf("resumes from %v: the reset came already", connect.Outbox)
		}
		r := read(t, c)
		r.want(t, "reset e2, 3, 4, 5")
		p.wantAck(5, "e2")
		p.push(`"outbox":{"epoch":"e2","head":9,%s}`, entries(6, 6))
		p.push(`"outbox":{"epoch":"e3","head":1,%s}`, entries(1, 1)) // another epoch without a word
		r.want(t, "reset e2, 3, 4, 5, 6, reset e3, 1")
		p.wantAck(1, "e3")
		p.push(`"outbox":{"epoch":"e3","reset":true}`) // the server had lost what it acked
		p.push(`"outbox":{"epoch":"e3","head":1,%s}`, entries(1, 1))
		r.want(t, "reset e2, 3, 4, 5, 6, reset e3, 1, reset e3, 1")
		p.wantAck(1, "e3")
		c.Close()
		p.end()
		<-r.ended
		if at, _ := o.Outbox.Load(t.Context()); at != (Position{"e3", 1}) {
			t.Error(at)
		}
	})
}

// What was being processed when a reset came does not count in the new epoch.
func TestOutboxResetDuringProcessing(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":9,`+entries(8, 9)+`}`)
		var got []string
		for d := range c.Outbox().Deliveries(t.Context()) {
			if got = append(got, step(d)); len(got) == 1 {
				p.push(`"outbox":{"epoch":"e2","head":2,"reset":true,%s}`, entries(1, 2))
			}
			if len(got) == 3 {
				if at := c.Outbox().Position(); at != (Position{"e2", 0}) {
					t.Error(at)
				}
				break
			}
		}
		if s := strings.Join(got, ", "); s != "8, 9, reset e2" {
			t.Error(s)
		}
		r := read(t, c) // the reset again: the loop was left with it
		r.want(t, "reset e2, 1, 2")
		p.wantAck(2, "e2")
		c.Close()
		p.end()
		<-r.ended
	})
}

// A device that starts is not bothered with what others have acked before its time.
func TestOutboxGapBeforeTheStart(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":30,"gap":{"from":1,"to":28,"reason":"acked"},`+entries(29, 30)+`}`)
		r := read(t, c)
		r.want(t, "29, 30")
		c.Close()
		p.end()
		<-r.ended
	})
}

func TestOutboxLoopLeftWithAnEntry(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":3,`+entries(1, 3)+`}`)
		var got []string
		for d := range c.Outbox().Deliveries(t.Context()) {
			if got = append(got, step(d)); len(got) == 2 {
				break
			}
		}
		for d := range c.Outbox().Deliveries(t.Context()) {
			if got = append(got, step(d)); len(got) == 3 {
				continue
			}
			// A loop beside this one waits, here until its context ends.
			ctx, stop := context.WithTimeout(t.Context(), time.Second)
			for range c.Outbox().Deliveries(ctx) {
				t.Error("two loops at a time")
			}
			stop()
			break
		}
		if s := strings.Join(got, ", "); s != "1, 2, 2, 3" {
			t.Error(s)
		}
		p.wantAck(2, "e1")
		c.Close()
		p.end()
	})
}

type brokenStore struct {
	MemoryPosition
	failures int
	saved    []Position
}

func (b *brokenStore) Load(context.Context) (Position, error) {
	if b.failures > 0 {
		return Position{}, errors.New("the disk is on fire")
	}
	return Position{}, nil
}

func (b *brokenStore) Save(_ context.Context, p Position) error {
	if b.failures--; b.failures >= 0 {
		return errors.New("the disk is on fire")
	}
	b.saved = append(b.saved, p)
	return nil
}

func TestOutboxIsNotAckedBeforeItIsSaved(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		store := &brokenStore{failures: 3}
		o := srv.options()
		o.Outbox = store
		if _, err := Dial(t.Context(), "ws://muster.test", o); err == nil || !strings.Contains(err.Error(), "on fire") {
			t.Errorf("got %v", err)
		}
		store.failures = 0
		c, p, _ := srv.dial(o, `,"done":true,"outbox":{"epoch":"e1","head":2,`+entries(1, 2)+`}`)
		store.failures = 3
		r := read(t, c)
		p.wantAck(2, "e1")
		if len(store.saved) != 2 || store.saved[1].Offset != 2 {
			t.Errorf("acked, but saved %v", store.saved)
		}
		r.want(t, "1, 2")
		store.failures = 1 << 30
		p.push(`"outbox":{"epoch":"e1","head":4,%s}`, entries(3, 4))
		<-time.After(15 * time.Second)
		r.want(t, "1, 2, 3") // and no further
		c.Close()
		p.end()
		<-r.ended
	})
}

func TestOutboxPositions(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.reader()
		_ = o.Outbox.Save(t.Context(), Position{Offset: 7})
		if _, err := Dial(t.Context(), "ws://muster.test", o); err == nil {
			t.Error("an offset without an epoch was taken")
		}
		c, p, connect := srv.dial(srv.options(), `,"done":true`)
		if connect.Outbox != nil || c.Outbox() != nil {
			t.Error("the outbox is read without being asked for")
		}
		p.push(`"outbox":{"epoch":"e1","head":1,%s}`, entries(1, 1))
		c.Close()
		p.end()
	})
}

func TestOutboxEntries(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.reader(), `,"done":true,"outbox":{"epoch":"e1","head":1,"entries":[{"offset":1,"client_id":"i","from":"ann",`+
			`"type":"message","class":"critical","at":1000,"expires_at":2000,"collapse_key":"k","body":{"a":1}}]}`)
		for d := range c.Outbox().Deliveries(t.Context()) {
			e := *d.Entry
			if got := strings.TrimSpace(fmt.Sprintln(e.Offset, e.ID, e.From, e.Type, e.Class, e.At.UnixMilli(), e.Expires.UnixMilli(), e.CollapseKey, string(e.Body))); got != `1 i ann message critical 1000 2000 k {"a":1}` {
				t.Error(got)
			}
			break
		}
		c.Close()
		p.end()
	})
}
