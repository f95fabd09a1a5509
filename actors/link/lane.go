package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
)

// Messages of a lane are a stream of records, uvarint length and bytes, cut into frames anywhere. A frame begins with
// its epoch and its number in it, so that a frame that is missing is noticed at the next. An empty frame a second shows
// what was lost last.
const (
	maxFrame   = 256<<10 - 32 // bytes of records
	maxMessage = 16 << 20     // bytes of a message
	startFrame = 512          // capacity of a frame at first
)

// outbox is what one end sends.
type outbox struct {
	f    *Far
	kind byte // of frames of messages

	mu    sync.Mutex
	epoch uint64 // 0: down
	sent  uint64 // messages
	hello []byte // until it has been heard
	lanes [lanes]outlane
	bulks [Shards]uint64 // the number of the last message on Bulk, by shard
	bulk  uint64         // messages on Bulk
	grown int            // how often the bound of the queues was doubled
}

// maxGrown is how often the bound of the queues is doubled at most: 64 MiB becomes 1 GiB.
const maxGrown = 4

type outlane struct {
	wake   chan struct{}
	queue  []frame
	queued int // bytes
	open   []byte
	number uint64 // of the frame that is open, or will be
	lost   bool   // the queue was full
	due    bool   // a frame is to be sent even if it is empty
}

type frame struct {
	kind    byte
	payload []byte
}

func (o *outbox) start(ctx context.Context, f *Far, kind byte, on ...Lane) {
	o.f, o.kind = f, kind
	for _, lane := range on {
		wake := make(chan struct{}, 1)
		o.lanes[lane].wake = wake
		f.writers.Go(func() { o.write(ctx, lane, wake) })
	}
}

// open begins an epoch; what waits of an older one is dropped.
func (o *outbox) open(epoch uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch, o.sent, o.bulk, o.bulks, o.hello = epoch, 0, 0, [Shards]uint64{}, nil
	for i := range o.lanes {
		o.lanes[i] = outlane{wake: o.lanes[i].wake}
	}
}

func (o *outbox) isOpen(epoch uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.epoch == epoch
}

// control queues a frame of its own.
func (o *outbox) control(kind byte, payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if kind == kindHello {
		o.hello = payload
	}
	if l := &o.lanes[Control]; len(l.queue) < 64 { // more can only be beats
		l.push(frame{kind, payload})
	}
}

// heard ends the repetition of hello.
func (o *outbox) heard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hello = nil
}

// beat queues a beat, and an empty frame on each lane; false when the epoch is over.
func (o *outbox) beat(epoch uint64, kind byte, b *Beat) bool {
	o.mu.Lock()
	if o.epoch != epoch {
		o.mu.Unlock()
		return false
	}
	b.Epoch, b.Sent = epoch, o.sent
	for i := range o.lanes {
		if l := &o.lanes[i]; Lane(i) != Control && l.wake != nil {
			l.due = true
			l.stir()
		}
	}
	o.mu.Unlock()
	if payload, err := proto.Marshal(b); err == nil {
		o.control(kind, payload)
	}
	return true
}

// message queues a message. after: whether the receiver is to wait for what was sent for the shard on Bulk.
func (o *outbox) message(lane Lane, epoch uint64, shard uint32, m proto.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.epoch != epoch {
		return false
	}
	o.sent++
	after := uint64(0)
	switch {
	case shard >= Shards:
	case lane == Bulk:
		o.bulk++
		o.bulks[shard] = o.bulk
	default:
		after = o.bulks[shard]
	}
	l := &o.lanes[lane]
	if !l.lost {
		o.encode(l, after, m)
	}
	l.stir()
	return true
}

