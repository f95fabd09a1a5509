package presence

import (
	"fmt"
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
				out := g.Step(noon, Stepped{k, 1, &Shown{View: views[i%2], Live: 1}})
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

// BenchmarkActive: the report of a session whose state stays the same.
func BenchmarkActive(b *testing.B) {
	cfg := DefaultConfig()
	u := NewUser(&cfg, time.Time{})
	a := benchAttach(1)
	u.Step(noon, a)
	var in Input = Active{Conn: a.Conn, Session: a.Session, ActiveAt: noon.Add(time.Minute)}
	b.ReportAllocs()
	for b.Loop() {
		if out := u.Step(noon, in); out.Publish != nil {
			b.Fatal("published")
		}
	}
}
