//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	sdk "muster/clients/go"
)

const (
	watchesEach = 8
	actPatience = 20 * time.Second // for one act, over reconnects
)

// person is a user who comes, goes, changes status and watches others.
type person struct {
	l     *load
	name  string
	watch []string
	rnd   *rand.Rand

	client *sdk.Client // nil: away; the person's own goroutine uses it
	text   string      // status set last

	mu   sync.Mutex
	span *presentSpan // while connected
}

// people makes n persons; each watches some of the others.
func (l *load) people(n int) []*person {
	list := make([]*person, n)
	for i := range list {
		p := &person{l: l, name: fmt.Sprintf("p%d", i), rnd: l.random(2000 + uint64(i))}
		for _, k := range p.rnd.Perm(n)[:min(n, watchesEach)] {
			if k != i {
				p.watch = append(p.watch, fmt.Sprintf("p%d", k))
			}
		}
		list[i] = p
	}
	return list
}

// live comes and goes until work ends.
func (p *person) live(work context.Context) {
	if !pause(work, time.Duration(p.rnd.Int64N(int64(3*time.Second)))) {
		return
	}
	for n := 0; work.Err() == nil; n++ {
		if p.client == nil {
			p.come(work)
		}
		if !pause(work, time.Second+time.Duration(p.rnd.Int64N(int64(9*time.Second)))) {
			return
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
	client, err := p.l.dial(ctx, p.name, sdk.Options{Watch: p.watch, OnConnection: p.connection})
	if err == nil {
		p.client = client
	}
}

// connection keeps the times at which the person was connected, and to whom.
func (p *person) connection(c sdk.Connection) {
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
	return p.client.SetStatus(ctx, sdk.Status{State: sdk.Away, Text: text}) == nil
}

// leave ends the session: with a goodbye, or so that others see it until its grace is over.
func (p *person) leave(goodbye bool) {
	if p.client == nil {
		return
	}
	p.ends()
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

// final brings everybody into a state that is known: every second one is gone, the others are there
// with a status of their own. ctx bounds it.
func final(ctx context.Context, people []*person) {
	var all sync.WaitGroup
	for i, p := range people {
		all.Go(func() {
			if i%2 == 1 {
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
