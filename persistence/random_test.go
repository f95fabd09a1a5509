package persistence

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// random makes valid operations on a few groups and keeps what it needs to stay valid.
type random struct {
	t      *testing.T
	rng    *rand.Rand
	groups map[uint32]*randomGroup
	next   map[uint32]uint64 // smallest replica id allowed
	ops    uint64
	done   map[string]int // how often each kind of operation succeeded
}

type randomGroup struct {
	st                State
	first, last, term uint64
}

func (r *random) n(n int) int { return r.rng.IntN(n) }

func (r *random) key() string {
	return strings.Repeat("k", r.n(3)) + strconv.Itoa(r.n(40))
}

func (r *random) value() string {
	return strings.Repeat(strconv.Itoa(r.n(1000)), r.n(100))
}

// update makes one update of group g and the kinds of operation in it.
func (r *random) update(g uint32) (u Update, kinds []string) {
	u.Group = g
	x := r.groups[g]
	if x == nil {
		id := r.next[g] + uint64(r.n(3)) + 1
		x = &randomGroup{st: State{Replica: id, Conf: voters(id)}, first: 1, term: 1 + uint64(r.n(5))}
		r.groups[g] = x
		st := x.st
		u.State, u.Hard = &st, hardState(x.term, id, 0)
		return u, []string{"create"}
	}
	if r.n(60) == 0 {
		r.next[g] = max(r.next[g], x.st.Replica+uint64(r.n(2)))
		delete(r.groups, g)
		return Update{Group: g, Destroy: r.next[g] + 1}, []string{"destroy"}
	}
	if r.n(3) > 0 {
		kinds = append(kinds, r.appendLog(&u, x)...)
	}
	kinds = append(kinds, r.rows(&u)...)
	if r.n(2) == 0 && x.last > x.st.Applied {
		x.st.Applied += 1 + r.rng.Uint64N(x.last-x.st.Applied)
		x.st.AppliedTerm, x.st.Hash, x.st.At = x.term, r.rng.Uint64(), int64(r.ops)
		kinds = append(kinds, "apply")
	}
	if r.n(8) == 0 && x.st.Applied >= x.first {
		upto := x.first + r.rng.Uint64N(x.st.Applied-x.first+1)
		u.Truncate, x.st.Truncated, x.st.TruncatedTerm, x.first = upto, upto, x.term, upto+1
		kinds = append(kinds, "truncate")
	}
	st := x.st
	u.State = &st
	if r.n(2) == 0 {
		u.Hard = hardState(x.term, uint64(r.n(3)), max(x.st.Applied, x.first-1))
		kinds = append(kinds, "hard")
	}
	return u, kinds
}

func (r *random) appendLog(u *Update, x *randomGroup) []string {
	from, kind := x.last+1, "append"
	if low := max(x.st.Applied, x.first-1) + 1; low <= x.last && r.n(3) == 0 {
		from, kind = low+r.rng.Uint64N(x.last-low+1), "overwrite"
		x.term++
	}
	n := 1 + r.n(5)
	if r.n(10) == 0 {
		n = 100
	}
	u.Entries = entries(from, from+uint64(n)-1, x.term, r.value())
	x.last = from + uint64(n) - 1
	return []string{kind}
}

func (r *random) rows(u *Update) (kinds []string) {
	for range r.n(6) {
		switch r.n(6) {
		case 0:
			u.Ops, kinds = append(u.Ops, del(r.key())), append(kinds, "delete")
		case 1:
			a, b := r.key(), r.key()
			u.Ops, kinds = append(u.Ops, delRange(min(a, b), max(a, b))), append(kinds, "range")
		case 2:
			for range 70 {
				u.Ops = append(u.Ops, put("many"+strconv.Itoa(r.n(1000)), r.value()))
			}
			u.Ops, kinds = append(u.Ops, delRange("many2", "many9")), append(kinds, "large range")
		default:
			u.Ops, kinds = append(u.Ops, put(r.key(), r.value())), append(kinds, "put")
		}
	}
	return kinds
}

