//go:build linux

package bench

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	recipients     = 2000    // users whose outboxes are written
	firstRecipient = 100_000 // their number
	sendBody       = 100     // bytes
)

// senders are sessions that publish, each one entry at a time.
type senders struct {
	f       *fleet
	at      []int64 // per sender: when the unanswered entry was sent
	to      []int   // and to whom
	stored  []uint64
	done    uint64
	running bool
	latency *hdrhistogram.Histogram // ns
}

func newSenders(f *fleet, n int) (*senders, error) {
	s := &senders{f: f, at: make([]int64, n), to: make([]int, n), stored: make([]uint64, recipients)}
	f.caps = []string{"publish"}
	f.reply = s.answered
	for i := range n {
		if _, err := f.add(i, "d1"); err != nil {
			return nil, err
		}
	}
	return s, f.connect(f.members, 128, time.Minute, nil)
}

// clientID is a UUIDv7 of now.
func clientID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(time.Now().UnixMilli())<<16|0x7000|rand.Uint64()&0xFFF)
	binary.BigEndian.PutUint64(b[8:], 1<<63|rand.Uint64()>>2)
	var text [36]byte
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		at := []int{0, 9, 14, 19, 24}[i]
		hex.Encode(text[at:], part)
		if at > 0 {
			text[at-1] = '-'
		}
	}
	return string(text[:])
}

var filler = func() string {
	b := make([]byte, sendBody-2)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}()

func (s *senders) send(m *member) {
	s.to[m.user] = rand.IntN(recipients)
	s.at[m.user] = s.f.e.now()
	s.f.e.send(&m.client, textFrame(`{"id":9,"publish":{"user":"u%d","client_id":"%s","body":"%s"}}`, firstRecipient+s.to[m.user], clientID(), filler))
}

func (s *senders) answered(m *member) {
	s.stored[s.to[m.user]]++
	s.done++
	_ = s.latency.RecordValue(max(s.f.e.now()-s.at[m.user], 1_000))
	s.at[m.user] = 0
	if s.running {
		s.send(m)
	}
}

// run lets the first n senders send for d and waits for the last answers.
func (s *senders) run(n int, d time.Duration, progress func(float64)) error {
	s.latency, s.done, s.running = hdrhistogram.New(1_000, 60_000_000_000, 3), 0, true
	begin := time.Now()
	for _, m := range s.f.members[:n] {
		s.send(m)
	}
	for time.Since(begin) < d {
		s.f.e.poll(5 * time.Millisecond)
		if err := s.f.err(); err != nil {
			return err
		}
		progress(time.Since(begin).Seconds())
	}
	s.running = false
	idle := func() bool {
		for _, at := range s.at {
			if at != 0 {
				return false
			}
		}
		return true
	}
	if !s.f.e.until(10*time.Second, idle) {
		return errors.New("sends were not answered in 10 s")
	}
	return s.f.err()
}

// sendPass is what one pass of a number of senders came to.
type sendPass struct {
	cost
	sends, syncs, bytes float64
	latency             *hdrhistogram.Histogram
}

// send measures durable sends (P9): a session publishes, the answer says that it is
// stored for good. One node through its sockets, beside a program that writes the same
// bytes and syncs as often; then three nodes in one process.
func (r *runner) send() error {
	t, err := r.server()
	if err != nil {
		return err
	}
	defer t.stop()
	f, err := newFleet(t, r.opt)
	if err != nil {
		return err
	}
	defer f.e.close()
	most := r.conns(1000)
	s, err := newSenders(f, most)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 64, most} {
		if err := r.sendOne(s, n); err != nil {
			return err
		}
	}
	res := newResult("send", "every outbox read to its end")
	sum := 0.0
	for _, n := range s.stored {
		sum += float64(n)
	}
	res.set("entries", sum)
	if err := r.done(res, r.drain(t, firstRecipient, s.stored)); err != nil {
		return err
	}
	if r.opt.URL != "" {
		return nil
	}
	return r.sendThree()
}

// sendOne measures n senders on one node, with the floor for more than one: A/B/B/A.
func (r *runner) sendOne(s *senders, n int) error {
	res := newResult("send", fmt.Sprintf("one node, %d senders", n))
	d := r.duration(5 * time.Second)
	step := fmt.Sprintf("%d senders", n)
	a1, err := r.sendPass(s, n, d, step)
	if err != nil {
		return r.done(res, err)
	}
	passes := []sendPass{a1}
	var floor float64
	if r.opt.URL == "" {
		batch := int(a1.bytes / max(a1.syncs, 1))
		f1, err := r.writeFloor(batch, d, "floor of "+step)
		if err != nil {
			return err
		}
		f2, err := r.writeFloor(batch, d, "floor of "+step)
		if err != nil {
			return err
		}
		a2, err := r.sendPass(s, n, d, step)
		if err != nil {
			return r.done(res, err)
		}
		passes = append(passes, a2)
		floor = (f1 + f2) / 2
		a1.latency.Merge(a2.latency)
	}
	var all sendPass
	for _, p := range passes {
		all.sends += p.sends
		all.syncs += p.syncs
		all.bytes += p.bytes
		all.wall += p.wall
		all.cpu += p.cpu
		all.generator += p.generator
	}
	rate := all.sends / all.wall.Seconds()
	res.set("sends_per_s", rate)
	res.set("cpu_per_send_us", all.cpu.Seconds()*1e6/max(all.sends, 1))
	res.set("p50_ms", float64(a1.latency.ValueAtQuantile(50))/1e6)
	res.set("p99_ms", float64(a1.latency.ValueAtQuantile(99))/1e6)
	res.set("sends_per_sync", all.sends/max(all.syncs, 1))
	res.set("bytes_per_send", all.bytes/max(all.sends, 1))
	all.put(res)
	if floor > 0 {
		floorRate := floor * all.sends / max(all.syncs, 1)
		res.set("floor_syncs_per_s", floor)
		res.set("floor_sends_per_s", floorRate)
		res.set("ratio_to_floor", rate/floorRate)
	}
	if n == 1 {
		res.atMost("P9 alone", "p50_ms", 1, 3)
	} else if floor > 0 {
		res.atLeast("P9", "ratio_to_floor", 0.4, 0.2)
	}
	return r.done(res, nil)
}

func (r *runner) sendPass(s *senders, n int, d time.Duration, step string) (p sendPass, err error) {
	before, err := s.f.t.metrics()
	if err != nil {
		return p, err
	}
	p.cost, err = r.measured(s.f, func() error {
		return s.run(n, d, func(at float64) { r.bar.Show(step, at, d.Seconds()) })
	})
	if err != nil {
		return p, err
	}
	after, err := s.f.t.metrics()
	p.sends, p.latency = float64(s.done), s.latency
	p.syncs = after[metricSyncs] - before[metricSyncs]
	p.bytes = after[metricWritten] - before[metricWritten]
	return p, err
}

// Metrics of a server that the benchmark reads.
const (
	metricSyncs   = "muster_store_sync_seconds_count"
	metricWritten = "muster_store_wal_bytes_total"
)
