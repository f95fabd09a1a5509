package actors

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// A process that stood still does not let the time pass in which it did; the clock
// comes back to the wall by 1 %.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		start := c.Now()
		since := func() time.Duration { return c.Now().Sub(start) }
		for range 10 {
			time.Sleep(turn)
			c.turn()
		}
		if since() != 10*time.Second {
			t.Fatalf("after 10 turns: %v", since())
		}
		time.Sleep(turn + lateness)
		if since() != 11500*time.Millisecond {
			t.Fatalf("an ordinary delay: %v", since())
		}
		time.Sleep(time.Minute)
		if since() != 11500*time.Millisecond {
			t.Fatalf("stood for a minute: %v", since())
		}
		last := since()
		for range 10 {
			c.turn()
			time.Sleep(turn)
			if since() < last {
				t.Fatalf("went back from %v to %v", last, since())
			}
			last = since()
		}
		if want := 21500*time.Millisecond + 9*turn/slew + 15*time.Millisecond; since() > want || since() < 21500*time.Millisecond {
			t.Fatalf("after standing: %v, at most %v", since(), want)
		}
		for range 2 * 60 * slew {
			c.turn()
			time.Sleep(turn)
		}
		if off := time.Until(c.Now()); off != 0 {
			t.Fatalf("still %v off the wall", off)
		}
	})
}

func TestDeadlines(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var d deadlines
	all := make([]*activation, 50)
	for i := range all {
		all[i] = &activation{}
	}
	due := map[*activation]int64{}
	for range 5000 {
		a := all[rng.IntN(len(all))]
		at := int64(rng.IntN(1000))
		if d.set(a, at); at == 0 {
			delete(due, a)
		} else {
			due[a] = at
		}
		var least int64
		for _, v := range due {
			if least == 0 || v < least {
				least = v
			}
		}
		if first, ok := d.first(); ok != (len(due) > 0) || ok && first.UnixNano() != least {
			t.Fatalf("first is %v, want %d", first, least)
		}
		if rng.IntN(10) == 0 {
			now := time.Unix(0, int64(rng.IntN(300)))
			for a := d.next(now); a != nil; a = d.next(now) {
				if due[a] > now.UnixNano() || a.place != 0 {
					t.Fatalf("%d fired at %d", due[a], now.UnixNano())
				}
				delete(due, a)
			}
			for _, v := range due {
				if v <= now.UnixNano() {
					t.Fatalf("%d did not fire at %d", v, now.UnixNano())
				}
			}
		}
	}
}

// invoker writes down what a mailbox gives it.
type invoker struct {
	user, system []any
	failed       []any
	onUser       func(any)
}

func (i *invoker) InvokeSystemMessage(m any) { i.system = append(i.system, m) }
func (i *invoker) InvokeUserMessage(m any) {
	i.user = append(i.user, m)
	if i.onUser != nil {
		i.onUser(m)
	}
}
func (i *invoker) EscalateFailure(why, m any) { i.failed = append(i.failed, m) }

func TestMailbox(t *testing.T) {
	m, i := &mailbox{}, &invoker{}
	m.RegisterHandlers(i, nil)
	i.onUser = func(msg any) {
		switch msg {
		case 1: // posted in its own turn: later, in order, system first
			for n := 2; n <= 5; n++ {
				m.PostUserMessage(n)
			}
			m.PostSystemMessage("s")
			if m.UserMessageCount() != 4 || len(i.system) != 0 {
				t.Errorf("%d queued, system %v", m.UserMessageCount(), i.system)
			}
		case 3:
			m.PostSystemMessage(&actor.SuspendMailbox{})
			panic("as told")
		}
	}
	m.PostUserMessage(1)
	if !slices.Equal(i.user, []any{1, 2, 3}) || !slices.Equal(i.failed, []any{3}) || !slices.Equal(i.system, []any{"s"}) {
		t.Fatalf("user %v, failed %v, system %v", i.user, i.failed, i.system)
	}
	m.PostUserMessage(6)
	m.PostSystemMessage("t")
	if len(i.user) != 3 || len(i.system) != 2 {
		t.Fatalf("suspended: user %v, system %v", i.user, i.system)
	}
	m.PostSystemMessage(&actor.ResumeMailbox{})
	if !slices.Equal(i.user, []any{1, 2, 3, 4, 5, 6}) || m.more != nil || m.first != nil || m.running {
		t.Fatalf("user %v, mailbox %+v", i.user, m)
	}
}

// Many post, one handles: nothing is lost, each poster's order is kept.
func TestMailboxConcurrent(t *testing.T) {
	const posters, each = 4, 2000
	m, i := &mailbox{}, &invoker{}
	m.RegisterHandlers(i, nil)
	wake, done := make(chan struct{}, 1), make(chan struct{})
	m.begin = func() { wake <- struct{}{} }
	i.onUser = func(any) {
		if len(i.user) == posters*each {
			close(done)
		}
	}
	go func() {
		for {
			select {
			case <-wake:
				m.run()
			case <-done:
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for n := range each {
				m.PostUserMessage([2]int{p, n})
			}
		})
	}
	wg.Wait()
	<-done
	var next [posters]int
	for _, msg := range i.user {
		v := msg.([2]int)
		if v[1] != next[v[0]] {
			t.Fatalf("poster %d: %d, want %d", v[0], v[1], next[v[0]])
		}
		next[v[0]]++
	}
}
