//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	sdk "muster/clients/go"
)

const (
	receivers     = 12 // users whose outboxes are read, at least
	perReceiver   = 5  // sends a second to each of them, at most
	withTwo       = 4  // of them on two devices
	senders       = 4  // clients that publish over sockets; as many again over HTTP
	perSender     = 8  // sends under way for each
	readerRestart = 15 * time.Second
)

// readers starts all devices that read outboxes, to the end of ctx. Now and then a device
// closes and comes back with its position.
func (l *load) readers(ctx context.Context) {
	for i := range l.receivers {
		user := fmt.Sprintf("r%d", i)
		l.reader(ctx, device{user, "d1"}, uint64(i))
		if i < withTwo {
			l.reader(ctx, device{user, "d2"}, uint64(l.receivers+i))
		}
	}
}

func (l *load) reader(ctx context.Context, d device, part uint64) {
	l.note(func() { l.devices = append(l.devices, d) })
	rnd := l.random(1000 + part)
	position := new(sdk.MemoryPosition)
	var last sdk.Position
	l.running.Go(func() {
		for ctx.Err() == nil {
			client, err := l.dial(ctx, d.user, sdk.Options{DeviceID: d.name, Outbox: position}, nil)
			if err != nil {
				continue
			}
			turn, cancel := context.WithTimeout(ctx, readerRestart+time.Duration(rnd.Int64N(int64(2*readerRestart))))
			for got := range client.Outbox().Deliveries(turn) {
				// The loop may have been left with this one, which then comes again.
				if got.Entry == nil || got.Position != last {
					l.took(d, got)
				}
				last = got.Position
			}
			cancel()
			client.Close()
		}
	})
}

func (l *load) took(d device, got sdk.Delivery) {
	s := step{device: d, epoch: got.Position.Epoch, at: l.now(), from: got.Position.Offset, to: got.Position.Offset, reset: got.Reset}
	switch {
	case got.Entry != nil:
		s.id, s.body = got.Entry.ID, string(got.Entry.Body)
	case got.Gap != nil:
		s.from, s.to, s.reason = got.Gap.From, got.Gap.To, "gap: "+got.Gap.Reason
	}
	l.note(func() { l.steps = append(l.steps, s) })
}

// send keeps a rate of durable messages until work ends; what is under way then is sent to its end.
func (l *load) send(work context.Context, rate int) *sync.WaitGroup {
	due := make(chan struct{}, rate)
	var sending sync.WaitGroup
	sending.Go(func() {
		defer close(due)
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-work.Done():
				return
			}
			select {
			case due <- struct{}{}:
			default: // the cluster is behind
			}
		}
	})
	var number atomic.Uint64
	for i := range 2 * senders {
		sending.Go(func() {
			var client *sdk.Client
			if i < senders {
				var err error
				if client, err = l.dial(l.hard, fmt.Sprintf("s%d", i), sdk.Options{}, nil); err != nil {
					return
				}
				defer client.Close()
			}
			var workers sync.WaitGroup
			for range perSender {
				workers.Go(func() {
					for range due {
						l.deliver(client, number.Add(1))
					}
				})
			}
			workers.Wait()
		})
	}
	return &sending
}

// deliver sends one message until it is stored, over the client's socket or, without one, HTTP.
func (l *load) deliver(client *sdk.Client, n uint64) {
	s := send{id: newID(), user: fmt.Sprintf("r%d", n%uint64(l.receivers)), body: fmt.Sprintf(`{"n":%d}`, n), call: l.now()}
	ctx, cancel := context.WithTimeout(l.hard, sendPatience)
	defer cancel()
	var err error
	if client != nil {
		_, err = client.Publish(ctx, s.user, sdk.Message{ID: s.id, Body: json.RawMessage(s.body)})
	} else {
		s.offset, err = l.persist(ctx, s)
	}
	s.back, s.acked = l.now(), err == nil
	l.note(func() { l.sends = append(l.sends, s) })
}

// persist publishes over HTTP, by one front after the other, until it is stored.
func (l *load) persist(ctx context.Context, s send) (offset uint64, err error) {
	for i := int(s.call); ctx.Err() == nil; i++ {
		if offset, err = l.publish(ctx, l.fronts[i%len(l.fronts)], callPatience, s.user, s.id, s.body, ""); err == nil || errors.Is(err, errRefused) {
			return offset, err
		}
		pause(ctx, 2*backoffMin)
	}
	return 0, ctx.Err()
}

// missing counts what was acknowledged and has not come to every device yet.
func (l *load) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := map[device]map[string]bool{}
	for _, d := range l.devices {
		got[d] = map[string]bool{}
	}
	for _, st := range l.steps {
		if st.entry() {
			got[st.device][st.id] = true
		}
	}
	for _, s := range l.sends {
		if !s.acked {
			continue
		}
		for _, name := range []string{"d1", "d2"} {
			if ids, ok := got[device{s.user, name}]; ok && !ids[s.id] {
				n++
			}
		}
	}
	return n
}
