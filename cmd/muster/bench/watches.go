//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"math"
	"strings"
	"time"
)

// lawWatches measures what a watch costs (P11): 250 sessions that watch ever more
// users of the same 5,000, all offline.
func (r *runner) lawWatches(res *Result) (points []point, err error) {
	const sessions = 250
	return points, r.withFleet(func(f *fleet) error {
		var base float64
		var first, last heapShare
		sizes := []int{5, 50, 500, 5000}
		for i := range sessions {
			if _, err := f.add(i, "d1"); err != nil {
				return err
			}
		}
		if err := f.connect(f.members, 64, 20*time.Second, nil); err != nil {
			return err
		}
		base, err := heapOver(f.t, 0)
		if err != nil {
			return err
		}
		from := 0
		for _, size := range sizes {
			r.bar.Show("growth: watches", float64(size), 5000)
			if err := watchMore(f, from, size); err != nil {
				return err
			}
			from = size
			f.e.idle(time.Second)
			kb, err := heapOver(f.t, int64(base*1024))
			if err != nil {
				return err
			}
			points = append(points, point{float64(size), kb})
			if first == nil {
				first = f.t.heapShare()
			}
			last = f.t.heapShare()
		}
		rows := float64(sessions * (sizes[3] - sizes[0]))
		res.set("bytes_per_watch", (points[3].y-points[0].y)*1024/rows)
		if first != nil && last != nil {
			res.set("edge_bytes_per_watch", (last["edge"]-first["edge"])/rows)
			res.set("core_bytes_per_watch", (last["actors"]-first["actors"])/rows)
			res.atMost("P11", "edge_bytes_per_watch", 40, 150)
			res.atMost("P11", "core_bytes_per_watch", 64, 150)
		}
		return f.err()
	}, "--max-watches", "5000")
}

// watchMore lets every session watch the users from … to of a common 5,000 that nobody is.
func watchMore(f *fleet, from, to int) error {
	for ; from < to; from += 1000 {
		var ids []string
		for u := from; u < min(to, from+1000); u++ {
			ids = append(ids, fmt.Sprintf(`"u%d"`, 100_000+u))
		}
		frame := textFrame(`{"id":2,"watch":{"add":[%s]}}`, strings.Join(ids, ","))
		answered := 0
		f.reply = func(*member) { answered++ }
		for i, m := range f.members {
			f.e.send(&m.client, frame)
			if !f.e.until(10*time.Second, func() bool { return i-answered < 16 || len(f.failures) > 0 }) {
				return fmt.Errorf("watch was not answered")
			}
		}
		if !f.e.until(10*time.Second, func() bool { return answered >= len(f.members) || len(f.failures) > 0 }) {
			return fmt.Errorf("%d of %d watch commands were answered", answered, len(f.members))
		}
		if err := f.err(); err != nil {
			return err
		}
	}
	return nil
}

// heapShare is the live heap in bytes by the part of the program that allocated it.
type heapShare map[string]float64

// heapShare reads the server's heap profile, whose samples it scales up; nil without one.
func (t *target) heapShare() heapShare {
	body, err := t.get("/debug/pprof/heap?debug=1&gc=1")
	if err != nil {
		return nil
	}
	defer body.Close()
	share := heapShare{}
	var bytes float64
	rate := 512.0 * 1024
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		text := lines.Text()
		var objects, size, a, b float64
		switch {
		case strings.HasPrefix(text, "heap profile:"):
			if i := strings.LastIndex(text, "heap/"); i >= 0 {
				rate = float64(number([]byte(text[i+5:]))) / 2
			}
		case strings.HasPrefix(text, "#\t"):
			if part := partOf(text); part != "" && bytes > 0 {
				share[part] += bytes
				bytes = 0
			}
		default:
			if n, _ := fmt.Sscanf(text, "%f: %f [%f: %f]", &objects, &size, &a, &b); n == 4 && objects > 0 {
				bytes = size / (1 - math.Exp(-size/objects/rate))
			}
		}
	}
	return share
}

// partOf names the part of the program that a frame belongs to, "" if none of ours.
func partOf(frame string) string {
	switch {
	case strings.Contains(frame, "muster/edge"):
		return "edge"
	case strings.Contains(frame, "muster/actors"):
		return "actors"
	}
	return ""
}
