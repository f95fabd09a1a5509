package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Result is one measured run; --json prints one line for each.
type Result struct {
	Scenario string             `json:"scenario"`
	Run      string             `json:"run"`
	At       time.Time          `json:"at"`
	Values   map[string]float64 `json:"values"`
	Notes    map[string]string  `json:"notes,omitempty"`
	Goals    []Goal             `json:"goals,omitempty"`
	Error    string             `json:"error,omitempty"`
	order    []string
}

// Goal compares a value with what the project promises itself.
type Goal struct {
	ID    string  `json:"id"`
	Value float64 `json:"value"`
	Goal  float64 `json:"goal"`
	Fails float64 `json:"fails"`
	Less  bool    `json:"less"` // smaller is better
	Met   bool    `json:"met"`
	Bad   bool    `json:"bad"` // worse than Fails
}

func newResult(scenario, run string) *Result {
	return &Result{Scenario: scenario, Run: run, At: time.Now().UTC(), Values: map[string]float64{}, Notes: map[string]string{}}
}

// set keeps a value under a name that ends in its unit.
func (r *Result) set(name string, value float64) {
	if _, ok := r.Values[name]; !ok {
		r.order = append(r.order, name)
	}
	r.Values[name] = value
}

// atMost and atLeast compare a value that was set with a goal.
func (r *Result) atMost(id, name string, goal, fails float64) {
	v := r.Values[name]
	r.Goals = append(r.Goals, Goal{ID: id + " " + name, Value: v, Goal: goal, Fails: fails, Less: true, Met: v <= goal, Bad: v > fails})
}

func (r *Result) atLeast(id, name string, goal, fails float64) {
	v := r.Values[name]
	r.Goals = append(r.Goals, Goal{ID: id + " " + name, Value: v, Goal: goal, Fails: fails, Met: v >= goal, Bad: v < fails})
}

func (r *Result) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// writeTable renders all runs of a call.
func writeTable(w io.Writer, results []*Result) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"run", "measured", "value"})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 1, AutoMerge: true}, {Number: 3, Align: text.AlignRight}})
	for _, r := range results {
		for _, name := range r.order {
			t.AppendRow(table.Row{r.Run, strings.ReplaceAll(name, "_", " "), figure(r.Values[name])})
		}
		if r.Notes["law"] != "" {
			t.AppendRow(table.Row{r.Run, "law", r.Notes["law"]})
		}
		if r.Error != "" {
			t.AppendRow(table.Row{r.Run, "ERROR", r.Error})
		}
		t.AppendSeparator()
	}
	t.Render()

	g := table.NewWriter()
	g.SetOutputMirror(w)
	g.SetStyle(table.StyleLight)
	g.AppendHeader(table.Row{"goal", "value", "wanted", "fails", ""})
	for _, r := range results {
		for _, goal := range r.Goals {
			sign, bad := "≥ ", "< "
			if goal.Less {
				sign, bad = "≤ ", "> "
			}
			verdict := "missed"
			switch {
			case goal.Met:
				verdict = "met"
			case goal.Bad:
				verdict = "FAILS"
			}
			g.AppendRow(table.Row{strings.ReplaceAll(goal.ID, "_", " "), figure(goal.Value), sign + figure(goal.Goal), bad + figure(goal.Fails), verdict})
		}
	}
	if g.Length() > 0 {
		g.Render()
	}
}

// figure prints three or four significant digits.
func figure(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case abs >= 100 || v == float64(int(v)):
		return fmt.Sprintf("%.0f", v)
	case abs >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