// step makes the next operation.
func (r *random) step() (p step, kinds []string) {
	r.ops++
	switch r.n(40) {
	case 0:
		return step{name: "flush", flush: true}, []string{"flush"}
	case 1:
		return step{name: "compact", compact: true}, []string{"compact"}
	case 2:
		return r.ingestion(), []string{"ingest"}
	}
	p = step{name: "write", sync: r.n(3) == 0}
	for range 1 + r.n(3) {
		u, k := r.update(uint32(r.n(4)))
		p.us, kinds = append(p.us, u), append(kinds, k...)
	}
	return p, append(kinds, "write")
}

func (r *random) ingestion() step {
	g := uint32(r.n(4))
	in := &ingestion{group: g, rows: map[string]string{}, vote: uint64(r.n(2))}
	x := r.groups[g]
	if x == nil {
		x = &randomGroup{st: State{Replica: r.next[g] + 1}}
		r.groups[g] = x
	}
	x.st.Applied = max(x.st.Applied, x.last) + 1 + uint64(r.n(50))
	x.term += uint64(r.n(3)) + 1
	x.st.AppliedTerm, x.st.Conf, x.st.Members = x.term, voters(1, 2), nil
	x.st.Truncated, x.st.TruncatedTerm = x.st.Applied, x.term
	x.first, x.last = x.st.Applied+1, x.st.Applied
	for range r.n(300) {
		in.rows[r.key()+strconv.Itoa(r.n(100))] = r.value()
	}
	in.state, in.term, in.replica = x.st, x.term, x.st.Replica
	p := step{name: "ingest", ingest: in}
	p.bytes = in.stream(r.t)
	return p
}

// TestRandom compares the store with the model after random operations, reopening it
// now and then, until every kind of operation has succeeded often enough.
func TestRandom(t *testing.T) {
	seeds := 2
	if v := os.Getenv("MUSTER_SEEDS"); v != "" {
		n, _ := strconv.Atoi(v)
		seeds = max(2, n/200)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runRandom(t, uint64(seed)) })
	}
}

func runRandom(t *testing.T, seed uint64) {
	want := map[string]int{"create": 8, "destroy": 6, "append": 60, "overwrite": 20, "apply": 60, "truncate": 20, "hard": 50, "put": 50,
		"delete": 20, "range": 20, "large range": 20, "flush": 5, "compact": 5, "ingest": 6, "write": 200, "reopen": 5, "log": 200, "scan": 200, "get": 200}
	r := &random{t: t, rng: rand.New(rand.NewPCG(seed, 0)), groups: map[uint32]*randomGroup{}, next: map[uint32]uint64{}, done: map[string]int{}}
	fs := vfs.NewMem()
	s, m := openOn(t, fs, "data"), model{}
	missing := func() []string {
		var out []string
		for k, n := range want {
			if r.done[k] < n {
				out = append(out, k)
			}
		}
		slices.Sort(out)
		return out
	}
	for len(missing()) > 0 {
		if r.ops > 20_000 {
			t.Fatalf("seed %d: these never succeeded often enough: %v", seed, missing())
		}
		p, kinds := r.step()
		if err := p.run(s); err != nil {
			t.Fatalf("seed %d, op %d %s: %v", seed, r.ops, p.name, err)
		}
		p.model(m)
		for _, k := range kinds {
			r.done[k]++
		}
		r.read(s, m)
		if r.n(15) == 0 {
			compare(t, s, m, fmt.Sprintf("seed %d op %d", seed, r.ops))
		}
		if r.n(80) == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openOn(t, fs, "data")
			compare(t, s, m, fmt.Sprintf("seed %d op %d, reopened", seed, r.ops))
			r.done["reopen"]++
		}
	}
	compare(t, s, m, "the end")
	t.Logf("seed %d: %d operations: %v", seed, r.ops, r.done)
}

