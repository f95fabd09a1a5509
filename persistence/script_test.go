package persistence

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

var background = context.Background()

// script does everything a store can be asked for at least once, with and without sync.
func script(t testing.TB) []step {
	st := func(applied, truncated, replica uint64) *State {
		s := &State{Applied: applied, AppliedTerm: 4, Truncated: truncated, Replica: replica, Hash: applied * 31, At: 1000 + int64(applied),
			Conf: voters(replica, 8), Members: []Member{{Replica: replica, Node: 7}, {Replica: 8, Node: 9}}}
		if applied == 0 {
			s.AppliedTerm = 0
		}
		if truncated > 0 {
			s.TruncatedTerm = 4
		}
		return s
	}
	rows := map[string]string{}
	for i := range 400 {
		rows[fmt.Sprintf("p%04d", i)] = strings.Repeat("s", i)
	}
	many := func(prefix string, n, size int) (ops []Op) {
		for i := range n {
			ops = append(ops, put(fmt.Sprintf("%s%04d", prefix, i), strings.Repeat(prefix, size)))
		}
		return ops
	}
	steps := []step{
		{name: "birth of two replicas", sync: true, us: []Update{
			{Group: 0, State: st(0, 0, 1), Hard: hardState(4, 1, 0)}, {Group: 1, State: st(0, 0, 1), Hard: hardState(4, 1, 0)}}},
		{name: "append", us: []Update{{Group: 1, Entries: entries(1, 3, 4, "a")}}, sync: true},
		{name: "append and apply without sync", us: []Update{{Group: 1, Entries: entries(4, 6, 4, "a"), Hard: hardState(4, 1, 6),
			State: st(6, 0, 1), Ops: many("u", 20, 10)}, {Group: 0, Entries: entries(1, 1, 4, "m"), Ops: []Op{put("meta", "x")}}}},
		{name: "overwrite a tail", us: []Update{{Group: 1, Entries: entries(7, 200, 4, "b")}, {Group: 1, Entries: entries(9, 10, 5, "c"), Hard: hardState(5, 8, 6)}}},
		{name: "put, delete, delete a range", sync: true, us: []Update{{Group: 1, Ops: []Op{put("u0003", ""), del("u0004"), delRange("u0005", "u0008"), put("u0006", "again")}}}},
		{name: "flush", flush: true},
		{name: "overwrite few, sync", sync: true, us: []Update{{Group: 1, Entries: entries(10, 10, 6, "d"), Hard: hardState(6, 0, 10)}}},
		{name: "grow", us: []Update{{Group: 1, Entries: entries(11, 300, 6, strings.Repeat("e", 50)), Hard: hardState(6, 0, 300), State: st(300, 0, 1)}}},
		{name: "truncate little", us: []Update{{Group: 1, Truncate: 5, State: st(300, 5, 1)}}},
		{name: "truncate much", sync: true, us: []Update{{Group: 1, Truncate: 290, State: st(300, 290, 1)}}},
		{name: "a batch larger than half a memtable", us: []Update{{Group: 1, Ops: many("big", 60, 1000)}}},
		{name: "fill the memtable", us: []Update{{Group: 1, Ops: many("f", 100, 500)}, {Group: 0, Ops: many("f", 100, 500)}}},
		{name: "fill it more", sync: true, us: []Update{{Group: 0, Entries: entries(2, 2, 4, "m"), State: st(2, 0, 1), Ops: many("g", 100, 900)}}},
		{name: "replace a group by a snapshot", ingest: &ingestion{group: 1, state: State{Applied: 400, AppliedTerm: 7, Conf: voters(1, 2), Generation: 1}, rows: rows, term: 9, vote: 3, replica: 1}},
		{name: "write after it", us: []Update{{Group: 1, Entries: entries(401, 402, 9, "f"), Ops: []Op{put("p0001", "new")}}}},
		{name: "sync after it", sync: true, us: []Update{{Group: 1, Hard: hardState(9, 3, 402)}}},
		{name: "a snapshot for a new group", ingest: &ingestion{group: 5, state: State{Applied: 1, AppliedTerm: 1, Conf: voters(4)}, rows: map[string]string{"k": "v"}, term: 1, replica: 4}},
		{name: "destroy", us: []Update{{Group: 1, Destroy: 9}, {Group: 0, Ops: []Op{put("gone", "1")}}}},
		{name: "compact", compact: true},
		{name: "come back", sync: true, us: []Update{{Group: 1, State: st(0, 0, 9), Hard: hardState(10, 0, 0)}}},
		{name: "destroy and come back in one", us: []Update{{Group: 5, Destroy: 6}, {Group: 5, State: st(0, 0, 6)}}},
		{name: "last", sync: true, us: []Update{{Group: 0, Ops: []Op{put("end", "1")}}}},
	}
	for i := range steps {
		if in := steps[i].ingest; in != nil {
			steps[i].bytes = in.stream(t)
		}
	}
	return steps
}

// models are the states of the key space before the first step and after each.
func models(steps []step) []model {
	out := []model{{}}
	for i := range steps {
		m := make(model, len(out[i]))
		for k, v := range out[i] {
			m[k] = v
		}
		steps[i].model(m)
		out = append(out, m)
	}
	return out
}

// TestScript runs the script without faults; every state is that of the model, also
// after reopening and through the public readers.
func TestScript(t *testing.T) {
	s := openMem(t)
	steps := script(t)
	want := models(steps)
	for i := range steps {
		if err := steps[i].run(s); err != nil {
			t.Fatalf("%s: %v", steps[i].name, err)
		}
		compare(t, s, want[i+1], steps[i].name)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openOn(t, s.fs, "data")
	compare(t, s, want[len(steps)], "reopened")
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

func compare(t testing.TB, s *Store, want model, when string) {
	t.Helper()
	got, err := dump(s)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if d := diff(got, want); d != "" {
		t.Fatalf("after %q:\n%s", when, d)
	}
}
