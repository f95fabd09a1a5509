//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"muster/actors/link"
	sdk "muster/clients/go"
)

const (
	registers  = 6 // users whose status is written and read
	statusEach = 300 * time.Millisecond
	probeEach  = time.Second
	fineShards = 2 // that are probed more often, to measure short pauses
	fineEach   = 20 * time.Millisecond
	probes     = link.Shards + fineShards*int(time.Second/fineEach) // a second
	fineUnder  = 100                                                // of these probes at once, for one shard
	probeRetry = 100 * time.Millisecond
)

// statuses writes and reads the status of a few users over HTTP, by any front. They are connected all the time,
// as the status of nobody is not shown. Half of the reads ask to be linearizable.
func (l *load) statuses(work, ctx context.Context) {
	for i := range registers {
		user := fmt.Sprintf("l%d", i)
		l.running.Go(func() {
			client, err := l.dial(ctx, user, sdk.Options{}, nil)
			if err != nil {
				return
			}
			<-ctx.Done()
			client.Close()
		})
		l.running.Go(func() { l.writeStatus(work, user) })
		l.running.Go(func() { l.readStatus(work, user, 1, "") })
		l.running.Go(func() { l.readStatus(work, user, 2, "?linearizable=true") })
	}
}

func (l *load) writeStatus(work context.Context, user string) {
	for n := 1; pause(work, statusEach); n++ {
		op := statusOp{user: user, write: true, value: fmt.Sprint("v", n), call: l.now()}
		var none struct{}
		err := l.call(l.hard, l.fronts[n%len(l.fronts)], callPatience, http.MethodPost, "/v1/users/"+user+"/status",
			fmt.Sprintf(`{"state":"dnd","text":%q}`, op.value), &none)
		op.back, op.unknown = l.now(), err != nil
		l.note(func() { l.ops = append(l.ops, op) })
	}
}

func (l *load) readStatus(work context.Context, user string, shift int, how string) {
	for n := shift; pause(work, statusEach); n++ {
		op := statusOp{user: user, call: l.now(), fresh: how != ""}
		var now struct{ State, Text string }
		err := l.call(l.hard, l.fronts[n%len(l.fronts)], callPatience, http.MethodGet, "/v1/users/"+user+how, "", &now)
		if err != nil || now.State == "offline" || now.State == "unknown" {
			continue
		}
		op.value, op.back = now.Text, l.now()
		l.note(func() { l.ops = append(l.ops, op) })
	}
}

// probe writes to every shard once a second until work ends. An attempt that fails is made again at
// once, by another front.
func (l *load) probe(work context.Context) {
	for shard, user := range probeUsers() {
		l.running.Go(func() {
			pause(work, time.Duration(shard)*probeEach/link.Shards)
			for n := shard; work.Err() == nil; n++ {
				begin := l.now()
				if l.probeOnce(work, n, probeEach, shard, user) {
					pause(work, probeEach-(l.now()-begin))
				} else {
					pause(work, probeRetry)
				}
			}
		})
	}
}

// fine writes to a few shards very often, whether or not the write before was answered.
func (l *load) fine(work context.Context) {
	for shard, user := range fineUsers() {
		l.running.Go(func() {
			var writes sync.WaitGroup
			defer writes.Wait()
			under := make(chan struct{}, fineUnder)
			for n := int(shard); pause(work, fineEach); n++ {
				select {
				case under <- struct{}{}:
				default:
					continue
				}
				writes.Go(func() {
					defer func() { <-under }()
					s := send{id: newID(), user: user, body: "{}", call: l.now()}
					_, err := l.publish(work, l.fronts[n%len(l.fronts)], probeEach, user, s.id, s.body, `,"collapse_key":"probe"`)
					s.back, s.acked = l.now(), err == nil
					l.note(func() { l.sends = append(l.sends, s) })
				})
			}
		})
	}
}

// fineUsers is a user of each shard that is probed often.
func fineUsers() map[uint32]string {
	users := map[uint32]string{}
	for shard, user := range probeUsers() {
		if shard < fineShards {
			users[uint32(shard)] = user
		}
	}
	return users
}

// probeAll writes to every shard once more, with patience.
func (l *load) probeAll(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var all sync.WaitGroup
	for shard, user := range probeUsers() {
		all.Go(func() {
			for n := shard; !l.probeOnce(ctx, n, 10*probeEach, shard, user); n++ {
				if !pause(ctx, probeRetry) {
					return
				}
			}
		})
	}
	all.Wait()
}

// probeOnce is one attempt, by a front that can be connected to.
func (l *load) probeOnce(ctx context.Context, first int, limit time.Duration, shard int, user string) (ok bool) {
	s := send{id: newID(), user: user, body: "{}"}
	var err error
	for range l.fronts { // a server that is not there says nothing about the shard
		s.call = l.now()
		if _, err = l.publish(ctx, l.fronts[first%len(l.fronts)], limit, user, s.id, s.body, `,"collapse_key":"probe"`); !unreached(err) {
			break
		}
		first++
	}
	p := probe{shard: uint32(shard), call: s.call, back: l.now(), ok: err == nil}
	s.back, s.acked = p.back, p.ok
	l.note(func() {
		l.sends = append(l.sends, s)
		if p.ok || ctx.Err() == nil { // else it was broken off, which says nothing
			l.probes = append(l.probes, p)
		}
	})
	return p.ok
}

// unreached tells whether there was no connection, so that nothing was asked.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func shardOf(user string) uint32 { return link.ShardOf("default", link.KindUser, user) }

// probeUsers is a user of each shard.
func probeUsers() [link.Shards]string {
	var users [link.Shards]string
	for n, found := 0, 0; found < link.Shards; n++ {
		user := fmt.Sprint("q", n)
		if s := shardOf(user); users[s] == "" {
			users[s] = user
			found++
		}
	}
	return users
}