// read compares the public readers with the model on a random group.
func (r *random) read(s *Store, m model) {
	g := uint32(r.n(4))
	x := r.groups[g]
	if x == nil {
		if _, _, _, _, err := s.Load(g); !hasCode(err, ErrNoGroup) {
			r.t.Fatalf("group %d: %v", g, err)
		}
		return
	}
	key := r.key()
	v, ok, err := s.Get(g-1, []byte(key))
	want, has := m[modelKey(g, 4)+key]
	if err != nil || ok != has || string(v) != want {
		r.t.Fatalf("get %q: %q %v %v, want %q %v", key, v, ok, err, want, has)
	}
	r.done["get"]++
	r.scan(s, m, g)
	r.log(s, m, g, x)
}

func (r *random) scan(s *Store, m model, g uint32) {
	from, to := r.key(), r.key()
	if r.n(3) == 0 {
		to = ""
	}
	var got, want []string
	if err := s.Scan(g-1, []byte(from), []byte(to), func(k, v []byte) bool { got = append(got, string(k)+"="+string(v)); return true }); err != nil {
		r.t.Fatal(err)
	}
	prefix := modelKey(g, 4)
	for k, v := range m {
		if k, ok := strings.CutPrefix(k, prefix); ok && k >= from && (to == "" || k < to) {
			want = append(want, k+"="+v)
		}
	}
	slices.SortFunc(want, func(a, b string) int {
		return strings.Compare(strings.SplitN(a, "=", 2)[0], strings.SplitN(b, "=", 2)[0])
	})
	if !slices.Equal(got, want) {
		r.t.Fatalf("scan [%q, %q): %d rows, want %d", from, to, len(got), len(want))
	}
	r.done["scan"]++
}

func (r *random) log(s *Store, m model, g uint32, x *randomGroup) {
	hard, st, first, last, err := s.Load(g)
	if err != nil || first != x.first || last != x.last || !bytes.Equal(encodeState(&st), []byte(m[modelKey(g, 2)])) {
		r.t.Fatalf("load %d: [%d, %d] %+v %v, want [%d, %d]", g, first, last, st, err, x.first, x.last)
	}
	if want, ok := m[modelKey(g, 1)]; ok && string(encodeHard(hard)) != want {
		r.t.Fatalf("load %d: %v", g, hard)
	}
	if _, err := s.Entries(g, x.first-1, x.first, 1); !hasCode(err, ErrCompacted) {
		r.t.Fatalf("a truncated entry: %v", err)
	}
	if _, err := s.Entries(g, x.last+1, x.last+2, 1); !hasCode(err, ErrUnavailable) {
		r.t.Fatalf("an entry to come: %v", err)
	}
	if term, err := s.Term(g, x.first-1); err != nil || term != st.TruncatedTerm {
		r.t.Fatalf("term of the truncated entry: %d %v", term, err)
	}
	if x.first > x.last {
		return
	}
	lo := x.first + r.rng.Uint64N(x.last-x.first+1)
	hi := lo + 1 + r.rng.Uint64N(x.last-lo+1)
	limit := uint64(r.n(4000))
	es, err := s.Entries(g, lo, hi, limit)
	if err != nil || len(es) == 0 || uint64(len(es)) > hi-lo {
		r.t.Fatalf("entries [%d, %d): %d %v", lo, hi, len(es), err)
	}
	r.checkEntries(s, m, g, lo, es, limit, uint64(len(es)) == hi-lo)
	r.done["log"]++
}

func (r *random) checkEntries(s *Store, m model, g uint32, lo uint64, es []*raftpb.Entry, limit uint64, all bool) {
	var size uint64
	for i, e := range es {
		want := m[modelLog(g, lo+uint64(i))]
		if e.GetIndex() != lo+uint64(i) || string(appendEntry(nil, e)) != want {
			r.t.Fatalf("entry %d: %v, want %x", lo+uint64(i), e, want)
		}
		size += uint64(len(want))
	}
	if size > limit && len(es) > 1 {
		r.t.Fatalf("%d entries of %d bytes, the limit is %d", len(es), size, limit)
	}
	if next := m[modelLog(g, lo+uint64(len(es)))]; !all && size+uint64(len(next)) <= limit {
		r.t.Fatalf("%d entries of %d bytes: the next would fit", len(es), size)
	}
	if term, err := s.Term(g, lo); err != nil || term != es[0].GetTerm() {
		r.t.Fatalf("term of %d: %d %v", lo, term, err)
	}
}
