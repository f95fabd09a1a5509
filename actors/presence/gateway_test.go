package presence

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestRowTable(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	var table rowTable
	want := map[[2]int]Mask{}
	for i := range 200_000 {
		k := [2]int{1 + r.Intn(300), r.Intn(3)}
		switch _, have := want[k]; {
		case have && (r.Intn(2) == 0 || i/20000%2 == 1):
			table.remove(uint32(k[0]), uint16(k[1]))
			delete(want, k)
		case !have:
			m := Mask(r.Intn(128))
			table.add(row{watcher: uint32(k[0]), edge: uint16(k[1]), mask: m})
			want[k] = m
		}
		k = [2]int{1 + r.Intn(300), r.Intn(3)}
		got := table.find(uint32(k[0]), uint16(k[1]))
		if m, have := want[k]; have != (got != nil) || have && got.mask != m {
			t.Fatalf("step %d: %v: %v, want %v %v", i, k, got, m, have)
		}
		if table.n != len(want) || len(table.slots) > 8 && table.n > len(table.slots)*3/4 {
			t.Fatalf("step %d: %d rows in %d slots, want %d", i, table.n, len(table.slots), len(want))
		}
	}
	n := 0
	table.each(func(*row) { n++ })
	if n != len(want) {
		t.Errorf("each visits %d of %d", n, len(want))
	}
}

func TestIndexPages(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	var x index
	users := map[string]*entry{}
	for range 20_000 {
		name := fmt.Sprintf("u%04d", r.Intn(3000))
		if e := users[name]; e != nil {
			x.remove(e)
			delete(users, name)
		} else {
			users[name] = &entry{key: Key{User: name}, view: &View{State: Online}}
			x.insert(users[name])
		}
	}
	g := &Gateway{apps: map[string]*app{testApp: {online: x}}}
	for _, prefix := range []string{"", "u1", "u29", "v"} {
		want := slices.DeleteFunc(slices.Sorted(maps.Keys(users)), func(s string) bool { return !strings.HasPrefix(s, prefix) })
		var got []string
		for after := ""; ; {
			page := g.Online(testApp, prefix, after, 37)
			for _, row := range page {
				got = append(got, row.User)
			}
			if len(page) < 37 {
				break
			}
			after = page[36].User
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d users, want %d", prefix, len(got), len(want))
		}
	}
}

func TestNamesAreSharedAndFreed(t *testing.T) {
	n := NewNames(&sync.Mutex{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewSource(int64(g)))
			for range 2000 {
				name := fmt.Sprint(r.Intn(50))
				id := n.Intern(name)
				if n.Name(id) != name || n.Find(name) != id {
					t.Errorf("%s got an id of another", name)
				}
				n.Release(id)
			}
		})
	}
	wg.Wait()
	if n.Len() != 0 {
		t.Errorf("%d names are left", n.Len())
	}
}

// TestGatewayForgets: when all have gone, nothing is left; what is stored is found again.
func TestGatewayForgets(t *testing.T) {
	w := newWorld(DefaultConfig())
	w.open()
	w.start("e1")
	for i := range 100 {
		w.watch("bob", "e1", fmt.Sprint("u", i))
	}
	w.connect(w.client("alice", "phone"), "e1")
	w.drain()
	w.disconnect(w.client("alice", "phone"), Bye)
	for i := range 100 {
		w.unwatch("bob", "e1", fmt.Sprint("u", i))
	}
	w.drain()
	if c := w.gw.Counts(""); c.Entries != 0 || c.Rows != 0 {
		t.Errorf("left: %+v", c)
	}
	if len(w.actors) != 0 {
		t.Errorf("%d activations are left", len(w.actors))
	}
	w.watch("bob", "e1", "alice")
	w.drain()
	if seen := w.edges["e1"].hub["bob"]["alice"]; seen.view.LastSeen.IsZero() && w.gw.LastSeen(Key{testApp, "alice"}).IsZero() {
		t.Error("last seen is forgotten")
	}
	w.unwatch("bob", "e1", "alice")
	w.drain()
	if w.names.Len() != 0 {
		t.Errorf("%d names are left", w.names.Len())
	}
}

func TestTyping(t *testing.T) {
	w := newWorld(DefaultConfig())
	var got []string
	w.bug.edge = func(_ *world, m ToEdge) (ToEdge, bool) {
		if o, ok := m.Message.(*TypingOut); ok {
			got = append(got, fmt.Sprintf("%s→%s@%s %s %v", o.User, o.To, m.Edge.Name, o.Kind, o.Stop))
		}
		return m, true
	}
	w.open()
	w.start("e1")
	w.start("e2")
	w.watch("bob", "e1", "alice")
	w.watch("bob", "e2", "alice")
	w.watch("cid", "e2", "alice")
	types := func(to string) {
		w.drain()
		w.edges["e1"].send(Typing{App: testApp, User: "alice", To: to, Kind: "text"})
		w.drain()
	}
	types("bob") // alice is offline
	w.connect(w.client("alice", "phone"), "e1")
	types("bob")
	types("dee") // does not watch
	w.gateway(Deliver{Key: Key{testApp, "alice"}, In: SetAudience{Rules: []FieldRule{{Field: FieldTyping, Rule: Only, Users: []string{"cid"}}}}})
	types("bob")
	types("cid")
	w.gateway(Deliver{Key: Key{testApp, "alice"}, In: SetInvisible{On: true}})
	types("cid")
	want := []string{"alice→bob@e1 text false", "alice→bob@e2 text false", "alice→cid@e2 text false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestOneViewPerMask: a change goes once to each edge, with one view per distinct mask.
func TestOneViewPerMask(t *testing.T) {
	w := newWorld(DefaultConfig())
	var changes []*Change
	w.bug.edge = func(_ *world, m ToEdge) (ToEdge, bool) {
		if c, ok := m.Message.(*Change); ok {
			changes = append(changes, c)
		}
		return m, true
	}
	w.open()
	w.start("e1")
	w.start("e2")
	w.gateway(Deliver{Key: Key{testApp, "alice"}, In: Import{Rows: []RelationRow{{"friend", RelationFrom}}}})
	for i := range 50 {
		w.watch(fmt.Sprint("w", i), "e1", "alice")
		w.watch(fmt.Sprint("w", i), "e2", "alice")
	}
	w.watch("friend", "e2", "alice")
	w.drain()
	w.connect(w.client("alice", "phone"), "e1")
	w.drain()
	if len(changes) != 2 || len(changes[0].Views) != 1 || len(changes[1].Views) != 2 || changes[0].Version != changes[1].Version {
		t.Fatalf("%d changes", len(changes))
	}
	if a, b := changes[0].Views[0].View, changes[1].Views[0].View; a != b {
		t.Error("the view of one mask was made twice")
	}
	changes = nil
	w.connect(w.client("alice", "laptop"), "e2") // only the friend sees devices
	w.drain()
	if len(changes) != 1 || len(changes[0].Views) != 1 || changes[0].Views[0].Mask != AllFields {
		t.Errorf("%+v", changes)
	}
}
