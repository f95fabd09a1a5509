//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	sdk "muster/clients/go"
)

const actPatience = 20 * time.Second // for one act, over reconnects

// person is a user who comes, goes, changes status and watches others.
type person struct {
	l     *load
	name  string
	watch []string
	rnd   *rand.Rand
	every time.Duration // between two acts, on average

	client *sdk.Client // nil: away; the person's own goroutine uses it
	text   string      // status set last

	grounded atomic.Bool // no connection can be made

	mu   sync.Mutex
	span *presentSpan // while connected
}

// people makes as many persons as asked for; each watches some of the others.
func (l *load) people(o Options) []*person {
	n := o.Sessions
	list := make([]*person, n)
	for i := range list {
		p := &person{
			l: l, name: fmt.Sprintf("p%d", i), rnd: l.random(2000 + uint64(i)),
			every: time.Duration(n) * time.Second / time.Duration(o.Changes),
		}
		for len(p.watch) < min(n-1, o.Watches) {
			if name := fmt.Sprint("p", p.rnd.IntN(n)); name != p.name && !slices.Contains(p.watch, name) {
				p.watch = append(p.watch, name)
			}
		}
		l.exact.watch(p.name, p.watch)
		list[i] = p
	}
	return list
}

// live comes and goes until work ends. arrived is told once that the person is there.
func (p *person) live(work context.Context, arrived func()) {
	arrived = sync.OnceFunc(arrived)
	defer arrived()
	if !pause(work, time.Duration(p.rnd.Int64N(int64(p.l.arrival)))) {
		return
	}
	for n := 0; work.Err() == nil; n++ {
		if p.client == nil {
			p.come(work)
			arrived()
		}
		if !pause(work, p.every/5+time.Duration(p.rnd.Int64N(int64(p.every*8/5)))) {
			return
		}
		if p.grounded.Load() {
			continue
		}
		switch act := p.rnd.IntN(10); {
		case act < 6:
			p.set(work, fmt.Sprintf("%s-%d", p.name, n))
		case act < 8:
			p.leave(true)
			pause(work, time.Duration(p.rnd.Int64N(int64(10*time.Second))))
		case act < 9:
			p.leave(false)
			pause(work, time.Duration(p.rnd.Int64N(int64(25*time.Second))))
		}
	}
}

// come connects until ctx ends.
func (p *person) come(ctx context.Context) {
	client, err := p.l.dial(ctx, p.name, sdk.Options{Watch: p.watch, OnConnection: p.connection}, &p.grounded)
	if err != nil {
		return
	}
	p.client = client
	p.l.running.Go(func() {
		for c := range client.View().Changes(p.l.hard) {
			p.l.exact.saw(p.name, c.User, c.Presence.Text)
		}
	})
}

// connection keeps the times at which the person was connected, and to whom.
func (p *person) connection(c sdk.Connection) {
	p.l.exact.connected(p.name, c.Up)
	if !c.Up {
		p.l.exact.forget(p.name) // what it sets has to wait for its own connection
	}
	if c.Up {
		p.ends()
		p.mu.Lock()
		p.span = &presentSpan{user: p.name, node: c.Session.Node, from: p.l.now()}
		p.mu.Unlock()
	} else {
		p.ends()
	}
}

// on is the server that the person is connected to.
func (p *person) on() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.span == nil {
		return "none"
	}
	return p.span.node
}

func (p *person) ends() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.span != nil {
		p.span.to = p.l.now()
		p.l.note(func() { p.l.spans = append(p.l.spans, *p.span) })
		p.span = nil
	}
}

func (p *person) set(ctx context.Context, text string) bool {
	if p.client == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, actPatience)
	defer cancel()
	p.text = text
	p.l.exact.sets(p.name, text)
	err := p.client.SetStatus(ctx, sdk.Status{State: sdk.Away, Text: text})
	if err != nil {
		p.l.exact.forget(p.name)
	}
	return err == nil
}

// leave ends the session: with a goodbye, or so that others see it until its grace is over.
func (p *person) leave(goodbye bool) {
	if p.client == nil {
		return
	}
	p.ends()
	p.l.exact.forget(p.name)
	p.l.exact.connected(p.name, false)
	if goodbye {
		ctx, cancel := context.WithTimeout(context.Background(), callPatience)
		_ = p.client.Bye(ctx)
		cancel()
	} else {
		p.client.Close()
	}
	p.client = nil
	p.ends()
}

// settled waits for a connection, if there is a client: who leaves while it is sent from one edge to another is
// shown for a minute, and cannot say goodbye.
func (p *person) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, actPatience)
	defer cancel()
	for p.client != nil && p.on() == "none" && pause(ctx, poll) {
	}
}

// final brings everybody into a state that is known: every second one is gone, the others are there
// with a status of their own. ctx bounds it.
func final(ctx context.Context, people []*person) {
	var all sync.WaitGroup
	for i, p := range people {
		all.Go(func() {
			if i%2 == 1 {
				p.settled(ctx)
				p.leave(i%4 == 1)
				return
			}
			for ctx.Err() == nil {
				if p.client == nil {
					p.come(ctx)
				}
				if p.set(ctx, "final-"+p.name) {
					return
				}
				pause(ctx, backoffMax)
			}
		})
	}
	all.Wait()
}

// judge says how every watcher must see everybody, and how to ask what it does see.
func judge(people []*person) (want []expected, have func(watcher, user string) viewed) {
	byName := map[string]*person{}
	for _, p := range people {
		byName[p.name] = p
	}
	for _, p := range people {
		if p.client == nil {
			continue
		}
		for _, user := range p.watch {
			w := byName[user]
			want = append(want, expected{watcher: p.name, user: user, present: w.client != nil, text: w.text})
		}
	}
	return want, func(watcher, user string) viewed {
		by := byName[watcher]
		v := by.client.View().Get(user)
		return viewed{
			present: v.State.Present(), stale: v.Stale || v.State == sdk.Unknown, state: string(v.State), text: v.Text,
			over: fmt.Sprintf("version %d over %s", v.Version, by.on()),
		}
	}
}
