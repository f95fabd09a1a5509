package cluster

import (
	"fmt"
	"os"
)

// tracedRaft puts what raft logs into the trace of a replayed seed.
type tracedRaft struct {
	silent
	n *vnode
}

func (l tracedRaft) Infof(format string, v ...any)    { l.print(format, v) }
func (l tracedRaft) Warningf(format string, v ...any) { l.print(format, v) }
func (l tracedRaft) print(format string, v []any) {
	if l.n.sim.verbose {
		fmt.Fprintf(os.Stderr, "%20s raft on node %d: %s\n", "", l.n.id, fmt.Sprintf(format, v...))
	}
}
