package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// converged: every watcher sees every user as the campaign knows it to be.
func converged(want []expected, have func(watcher, user string) viewed) verdict {
	v := verdict{Checker: "presence convergence", Of: "views"}
	for _, w := range want {
		v.Examined++
		if text := w.unlike(have(w.watcher, w.user)); text != "" {
			v.fail("%s sees %s %s", w.watcher, w.user, text)
		}
	}
	return v.done()
}

// unlike says how a view differs from what is expected; empty: not at all.
func (w expected) unlike(h viewed) string {
	switch {
	case h.stale:
		return fmt.Sprintf("as stale (%s), %s", h.state, h.over)
	case h.present != w.present && w.present:
		return fmt.Sprintf("as %s, %s, and it is connected", h.state, h.over)
	case h.present != w.present:
		return fmt.Sprintf("as %s, %s, and it has no socket", h.state, h.over)
	case w.present && h.text != w.text:
		return fmt.Sprintf("with status %q instead of %q", h.text, w.text)
	}
	return ""
}

// monotone: over one socket, the version of a user never goes back.
func monotone(views []seen) verdict {
	v := verdict{Checker: "monotone presence", Of: "views"}
	type key struct {
		watcher, user string
		socket        int
	}
	last := map[key]seen{}
	for _, s := range views {
		if s.term == 0 {
			continue
		}
		v.Examined++
		k := key{s.watcher, s.user, s.socket}
		if b, ok := last[k]; ok && cmp.Or(cmp.Compare(s.term, b.term), cmp.Compare(s.number, b.number)) < 0 {
			v.fail("%s saw %s go back from (%d, %d) to (%d, %d) at %v", s.watcher, s.user, b.term, b.number, s.term, s.number, s.at)
		}
		last[k] = s
	}
	return v.done()
}

// edgeMargin is how long before and after a view a client must have been connected.
const edgeMargin = 2 * time.Second

// wake is how long a server that stood still, or was cut off, may go on to tell what had reached it before.
const wake = 5 * time.Second

// falseOffline: nobody was shown as offline while connected to a server that was not
// itself under a fault. A view that the next one over the same socket corrects within the margin was held up
// on its way, and was true once; so was one that came over a server that has just been broken itself. faults are the times
// at which servers were cut off or stood still; after one the server of the user is excused for settle.
func falseOffline(views []seen, spans, faults []presentSpan, settle time.Duration) verdict {
	v := verdict{Checker: "false offline", Of: "views"}
	of := map[string][]presentSpan{}
	for _, s := range spans {
		of[s.user] = append(of[s.user], s)
	}
	for i, s := range views {
		v.Examined++
		broken := func(node string, after time.Duration) bool {
			return slices.ContainsFunc(faults, func(f presentSpan) bool {
				return f.node == node && f.from <= s.at && s.at <= f.to+after
			})
		}
		if s.state != "offline" || s.stale || broken(s.over, wake) || corrected(s, views[i+1:]) {
			continue
		}
		for _, p := range of[s.user] {
			if !broken(p.node, settle) && p.from+edgeMargin <= s.at && s.at <= p.to-edgeMargin {
				v.fail("%s saw %s offline at %v, who was connected to %s from %v to %v", s.watcher, s.user, s.at, p.node, p.from, p.to)
			}
		}
	}
	return v.done()
}

// corrected reports whether the next view of the same user over the same socket follows within the margin and differs.
func corrected(s seen, later []seen) bool {
	for _, l := range later {
		if l.at > s.at+edgeMargin {
			return false
		}
		if l.watcher == s.watcher && l.socket == s.socket && l.user == s.user {
			return l.state != s.state
		}
	}
	return false
}

// absence is somebody whose edge was killed and who stayed away.
type absence struct {
	user string
	from time.Duration
}

// bounds is when those who stay away are to be shown as offline, after their edge was killed.
type bounds struct{ earliest, latest time.Duration }

// offlineInTime: who stays away after the death of its edge is shown as offline, not before its grace is over and not
// later than promised.
func offlineInTime(views []seen, absences []absence, b bounds) verdict {
	v := verdict{Checker: "offline in time", Of: "people who stayed away"}
	var took []time.Duration
	for _, a := range absences {
		v.Examined++
		i := slices.IndexFunc(views, func(s seen) bool {
			return s.user == a.user && s.at >= a.from && s.state == "offline" && !s.stale
		})
		if i < 0 || views[i].at-a.from > b.latest {
			v.fail("%s was not shown as offline within %v after its edge was killed at %v", a.user, b.latest, a.from)
			continue
		}
		after := views[i].at - a.from
		if after < b.earliest {
			v.fail("%s was shown as offline %v after its edge was killed at %v, within its grace", a.user, after, a.from)
		}
		took = append(took, after)
	}
	v.Note = "after " + measure("", 0, took).say()
	return v
}
