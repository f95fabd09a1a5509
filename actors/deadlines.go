package actors

import (
	"container/heap"
	"time"
)

// deadlines is the heap of a shard: which activation must be ticked when. A position
// is kept in the activation, so that a change costs O(log n) and needs no search.
type deadlines []*activation

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due < d[j].due }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = int32(i+1), int32(j+1)
}
func (d *deadlines) Push(a any) {
	*d = append(*d, a.(*activation))
	a.(*activation).place = int32(len(*d))
}
func (d *deadlines) Pop() any {
	old := *d
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	a.place = 0
	return a
}

// set puts the activation's deadline, Unix ns; 0: none.
func (d *deadlines) set(a *activation, due int64) {
	switch {
	case due == 0 && a.place > 0:
		heap.Remove(d, int(a.place-1))
	case due == 0:
	case a.place == 0:
		a.due = due
		heap.Push(d, a)
	case a.due != due:
		a.due = due
		heap.Fix(d, int(a.place-1))
	}
}

// next takes an activation whose deadline has come.
func (d *deadlines) next(now time.Time) *activation {
	if len(*d) == 0 || (*d)[0].due > now.UnixNano() {
		return nil
	}
	return heap.Pop(d).(*activation)
}

// first is the earliest deadline.
func (d deadlines) first() (at time.Time, ok bool) {
	if len(d) == 0 {
		return at, false
	}
	return time.Unix(0, d[0].due), true
}
