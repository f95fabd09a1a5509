package chaos

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Report is what a call found out.
type Report struct {
	Seed    uint64    `json:"seed"`
	Replay  string    `json:"replay"` // the command that makes the same plan again
	At      time.Time `json:"at"`
	Nodes   []string  `json:"nodes"`
	LeftOut []string  `json:"left_out,omitempty"` // what this machine does not let us do
	Results []Result  `json:"results"`
}

// Result is one scenario. Times are ns since its start.
type Result struct {
	Scenario string         `json:"scenario"`
	Skipped  string         `json:"skipped,omitempty"`
	LeftOut  []string       `json:"left_out,omitempty"`
	Error    string         `json:"error,omitempty"` // the campaign itself failed
	Length   time.Duration  `json:"length"`
	Counts   map[string]int `json:"counts"`
	Verdicts []verdict      `json:"verdicts"`
	Faults   []faultSpan    `json:"faults"`
	Gaps     []Gap          `json:"unavailable"`
	Leaders  []leader       `json:"leaders"`
	Latency  []second       `json:"latency"`
	Samples  []sample       `json:"samples"`
	Measures []Measure      `json:"measures"`
}

// bad reports whether something was violated or could not be run.
func (r Result) bad() bool {
	return r.Error != "" || slices.ContainsFunc(r.Verdicts, func(v verdict) bool { return len(v.Violations) > 0 })
}

func (r Report) bad() bool { return slices.ContainsFunc(r.Results, Result.bad) }

// leader is the first acknowledgement of a term of a shard.
type leader struct {
	At    time.Duration `json:"at"`
	Shard uint32        `json:"shard"`
	Term  uint64        `json:"term"`
	Node  string        `json:"node"`
}

// leaders lists changes of the terms in which shards acknowledged.
func leaders(acks []acknowledged, start time.Time) (list []leader) {
	slices.SortFunc(acks, func(a, b acknowledged) int { return cmp.Compare(a.At, b.At) })
	terms := map[uint32]uint64{}
	for _, a := range acks {
		before, known := terms[a.Shard]
		if known && a.Term > before {
			list = append(list, leader{At: time.Unix(0, a.At).Sub(start), Shard: a.Shard, Term: a.Term, Node: a.Node})
		}
		terms[a.Shard] = max(before, a.Term)
	}
	return list
}

// second is how long the sends took that were acknowledged in one second.
type second struct {
	At    int           `json:"at"` // s
	Sends int           `json:"sends"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
}

func latencies(sends []send) (list []second) {
	at := map[int][]time.Duration{}
	for _, s := range sends {
		if s.acked {
			at[int(s.back/time.Second)] = append(at[int(s.back/time.Second)], s.back-s.call)
		}
	}
	for sec, took := range at {
		slices.Sort(took)
		list = append(list, second{At: sec, Sends: len(took), P50: took[len(took)/2], P99: took[len(took)*99/100]})
	}
	slices.SortFunc(list, func(a, b second) int { return cmp.Compare(a.At, b.At) })
	return list
}

// writeTable renders the verdicts for people.
func (r Report) writeTable(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"scenario", "checker", "examined", "verdict"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, AutoMerge: true}, {Number: 3, Align: text.AlignRight}, {Number: 4, WidthMax: 90}})
	for _, res := range r.Results {
		switch {
		case res.Skipped != "":
			t.AppendRow(table.Row{res.Scenario, "", "", "skipped: " + res.Skipped})
		case res.Error != "":
			t.AppendRow(table.Row{res.Scenario, "", "", "COULD NOT RUN: " + res.Error})
		}
		for _, v := range res.Verdicts {
			t.AppendRow(table.Row{res.Scenario, v.Checker, fmt.Sprintf("%d %s", v.Examined, v.Of), v.say()})
		}
		t.AppendSeparator()
	}
	t.Render()
	r.writeMeasures(w)
	for _, l := range r.LeftOut {
		fmt.Fprintln(w, "left out here:", l)
	}
	for _, res := range r.Results {
		for _, v := range res.Verdicts {
			for _, x := range v.Violations {
				fmt.Fprintf(w, "VIOLATION %s, %s: %s\n", res.Scenario, v.Checker, x)
			}
			if v.More > 0 {
				fmt.Fprintf(w, "VIOLATION %s, %s: and %d more\n", res.Scenario, v.Checker, v.More)
			}
		}
	}
	fmt.Fprintf(w, "seed %d; the same plan again: %s\n", r.Seed, r.Replay)
}

// writeMeasures renders what was measured next to what is promised.
func (r Report) writeMeasures(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"scenario", "measured", "times", "p50", "p99", "longest", "promised p99"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, AutoMerge: true}, {Number: 3, Align: text.AlignRight}})
	for _, res := range r.Results {
		for _, m := range res.Measures {
			if m.Count > 0 {
				t.AppendRow(table.Row{res.Scenario, m.Of, m.Count, inMs(m.P50), inMs(m.P99), inMs(m.Longest), m.promise()})
			}
		}
		t.AppendSeparator()
	}
	if t.Length() > 0 {
		t.Render()
	}
}

func (v verdict) say() string {
	s := "ok"
	if n := len(v.Violations) + v.More; n > 0 {
		s = fmt.Sprintf("%d VIOLATIONS", n)
	}
	if v.Note != "" {
		s += " (" + v.Note + ")"
	}
	return s
}
