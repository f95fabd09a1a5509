package cluster

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
)

// Virtual time in the simulator is in microseconds.
const (
	ms     = int64(1000)
	second = 1000 * ms
)

// queue is the simulator's only clock: what happens, in order of time, then of planning.
type queue struct {
	now   int64
	next  uint64
	items items
}

type item struct {
	at  int64
	seq uint64
	run func()
}

type items []item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *items) Push(x any)   { *q = append(*q, x.(item)) }
func (q *items) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = item{}
	*q = (*q)[:last]
	return x
}

func (q *queue) after(d int64, run func()) {
	q.next++
	heap.Push(&q.items, item{at: q.now + d, seq: q.next, run: run})
}

// step runs what is due next, if it is due by until.
func (q *queue) step(until int64) bool {
	if len(q.items) == 0 || q.items[0].at > until {
		q.now = max(q.now, until)
		return false
	}
	it := heap.Pop(&q.items).(item)
	q.now = it.at
	it.run()
	return true
}

// entropy stands in for crypto/rand.Reader while a seed runs: raft draws its election
// time-outs from there.
type entropy struct{ rnd *rand.Rand }

func (e entropy) Read(p []byte) (int, error) {
	var word [8]byte
	for n := 0; n < len(p); n += 8 {
		binary.LittleEndian.PutUint64(word[:], e.rnd.Uint64())
		copy(p[n:], word[:])
	}
	return len(p), nil
}
