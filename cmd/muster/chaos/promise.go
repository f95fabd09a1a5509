package chaos

import (
	"fmt"
	"slices"
	"time"
)

// promised is the p99 that the project promises for a kind of fault; 0: nothing.
type promised struct{ pause, exact, healed time.Duration }

var promises = map[fault]promised{
	killCore:   {pause: time.Second, exact: 3 * time.Second},
	pauseCore:  {pause: 2 * time.Second, exact: 3 * time.Second},
	partition:  {pause: 2 * time.Second, healed: 5 * time.Second},
	oneWay:     {pause: 2 * time.Second, healed: 5 * time.Second},
	bridge:     {pause: 2 * time.Second, healed: 5 * time.Second},
	gossipOnly: {pause: 2 * time.Second, healed: 5 * time.Second},
	raftOnly:   {pause: 2 * time.Second, healed: 5 * time.Second},
	rolling:    {pause: 200 * time.Millisecond},
	drainCore:  {pause: 200 * time.Millisecond},
	join:       {pause: 200 * time.Millisecond},
	leave:      {pause: 200 * time.Millisecond},
}

const (
	aftermath = 10 * time.Second // after its healing, what is measured still belongs to a fault
	visible   = time.Second      // a lapse that a user notices
)

// measures are the distributions of what each kind of fault did to the users.
func measures(faults []faultSpan, pauses []Pause, lapses []lapse) (list []Measure) {
	var kinds []fault
	for _, f := range faults {
		if !slices.Contains(kinds, f.Fault) {
			kinds = append(kinds, f.Fault)
		}
	}
	for _, kind := range kinds {
		var all, fine, exact, healed []time.Duration
		for _, f := range faults {
			if f.Fault != kind {
				continue
			}
			end := max(f.To, f.Whole)
			for _, p := range pauses {
				if p.At >= f.From && p.At <= end+aftermath {
					all = append(all, p.Took)
					if p.Fine {
						fine = append(fine, p.Took)
					}
				}
			}
			last := f.To
			for _, l := range lapses {
				if l.from >= f.From && l.from <= f.To+aftermath {
					exact = append(exact, l.took)
				}
				if l.took > visible && l.from <= f.To && l.from+l.took > f.To {
					last = max(last, l.from+l.took)
				}
			}
			healed = append(healed, last-f.To)
		}
		p := promises[kind]
		list = append(list, measure(string(kind)+": write pause of a shard with a new leader", p.pause, all),
			measure(string(kind)+": the same, written to every 20 ms", p.pause, fine),
			measure(string(kind)+": until a change is seen", p.exact, exact),
			measure(string(kind)+": until all is seen, from healing", p.healed, healed))
	}
	return list
}

// Measure is a distribution next to what the project promises of it.
type Measure struct {
	Of       string        `json:"of"`
	Count    int           `json:"count"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Longest  time.Duration `json:"longest"`
	Promised time.Duration `json:"promised,omitempty"` // of p99
}

func measure(of string, promised time.Duration, took []time.Duration) Measure {
	m := Measure{Of: of, Count: len(took), Promised: promised}
	if len(took) > 0 {
		slices.Sort(took)
		m.P50, m.P99, m.Longest = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
	return m
}

func inMs(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func (m Measure) say() string {
	return fmt.Sprintf("p50 %v, p99 %v, longest %v", inMs(m.P50), inMs(m.P99), inMs(m.Longest))
}

// promise says what is promised and whether it was kept.
func (m Measure) promise() string {
	switch {
	case m.Promised == 0:
		return ""
	case m.P99 > m.Promised:
		return fmt.Sprintf("%v, missed", m.Promised)
	}
	return fmt.Sprintf("%v, kept", m.Promised)
}
