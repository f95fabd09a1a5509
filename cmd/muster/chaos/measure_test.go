package chaos

import (
	"testing"
	"time"
)

// A pause is as long as a write would have waited, whichever write was answered first.
func TestPauses(t *testing.T) {
	write := func(call, back time.Duration) send {
		return send{user: "u", call: call * ms, back: back * ms, acked: back > 0}
	}
	shard := func(string) uint32 { return 7 }
	for name, c := range map[string]struct {
		sends []send
		want  time.Duration
	}{
		"the one that waited":                         {[]send{write(900, 910), write(1000, 1500), write(1600, 1610)}, 500},
		"a later one was answered":                    {[]send{write(1000, 5000), write(1300, 1500)}, 500},
		"a later one at a server that is not cut off": {[]send{write(1400, 29000), write(2000, 0), write(3000, 3010)}, 1610},
		"one that failed counts":                      {[]send{write(1000, 0), write(1490, 1510)}, 510},
		"an earlier pause is not this":                {[]send{write(100, 900), write(1490, 1510)}, 20},
		"nobody waited":                               {[]send{write(1600, 1610)}, 0},
	} {
		list := pauses(c.sends, []leader{{At: 1500 * ms, Shard: 7}}, shard, map[uint32]bool{7: true})
		if len(list) != 1 || list[0].Took != c.want*ms || !list[0].Fine {
			t.Errorf("%s: %+v, want %d ms", name, list, c.want)
		}
	}
}

func TestExactness(t *testing.T) {
	var now time.Duration
	e := newExactness(func() time.Duration { return now })
	e.watch("w", []string{"u"})
	e.watch("x", []string{"u"})
	e.connected("w", true) // x is not
	e.sets("u", "1")
	now = 10 * ms
	e.sets("u", "2")
	e.saw("w", "u", "1") // not the latest
	e.saw("x", "u", "2")
	now = 30 * ms
	e.saw("w", "u", "2")
	e.saw("w", "u", "2")
	if len(e.lapses) != 1 || e.lapses[0] != (lapse{from: 0, took: 30 * ms}) {
		t.Errorf("%+v", e.lapses)
	}
	e.sets("u", "3")
	e.forget("u") // refused
	e.saw("w", "u", "3")
	e.sets("u", "4")
	now = 50 * ms
	if all := e.all(); len(all) != 2 || all[1].took != 20*ms {
		t.Errorf("one that nobody has seen yet is left out: %+v", all)
	}
	e.connected("w", false)
	if all := e.all(); len(all) != 1 {
		t.Errorf("who is not connected is behind: %+v", all)
	}
}

func TestOfflineInTime(t *testing.T) {
	b := bounds{earliest: 15 * time.Second, latest: 20 * time.Second}
	away := []absence{{user: "a", from: time.Second}}
	for name, c := range map[string]struct {
		views []seen
		bad   int
	}{
		"in time": {[]seen{{user: "a", at: 17 * time.Second, state: "offline"}}, 0},
		"early":   {[]seen{{user: "a", at: 9 * time.Second, state: "offline"}}, 1},
		"late":    {[]seen{{user: "a", at: 27 * time.Second, state: "offline"}}, 1},
		"never":   {[]seen{{user: "b", at: 17 * time.Second, state: "offline"}, {user: "a", at: 17 * time.Second, state: "online"}}, 1},
	} {
		if v := offlineInTime(c.views, away, b); len(v.Violations) != c.bad || v.Examined != 1 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := offlineInTime(nil, nil, b); len(v.Violations) > 0 {
		t.Errorf("nobody stayed away: %+v", v)
	}
}

func TestMeasures(t *testing.T) {
	faults := []faultSpan{{Fault: killCore, From: time.Second, To: 3 * time.Second, Whole: 4 * time.Second}}
	list := measures(faults, []Pause{{At: 2 * time.Second, Took: 2 * time.Second}, {At: 30 * time.Second, Took: time.Hour}},
		[]lapse{{from: 2 * time.Second, took: 2500 * ms}, {from: 100 * time.Second, took: time.Hour}})
	if list[0].Count != 1 || list[0].promise() != "1s, missed" {
		t.Errorf("pauses: %+v", list[0])
	}
	if list[2].Count != 1 || list[2].promise() != "3s, kept" {
		t.Errorf("lapses: %+v", list[2])
	}
	if list[3].P99 != 1500*ms {
		t.Errorf("healing: %+v", list[3])
	}
}
