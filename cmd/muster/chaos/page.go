package chaos

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"timeline": timeline,
	"bad":      func(r Result) bool { return r.bad() },
	"red":      func(v verdict) int { return len(v.Violations) + v.More },
	"quantile": func(r Result) string {
		return fmt.Sprintf("%d times unavailable, %s", len(r.Gaps), lengths(r.Gaps).say())
	},
	"ms":      func(d time.Duration) string { return inMs(d).String() },
	"promise": Measure.promise,
	"round":   func(d time.Duration) string { return d.Round(100 * time.Millisecond).String() },
}).Parse(pageText))

// page is the report as one HTML page that needs nothing else.
func (r Report) page() ([]byte, error) {
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, r)
	return b.Bytes(), err
}

// Measures of a timeline, in units of its view box.
const (
	chartWidth = 1100.0
	chartLeft  = 120.0
	chartRight = 20.0
)

// chart draws lanes over one axis of time.
type chart struct {
	b    strings.Builder
	span time.Duration
	y    float64
}

func (c *chart) x(at time.Duration) float64 {
	at = max(0, min(at, c.span))
	return chartLeft + (chartWidth-chartLeft-chartRight)*float64(at)/float64(c.span)
}

func (c *chart) add(format string, args ...any) { fmt.Fprintf(&c.b, format+"\n", args...) }

func (c *chart) text(x, y float64, class, s string) {
	c.add(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, template.HTMLEscapeString(s))
}

// lane begins a lane of a height and returns its top and bottom.
func (c *chart) lane(name string, height float64, marks ...string) (top, bottom float64) {
	top, bottom = c.y, c.y+height
	c.text(0, top+height/2+4, "lane", name)
	for i, m := range marks { // from the bottom to the top
		y := bottom
		if len(marks) > 1 {
			y -= height * float64(i) / float64(len(marks)-1)
		}
		c.add(`<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, chartLeft, chartWidth-chartRight, y, y)
		c.text(chartLeft-4, y+3, "mark", m)
	}
	c.y = bottom + 22
	return top, bottom
}

// timeline draws faults, unavailable shards, changes of leaders and latency of one scenario.
func timeline(r Result) template.HTML {
	c := &chart{span: max(r.Length, time.Second), y: 16}
	c.faults(r.Faults)
	c.unavailable(r.Gaps)
	c.leaders(r.Leaders)
	c.latency(r.Latency)
	c.axis()
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="timeline">%s</svg>`, chartWidth, c.y, c.b.String()))
}

// faults are bars; the paler part is until all servers were ready and had their replicas.
func (c *chart) faults(list []faultSpan) {
	const row = 20.0
	var ends []float64 // of the labels of each row
	rows := make([]int, len(list))
	for i, f := range list {
		from, to := c.x(f.From), c.x(f.From)+7*float64(len(label(f)))
		at := slices.IndexFunc(ends, func(end float64) bool { return end < from })
		if at < 0 {
			at, ends = len(ends), append(ends, 0)
		}
		rows[i], ends[at] = at, max(to, c.x(max(f.To, f.Whole)))+6
	}
	top, _ := c.lane("faults", row*float64(max(1, len(ends))))
	for i, f := range list {
		y := top + row*float64(rows[i])
		from, to := c.x(f.From), c.x(f.To)
		if f.Whole > f.To {
			c.add(`<rect class="healing" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, to, y, max(1, c.x(f.Whole)-to), row-4)
		}
		c.add(`<rect class="fault" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %v to %v, whole at %v</title></rect>`,
			from, y, max(2, to-from), row-4, template.HTMLEscapeString(label(f)), f.From.Round(time.Millisecond), f.To.Round(time.Millisecond), f.Whole.Round(time.Millisecond))
		c.text(from+3, y+row-8, "label", label(f))
	}
}

func label(f faultSpan) string { return string(f.Fault) + " " + strings.Join(f.Nodes, " ") }

// unavailable is how many shards could not be written to.
func (c *chart) unavailable(list []Gap) {
	type edge struct {
		at time.Duration
		by int
	}
	var edges []edge
	for _, g := range list {
		edges = append(edges, edge{g.From, 1}, edge{g.To, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return int(a.at - b.at) })
	out, most := 0, 1
	for _, e := range edges {
		out += e.by
		most = max(most, out)
	}
	top, bottom := c.lane("shards out", 60, "0", fmt.Sprint(most))
	y := func(n int) float64 { return bottom - (bottom-top)*float64(n)/float64(most) }
	path := fmt.Sprintf("M%.1f %.1f", chartLeft, bottom)
	out = 0
	for _, e := range edges {
		path += fmt.Sprintf("L%.1f %.1f", c.x(e.at), y(out))
		out += e.by
		path += fmt.Sprintf("L%.1f %.1f", c.x(e.at), y(out))
	}
	c.add(`<path class="out" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, path, c.x(c.span), y(out), c.x(c.span), bottom)
}

// leaders is how many shards acknowledged in a new term for the first time, per second.
func (c *chart) leaders(list []leader) {
	counts := map[int]int{}
	most := 1
	for _, l := range list {
		sec := int(l.At / time.Second)
		counts[sec]++
		most = max(most, counts[sec])
	}
	top, bottom := c.lane("new leaders", 40, "0", fmt.Sprint(most))
	for sec, n := range counts {
		x := c.x(time.Duration(sec) * time.Second)
		h := (bottom - top) * float64(n) / float64(most)
		c.add(`<rect class="leader" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%d shards at %d s</title></rect>`,
			x, bottom-h, max(2, c.x(time.Duration(sec+1)*time.Second)-x-1), h, n, sec)
	}
}

// latency is of the sends that were acknowledged in each second: 1 ms to 100 s, by decades.
func (c *chart) latency(list []second) {
	const decades = 5
	top, bottom := c.lane("latency", 120, "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s")
	y := func(d time.Duration) float64 {
		level := math.Log10(max(1, float64(d)/float64(time.Millisecond)))
		return bottom - (bottom-top)*min(level, decades)/decades
	}
	for _, line := range []struct {
		class string
		of    func(second) time.Duration
	}{{"p99", func(s second) time.Duration { return s.P99 }}, {"p50", func(s second) time.Duration { return s.P50 }}} {
		path, last := "", -2
		for _, s := range list {
			op := "L"
			if s.At > last+1 {
				op = "M"
			}
			path, last = path+fmt.Sprintf("%s%.1f %.1f", op, c.x(time.Duration(s.At)*time.Second+time.Second/2), y(line.of(s))), s.At
		}
		if path != "" {
			c.add(`<path class="%s" d="%s"/>`, line.class, path)
		}
	}
}

// axis writes the time below the lanes.
func (c *chart) axis() {
	step := time.Second
	for _, s := range []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, time.Hour} {
		if c.span/step > 20 {
			step = s
		}
	}
	for at := time.Duration(0); at <= c.span; at += step {
		c.add(`<line class="grid" x1="%.1f" x2="%.1f" y1="8" y2="%.1f"/>`, c.x(at), c.x(at), c.y-16)
		c.text(c.x(at), c.y, "time", fmt.Sprintf("%g s", at.Seconds()))
	}
	c.y += 8
}
