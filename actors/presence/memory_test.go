//go:build !race

package presence

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory holds the budgets: about 400 B for a user with one session, 64 B for a watch with
// everything it takes, each user with 20 watches spread over 64 shards.
func TestMemory(t *testing.T) {
	const users, watches, shards = 10_000, 20, 64
	cfg := DefaultConfig()
	names := NewNames(&sync.Mutex{})
	var gates [shards]*Gateway
	for i := range gates {
		gates[i] = NewGateway(&cfg, names, Open{At: noon, Term: 1})
		gates[i].Step(noon, EdgeUp{benchEdge})
	}
	gate := func(i int) *Gateway { return gates[i%shards] }
	ids := make([]string, users)
	attaches := make([]Attach, users)
	for i := range ids {
		ids[i], attaches[i] = fmt.Sprintf("user-%08d", i), benchAttach(i)
	}
	actives := make([]*User, users)
	views := make([]*View, users)
	start := heapBytes()
	for i := range actives {
		actives[i] = NewUser(&cfg, time.Time{})
		views[i] = actives[i].Step(noon, attaches[i]).Publish.View
	}
	perUser := float64(heapBytes()-start) / users
	mid := heapBytes()
	for i := range actives {
		k := Key{testApp, ids[i]}
		gate(i).Step(noon, Deliver{k, benchEdge, attaches[i]})
		gate(i).Step(noon, Stepped{k, 1, &Shown{View: views[i], Edges: []Edge{benchEdge}, Live: 1}})
	}
	perEntry := float64(int64(heapBytes())-int64(mid)) / users
	mid = heapBytes()
	for i := range actives {
		for j := 1; j <= watches; j++ {
			n := (i + j*j*37) % users
			gate(n).Step(noon, Interest{Edge: benchEdge, App: testApp, Watcher: Watcher{User: ids[i]}, Add: []string{ids[n]}})
		}
	}
	perRow := float64(heapBytes()-mid) / (users * watches)
	t.Logf("user with one session, its ids apart: %.0f B; its entry: %.0f B; a watch: %.1f B (%.1f with the entry)",
		perUser, perEntry, perRow, perRow+perEntry/watches)
	if perUser > 410 {
		t.Errorf("a user takes %.0f B", perUser)
	}
	if all := perRow + perEntry/watches; all > 64 {
		t.Errorf("a watch takes %.1f B", all)
	}
	rows := uint64(0)
	for _, g := range gates {
		rows += g.Counts("").Rows
	}
	if rows != users*watches {
		t.Errorf("%d rows", rows)
	}
	runtime.KeepAlive(actives)
	runtime.KeepAlive(attaches)
	runtime.KeepAlive(views)
}

// TestContactsMemory: 5,000 contacts take 40 B each besides their ids.
func TestContactsMemory(t *testing.T) {
	cfg := DefaultConfig()
	records := make([]Record, cfg.Relations)
	for i := range records {
		records[i] = RelationSet{Other: fmt.Sprintf("user-%08d", i), Relation: RelationTo | RelationFrom, Asked: 1, Heard: 1}
	}
	u := NewUser(&cfg, time.Time{})
	start := heapBytes()
	u.Restore(records...)
	u.Step(noon, Contact{User: "user-00000007", Action: Deny})
	per := float64(int64(heapBytes())-int64(start)) / float64(len(records))
	t.Logf("a contact: %.1f B", per)
	if per > 50 {
		t.Errorf("a contact takes %.1f B", per)
	}
	runtime.KeepAlive(records)
	runtime.KeepAlive(u)
}
