package presence

import "container/heap"

// wakes are the entries without activation that show what ends by itself, the earliest
// end first.
type wakes []*entry

func (w wakes) Len() int { return len(w) }
func (w wakes) Less(i, j int) bool {
	if w[i].until != w[j].until {
		return w[i].until < w[j].until
	}
	return compareKeys(w[i].key, w[j].key) < 0
}
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = int32(i+1), int32(j+1)
}
func (w *wakes) Push(e any) {
	*w = append(*w, e.(*entry))
	e.(*entry).place = int32(len(*w))
}
func (w *wakes) Pop() any {
	last := len(*w) - 1
	e := (*w)[last]
	(*w)[last] = nil
	*w, e.place = (*w)[:last], 0
	return e
}

// sleep arms the wake of an entry without activation; ends at Unix ms, 0: never.
func (g *Gateway) sleep(e *entry, until int64) {
	g.unarm(e)
	if e.until = until; until != 0 && !e.active {
		heap.Push(&g.wakes, e)
	}
}

func (g *Gateway) unarm(e *entry) {
	if e.place != 0 {
		heap.Remove(&g.wakes, int(e.place-1))
	}
}

// wake activates the users whose time has come.
func (g *Gateway) wake(now int64, out *Effects) {
	for len(g.wakes) > 0 && g.wakes[0].until <= now {
		e := g.wakes[0]
		g.send(e, Wake{}, out)
		e.until = 0 // until it says more
	}
}
