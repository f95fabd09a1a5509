package presence

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

var benchEdge = Edge{"edge-1", 1}

func benchAttach(i int) Attach {
	return Attach{
		Conn: Conn{benchEdge.Name, 1, uint64(i) + 1}, Session: fmt.Sprintf("%032x", i), Device: fmt.Sprintf("device-%08d", i),
		Class: Web, Attempt: 1, ActiveAt: noon, Grace: -1, IssuedAt: noon.Unix(),
	}
}

func BenchmarkUserAttachDetach(b *testing.B) {
	cfg := DefaultConfig()
	u := NewUser(&cfg, time.Time{})
	a := benchAttach(1)
	d := Detach{Conn: a.Conn, Session: a.Session, Attempt: 1, Cause: Bye, ActiveAt: noon}
	b.ReportAllocs()
	for b.Loop() {
		u.Step(noon, a)
		u.Step(noon, d)
	}
}

// benchGateway has watchers spread over edges, all watching one user.
func benchGateway(edges, watchers int) (*Gateway, Key) {
	cfg := DefaultConfig()
	g := NewGateway(&cfg, NewNames(&sync.Mutex{}), Open{At: noon, Term: 1})
	k := Key{testApp, "star"}
	for e := range edges {
		g.Step(noon, EdgeUp{Edge{fmt.Sprint("edge-", e), 1}})
	}
	for i := range watchers {
		g.Step(noon, Interest{
			Edge: Edge{fmt.Sprint("edge-", i%edges), 1}, App: testApp, Watcher: Watcher{User: fmt.Sprint("watcher-", i)}, Add: []string{k.User},
		})
	}
	g.Step(noon, Deliver{Key: k, In: SetInvisible{}})
	return g, k
}

// BenchmarkPublish: the cost of a change follows the edges, not the watchers.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []struct{ edges, watchers int }{{1, 100}, {1, 10_000}, {1, 100_000}, {10, 100_000}, {100, 100_000}} {
		b.Run(fmt.Sprintf("edges=%d/watchers=%d", n.edges, n.watchers), func(b *testing.B) {
			g, k := benchGateway(n.edges, n.watchers)
			views := [2]*View{{State: Online}, {State: Away}}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				out := g.Step(noon, Stepped{k, 1, &Publish{View: views[i%2], Live: 1}})
				if len(out.Edges) != n.edges {
					b.Fatal(len(out.Edges))
				}
			}
		})
	}
}

func BenchmarkInterest(b *testing.B) {
	cfg := DefaultConfig()
	g := NewGateway(&cfg, NewNames(&sync.Mutex{}), Open{At: noon, Term: 1})
	g.Step(noon, EdgeUp{benchEdge})
	in := Interest{Call: 1, Edge: benchEdge, App: testApp, Watcher: Watcher{User: "w"}}
	out := Interest{Edge: benchEdge, App: testApp, Watcher: Watcher{User: "w"}}
	for i := range 20 {
		in.Add = append(in.Add, fmt.Sprint("user-", i))
	}
	out.Remove = in.Add
	b.ReportAllocs()
	for b.Loop() {
		g.Step(noon, in)
		g.Step(noon, out)
	}
}

func heap() uint64 {
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
	start := heap()
	for i := range actives {
		actives[i] = NewUser(&cfg, time.Time{})
		views[i] = actives[i].Step(noon, attaches[i]).Publish.View
	}
	perUser := float64(heap()-start) / users
	mid := heap()
	for i := range actives {
		k := Key{testApp, ids[i]}
		gate(i).Step(noon, Deliver{k, benchEdge, attaches[i]})
		gate(i).Step(noon, Stepped{k, 1, &Publish{View: views[i], Edges: []Edge{benchEdge}, Live: 1}})
	}
	perEntry := float64(int64(heap())-int64(mid)) / users
	mid = heap()
	for i := range actives {
		for j := 1; j <= watches; j++ {
			n := (i + j*j*37) % users
			gate(n).Step(noon, Interest{Edge: benchEdge, App: testApp, Watcher: Watcher{User: ids[i]}, Add: []string{ids[n]}})
		}
	}
	perRow := float64(heap()-mid) / (users * watches)
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
