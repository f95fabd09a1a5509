package presence

import (
	"math/bits"
	"slices"
)

// row is the interest of one watcher at one edge: 8 bytes.
type row struct {
	watcher uint32 // of Names; 0: empty
	edge    uint16 // slot
	mask    Mask
	bits    uint8 // the watcher's hidden fields, and rowMarked
}

// rowMarked: confirmed by the announcement that is under way.
const rowMarked = 1 << 7

func (r *row) hidden() Mask { return Mask(r.bits &^ rowMarked) }

// rowTable is a flat hash table of rows by watcher, with linear probing: all rows of a
// watcher lie in one run. Up to 8 slots it may be full.
type rowTable struct {
	slots []row // a power of two
	n     int
}

func (t *rowTable) home(watcher uint32) int {
	return int(watcher * 2654435769 >> (32 - bits.TrailingZeros(uint(len(t.slots)))))
}

// find returns the row, nil if there is none. It is valid until the next change.
func (t *rowTable) find(watcher uint32, edge uint16) *row {
	var found *row
	t.of(watcher, func(i int) bool {
		if t.slots[i].edge == edge {
			found = &t.slots[i]
		}
		return found == nil
	})
	return found
}

// of visits the places of a watcher's rows until visit says no.
func (t *rowTable) of(watcher uint32, visit func(i int) bool) {
	if len(t.slots) == 0 {
		return
	}
	last := len(t.slots) - 1
	for i, k := t.home(watcher), 0; k <= last; i, k = (i+1)&last, k+1 {
		w := t.slots[i].watcher
		if w == 0 || w == watcher && !visit(i) {
			return
		}
	}
}

// add inserts a row that is not there yet.
func (t *rowTable) add(r row) {
	if size := len(t.slots); t.n == size || size > 8 && t.n >= size*3/4 {
		t.resize(max(1, 2*size))
	}
	t.place(r)
	t.n++
}

func (t *rowTable) place(r row) {
	last := len(t.slots) - 1
	i := t.home(r.watcher)
	for t.slots[i].watcher != 0 {
		i = (i + 1) & last
	}
	t.slots[i] = r
}

func (t *rowTable) resize(size int) {
	old := t.slots
	t.slots = make([]row, size)
	for _, r := range old {
		if r.watcher != 0 {
			t.place(r)
		}
	}
}

// remove deletes a row if it is there.
func (t *rowTable) remove(watcher uint32, edge uint16) {
	hole := -1
	t.of(watcher, func(i int) bool {
		if t.slots[i].edge == edge {
			hole = i
		}
		return hole < 0
	})
	if hole < 0 {
		return
	}
	last := len(t.slots) - 1
	for j := (hole + 1) & last; j != hole && t.slots[j].watcher != 0; j = (j + 1) & last {
		// A row may fill the hole unless its home lies behind the hole.
		if home := t.home(t.slots[j].watcher); (j-home)&last >= (j-hole)&last {
			t.slots[hole] = t.slots[j]
			hole = j
		}
	}
	t.slots[hole] = row{}
	if t.n--; t.n == 0 {
		t.slots = nil
	} else if len(t.slots) > 8 && t.n < len(t.slots)/4 {
		t.resize(len(t.slots) / 2)
	}
}

// each visits all rows in no useful order.
func (t *rowTable) each(visit func(*row)) {
	for i := range t.slots {
		if t.slots[i].watcher != 0 {
			visit(&t.slots[i])
		}
	}
}

// tally counts the rows of an edge with one mask: what a change costs follows the
// tallies, not the rows.
type tally struct {
	edge uint16
	mask Mask
	n    uint32
}

func compareTallies(t tally, u tally) int {
	if t.edge != u.edge {
		return int(t.edge) - int(u.edge)
	}
	return int(t.mask) - int(u.mask)
}

// count adds d rows to the tally of (edge, mask).
func (e *entry) count(edge uint16, mask Mask, d int) {
	t := tally{edge: edge, mask: mask}
	i, found := slices.BinarySearchFunc(e.tallies, t, compareTallies)
	if !found {
		e.tallies = slices.Insert(slices.Grow(e.tallies, 1), i, t)
	}
	e.tallies[i].n = uint32(int(e.tallies[i].n) + d)
	if e.tallies[i].n == 0 {
		e.tallies = slices.Delete(e.tallies, i, i+1)
	}
}
