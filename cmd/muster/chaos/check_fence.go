package chaos

import (
	"cmp"
	"fmt"
	"slices"
)

// fence: of each shard, an index was acknowledged by one node in one term, a later index never in
// an earlier term, and a message was stored once.
func fence(acks []acknowledged, sends []send) verdict {
	v := verdict{Checker: "fence", Of: "audited acknowledgements"}
	sent := map[string]bool{}
	for _, s := range sends {
		sent[s.id] = true
	}
	shards := map[uint32][]acknowledged{}
	stored := map[string]acknowledged{}
	for _, a := range acks {
		v.Examined++
		shards[a.Shard] = append(shards[a.Shard], a)
		if !sent[a.ClientID] {
			v.fail("%s acknowledged %s, which nobody sent", a.Node, a.ClientID)
		}
		if b, ok := stored[a.ClientID]; ok {
			v.fail("%s was stored twice: %s and %s", a.ClientID, b, a)
		}
		stored[a.ClientID] = a
	}
	for _, list := range shards {
		slices.SortStableFunc(list, func(a, b acknowledged) int { return cmp.Compare(a.Index, b.Index) })
		for i, a := range list[1:] {
			switch b := list[i]; {
			case a.Index == b.Index && (a.Term != b.Term || a.Node != b.Node):
				v.fail("one index, two activations: %s and %s", b, a)
			case a.Term < b.Term:
				v.fail("a term that was over acknowledged: %s after %s", a, b)
			}
		}
	}
	return v.done()
}

func (a acknowledged) String() string {
	return fmt.Sprintf("shard %d index %d term %d by %s (%s)", a.Shard, a.Index, a.Term, a.Node, a.ClientID)
}
