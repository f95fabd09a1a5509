package chaos

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// porcupinePatience is how long one user's history may be searched.
const porcupinePatience = 20 * time.Second

// register is a status text: a read gives what was written last.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		op := input.(statusOp)
		if op.write {
			return true, op.value
		}
		return state == op.value, state
	},
	DescribeOperation: func(input, _ any) string {
		op := input.(statusOp)
		switch {
		case op.unknown:
			return "write " + op.value + "?"
		case op.write:
			return "write " + op.value
		case op.fresh:
			return "linearizable read " + op.value
		}
		return "read " + op.value
	},
}

// linearizable: each user's status is one register. stale is by how much a read that did not ask to be linearizable may be
// behind: the cluster reads from the memory of a shard's leader, which may not have noticed yet that it
// is cut off. A write without an answer may take effect at any later time, or never. show, if not nil, gets
// a picture of each bad history.
func linearizable(ops []statusOp, stale time.Duration, show func(user string, picture func(io.Writer) error)) verdict {
	v := verdict{Checker: "linearizability", Of: "status operations"}
	users := map[string][]porcupine.Operation{}
	read := map[string]bool{}
	for _, op := range ops {
		if !op.write {
			read[op.user+" "+op.value] = true
		}
	}
	fresh := 0
	for _, op := range ops {
		v.Examined++
		o := porcupine.Operation{Input: op, Call: int64(op.call), Return: int64(op.back)}
		switch {
		case op.unknown && !read[op.user+" "+op.value]:
			continue // never seen: it changes nothing whether it happened
		case op.unknown:
			o.Return = math.MaxInt64
		case op.fresh:
			fresh++
		case !op.write:
			o.Call = max(0, o.Call-int64(stale))
		}
		users[op.user] = append(users[op.user], o)
	}
	v.Note = fmt.Sprintf("%d of them linearizable reads", fresh)
	undecided := 0
	for user, history := range users {
		result, info := porcupine.CheckOperationsVerbose(register, history, porcupinePatience)
		switch result {
		case porcupine.Illegal:
			if show != nil {
				show(user, func(w io.Writer) error { return porcupine.Visualize(register, info, w) })
			}
			v.fail("the status of %s is not linearizable (%d operations, default reads up to %v behind)", user, len(history), stale)
		case porcupine.Unknown:
			undecided++
		}
	}
	if undecided > 0 {
		v.Note = "undecided in time: users whose histories are too entangled"
		if undecided == len(users) {
			v.fail("no user's history could be decided in %v each", porcupinePatience)
		}
	}
	return v.done()
}
