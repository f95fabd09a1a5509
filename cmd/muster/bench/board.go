//go:build linux

package bench

import "fmt"

// board is what the watchers of a fleet have seen last: member i watches the width
// users before it in the circle of n.
type board struct {
	f        *fleet
	n, width int
	state    []byte // per (member, distance)
	changes  uint64 // views that differed from the one before
}

// newBoard adds n members in a circle.
func newBoard(f *fleet, n, width int) (*board, error) {
	b := &board{f: f, n: n, width: width, state: make([]byte, n*width)}
	for i := range n {
		watch := make([]int, width)
		for d := range watch {
			watch[d] = (i - d - 1 + n) % n
		}
		if _, err := f.add(i, "d1", watch...); err != nil {
			return nil, err
		}
	}
	f.view = b.view
	return b, nil
}

func (b *board) view(m *member, v view) {
	d := (m.user - v.user + b.n) % b.n
	if m.user >= b.n {
		return // an extra watcher
	}
	if v.user < 0 || d < 1 || d > b.width {
		b.f.fail(fmt.Errorf("u%d was sent u%d, whom it does not watch", m.user, v.user))
		return
	}
	if slot := &b.state[m.user*b.width+d-1]; *slot != v.state {
		*slot = v.state
		b.changes++
	}
}

// missing counts the watches whose last view is not the state given.
func (b *board) missing(state byte) (n int) {
	for _, s := range b.state {
		if s != state {
			n++
		}
	}
	return n
}