// encode writes a record straight into the frame that is open.
func (o *outbox) encode(l *outlane, after uint64, m proto.Message) {
	size := proto.Size(m)
	full := l.queued+len(l.open)+size > o.f.cfg.Queue<<o.grown
	if full || size > maxMessage {
		o.f.stats.Overflows.Add(1)
		if full && o.grown < maxGrown { // or the next epoch, which sends as much, would end so too
			o.grown++
		}
		*l = outlane{wake: l.wake, number: l.number + 1, lost: true, due: true}
		return
	}
	if l.open == nil {
		l.begin(o.epoch, size)
	}
	l.open = binary.AppendUvarint(l.open, uint64(size))
	if o.kind == kindUp {
		l.open = binary.AppendUvarint(l.open, after)
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(l.open, m)
	if err != nil { // text that is not UTF-8: nothing of it may remain
		o.f.stats.Malformed.Add(1)
		*l = outlane{wake: l.wake, number: l.number + 1, lost: true, due: true}
		return
	}
	for l.open = b; len(l.open) > maxFrame; {
		rest := l.open[maxFrame:]
		l.seal(o.kind, l.open[:maxFrame:maxFrame])
		l.begin(o.epoch, len(rest))
		l.open = append(l.open, rest...)
	}
}

func (l *outlane) begin(epoch uint64, size int) {
	l.open = make([]byte, 0, max(startFrame, min(size+64, maxFrame+64)))
	l.open = binary.AppendUvarint(l.open, epoch)
	l.open = binary.AppendUvarint(l.open, l.number)
}

// seal queues a frame that is full.
func (l *outlane) seal(kind byte, b []byte) {
	l.number++
	l.open = nil
	l.push(frame{kind, b})
}

func (l *outlane) push(f frame) {
	l.queue = append(l.queue, f)
	l.queued += len(f.payload)
	l.stir()
}

func (l *outlane) stir() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// next is the next frame to send of a lane.
func (o *outbox) next(lane Lane) (f frame, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.lanes[lane]
	if len(l.queue) == 0 && o.epoch != 0 {
		if l.open == nil && l.due {
			l.begin(o.epoch, 0)
		}
		if l.open != nil {
			l.seal(o.kind, l.open)
		}
	}
	if len(l.queue) == 0 {
		l.queue = nil
		return f, false
	}
	f, l.due = l.queue[0], false
	l.queue[0] = frame{}
	l.queue = l.queue[1:]
	l.queued -= len(f.payload)
	return f, true
}

// write sends what is queued on a lane. What gathers while one frame is being sent goes as the next.
func (o *outbox) write(ctx context.Context, lane Lane, wake <-chan struct{}) {
	for ctx.Err() == nil {
		if f, ok := o.next(lane); ok {
			o.f.send(lane, f.kind, f.payload)
			continue
		}
		var again <-chan time.Time
		o.mu.Lock()
		hello := o.hello
		o.mu.Unlock()
		if lane == Control && hello != nil {
			again = time.After(patience)
		}
		select {
		case <-wake:
		case <-ctx.Done():
		case <-again:
			o.f.send(lane, kindHello, hello)
		}
	}
}

// inlane puts the records of one lane together again.
type inlane struct {
	mu     sync.Mutex
	epoch  uint64
	number uint64 // of the next frame
	part   []byte // a record whose end is yet to come
}

// verdict on a frame.
type verdict uint8

const (
	good verdict = iota
	old          // of an epoch that is over, or not known
	gap
)

// take cuts a frame of the present epoch into records. before: each has the number of a
// message on Bulk that goes before. A record that each does not take is a gap.
func (l *inlane) take(payload []byte, present uint64, before bool, each func(after uint64, record []byte) bool) verdict {
	epoch, n := binary.Uvarint(payload)
	number, k := binary.Uvarint(payload[max(n, 0):])
	if n <= 0 || k <= 0 {
		return gap
	}
	if epoch != present || epoch == 0 {
		return old
	}
	if l.epoch != epoch {
		l.epoch, l.number, l.part = epoch, 0, nil
	}
	if number != l.number {
		return gap
	}
	l.number++
	b := payload[n+k:]
	joined := len(l.part) > 0
	if joined {
		b = append(l.part, b...)
		l.part = nil
	}
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		after, k := uint64(0), 0
		if before && n > 0 {
			after, k = binary.Uvarint(b[n:])
		}
		if n < 0 || k < 0 || size > maxMessage {
			return gap
		}
		if head := n + k; n > 0 && (k > 0 || !before) && uint64(len(b)-head) >= size {
			if !each(after, b[head:head+int(size)]) {
				return gap
			}
			b = b[head+int(size):]
			continue
		}
		if l.part = b; !joined {
			l.part = bytes.Clone(b)
		}
		break
	}
	return good
}
