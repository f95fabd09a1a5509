//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A cluster is ready to be measured when its cores share the leading and hold each shard three times.
func TestUneven(t *testing.T) {
	const fair = `{"nodes":[{"name":"core1","role":"core","state":"active","leads":2},{"name":"core2","role":"core","state":"active","leads":1},{"name":"core3","role":"core","state":"active","leads":1},{"name":"edge1","role":"edge","state":"active"}],
		"shards":[{"leader":"core1","voters":["core1","core2","core3"]},{"leader":"core1","voters":["core1","core2","core3"]},{"leader":"core2","voters":["core1","core2","core3"]},{"leader":"core3","voters":["core1","core2","core3"]}]}`
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"leads":2`, `"leads":3`, "core1 leads 3 of 4"},
		{`"state":"active","leads":1`, `"state":"joining","leads":1`, "2 cores are active"},
		{`"leader":"core3"`, `"leader":""`, `leader ""`},
		{`"voters":["core1","core2","core3"]},`, `"voters":["core1","core2"]},`, "2 voters"},
		{`"leader":"core3"`, `"leader":"core3","moving":true`, "moving true"},
	} {
		var doc clusterDoc
		if err := json.Unmarshal([]byte(strings.Replace(fair, c.old, c.new, 1)), &doc); err != nil {
			t.Fatal(err)
		}
		err := doc.uneven(3)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
}

func look(t *testing.T, text string) (doc clusterDoc) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// Two processes take in a third, and hear of two leaders that move, one after the other.
func TestWatching(t *testing.T) {
	w := watching{n: 3, others: 2}
	at := time.Unix(0, 0)
	for i, c := range []struct{ members1, terms1, members2, terms2 int }{
		{1, 100, 1, 100},
		{2, 100, 1, 100}, // the first has heard
		{2, 101, 1, 100}, // and knows of a leader that moved
		{2, 101, 2, 60},  // the second has heard too, and has just lost a link
		{2, 103, 2, 101}, // it knows of the first move
		{2, 103, 2, 103},
	} {
		doc := look(t, fmt.Sprintf(`{"nodes":[{"name":"core1","counters":{"members":%d,"terms":%d}},{"name":"core2","counters":{"members":%d,"terms":%d}},{"name":"core3"}]}`,
			c.members1, c.terms1, c.members2, c.terms2))
		if err := doc.silent(w.newest()); err != nil {
			t.Fatal(err)
		}
		if doc.silent("") == nil {
			t.Error("core3 told nothing")
		}
		w.see(doc, at.Add(time.Duration(i)*time.Second))
	}
	if first, all := w.first.Sub(at), w.all.Sub(at); first != time.Second || all != 3*time.Second {
		t.Errorf("heard of after %v by one, after %v by all", first, all)
	}
	if got, want := w.lags(), []time.Duration{time.Second, 2 * time.Second}; !slices.Equal(got, want) {
		t.Errorf("lags %v, want %v", got, want)
	}
}

func TestMoved(t *testing.T) {
	was := look(t, `{"shards":[{"voters":["a","b","c"]},{"voters":["a","b","c"]}]}`)
	is := look(t, `{"shards":[{"voters":["b","c","d"]},{"voters":["a","b","c"]}]}`)
	if n := moved(was, is); n != 1 {
		t.Error(n)
	}
}

func TestClusterSizes(t *testing.T) {
	for most, want := range map[int][]int{0: {3, 5, 9}, 3: {3}, 4: {3, 4}, 5: {3, 5}, 12: {3, 5, 9, 12}, 2: nil, 16: nil} {
		if got, err := clusterSizes(most); !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%d: %v %v", most, got, err)
		}
	}
}
