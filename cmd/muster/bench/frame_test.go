package bench

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestFramesOfAllLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 100_000} {
		payload := bytes.Repeat([]byte("x"), n)
		client := appendFrame(nil, opText, payload)
		if client[1]&0x80 == 0 {
			t.Fatalf("%d bytes: the frame of a client is not masked", n)
		}
		head := len(client) - n - 4
		server := append(bytes.Clone(client[:head]), payload...)
		server[1] &^= 0x80
		for cut := range []int{0, 1, 2, 3, head} {
			if cut >= len(server) {
				continue
			}
			if _, _, used, err := cutFrame(server[:cut]); used != 0 || err != nil {
				t.Errorf("%d bytes, cut at %d: used %d, error %v", n, cut, used, err)
			}
		}
		op, got, used, err := cutFrame(append(server, 0x81))
		if op != opText || !bytes.Equal(got, payload) || used != len(server) || err != nil {
			t.Errorf("%d bytes: op %d, %d bytes, used %d, error %v", n, op, len(got), used, err)
		}
		if _, _, _, err := cutFrame(client); err == nil {
			t.Errorf("%d bytes: a masked frame is taken from a server", n)
		}
	}
}

func TestViewsOfAPush(t *testing.T) {
	var got []view
	eachView([]byte(`{"push":{"presence":[{"user":"u17","state":"dnd","ver":[1,2],"text":"5.99"},{"user":"u8","state":"online"},{"user":"x","state":"offline"},{"user":"u1","state":"away","text":""}]}}`),
		func(v view) { got = append(got, v) })
	want := []view{{17, 'd', 5, 99}, {8, 'n', 0, 0}, {-1, 'f', 0, 0}, {1, 'a', 0, 0}}
	if len(got) != len(want) {
		t.Fatalf("%d views: %v", len(got), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("view %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestFit(t *testing.T) {
	slope, intercept := fit([]float64{0, 1, 2, 3}, []float64{1, 3, 5, 7})
	if math.Abs(slope-2) > 1e-9 || math.Abs(intercept-1) > 1e-9 {
		t.Errorf("slope %v, intercept %v", slope, intercept)
	}
	if slope, _ := fit([]float64{1, 1}, []float64{1, 2}); slope != 0 {
		t.Errorf("slope of one place is %v", slope)
	}
}

func TestTableShowsMissedGoals(t *testing.T) {
	r := newResult("x", "a run")
	r.set("cost_us", 1234.5)
	r.atMost("P0", "cost_us", 1000, 2000)
	r.set("rate", 5)
	r.atLeast("P0", "rate", 10, 6)
	r.atLeast("P0", "rate", 4, 3)
	var b strings.Builder
	writeTable(&b, []*Result{r})
	for _, want := range []string{"1,234", "missed", "FAILS", "met", "a run"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := r.writeJSON(&b); err != nil || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("not one line: %q, %v", b.String(), err)
	}
}
