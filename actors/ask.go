package actors

import (
	"encoding/json"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

// maxPage is the most users in one page of the online list.
const maxPage = 1000

// Explained is the answer to "why does this user show that".
type Explained struct {
	User       string                `json:"user"`
	Node       string                `json:"node"`
	Shard      uint32                `json:"shard"`
	Term       uint64                `json:"term"`
	Version    uint64                `json:"version"` // the shard's counter
	Resident   bool                  `json:"resident"`
	Settling   bool                  `json:"settling"`
	ParkedTill time.Time             `json:"parked_until,omitzero"`
	State      *presence.Explanation `json:"activation,omitempty"`
	Watcher    string                `json:"watcher,omitempty"`
	Sees       []presence.Verdict    `json:"watcher_sees,omitempty"`
}

// ask answers a read of the HTTP API.
func (g *gateway) ask(e presence.Edge, a *link.Ask, now time.Time) {
	answer := &link.Answer{Call: a.GetCall()}
	switch w := a.GetWhat().(type) {
	case *link.Ask_Online:
		limit := min(max(int(w.Online.GetLimit()), 1), maxPage)
		rows := g.core.Online(a.GetApp(), w.Online.GetPrefix(), w.Online.GetAfter(), limit)
		answer.Rows = list(rows, row)
		g.unsettled(answer)
	case *link.Ask_Counts:
		g.unsettled(answer)
		answer.Counts = g.counts(a.GetApp())
	case *link.Ask_Explain:
		g.explain(e, answer, presence.Key{App: a.GetApp(), User: w.Explain.GetUser()}, w.Explain.GetWatcher(), now)
		return
	case *link.Ask_User:
		g.user(e, answer, presence.Key{App: a.GetApp(), User: w.User}, now)
		return
	default:
		g.node.stats.Malformed.Add(1)
		answer.Code, answer.Message = link.Code_BAD_REQUEST, "no such question"
	}
	g.answer(e, answer)
}

// unsettled marks an answer that may miss users whom no edge has announced yet.
func (g *gateway) unsettled(a *link.Answer) {
	if g.core.Settling() {
		a.Code, a.Message = link.Code_UNAVAILABLE, "the shard is settling"
	}
}

func (g *gateway) answer(e presence.Edge, a *link.Answer) {
	g.out.send(e, &link.Down{Body: &link.Down_Answer{Answer: a}})
}

// counts are the shard's totals; of one application the users by state only.
func (g *gateway) counts(app string) map[string]uint64 {
	c := g.core.Counts(app)
	out := map[string]uint64{"online": c.Online, "away": c.Away, "dnd": c.DND}
	if app != "" {
		return out
	}
	for name, v := range map[string]uint64{"sessions": c.Sessions, "detached": c.Detached, "rows": c.Rows, "entries": c.Entries,
		"storm": bit(c.Storm), "settling": bit(c.Settling), "activations": uint64(len(g.users)), "rooms": uint64(len(g.rooms))} {
		out[name] = v
	}
	return out
}

func bit(on bool) uint64 {
	if on {
		return 1
	}
	return 0
}

// explain answers with what the shard and, if it is resident, the user know.
func (g *gateway) explain(e presence.Edge, answer *link.Answer, k presence.Key, by string, now time.Time) {
	if !g.holds(k, link.KindUser) {
		answer.Code, answer.Message = link.Code_BAD_REQUEST, "no such user in this shard"
		g.answer(e, answer)
		return
	}
	x := &Explained{User: k.User, Node: g.node.cfg.Name, Shard: g.shard, Term: g.core.Term(), Version: g.core.Version(), Settling: g.core.Settling()}
	if t := g.trouble[troubleKey(k, false)]; t != nil && now.Before(t.parked) {
		x.ParkedTill = t.parked
	}
	if by != "" {
		x.Watcher, x.Sees = by, g.core.Hides(k, presence.Watcher{User: by})
	}
	g.withUser(e, k, func(u *presence.Explanation) *link.Answer {
		x.Resident, x.State = u != nil, u
		return withJSON(answer, x)
	})
}

// user answers with the exact view and the sessions of a user.
func (g *gateway) user(e presence.Edge, answer *link.Answer, k presence.Key, now time.Time) {
	if !g.holds(k, link.KindUser) {
		answer.Code, answer.Message = link.Code_BAD_REQUEST, "no such user in this shard"
		g.answer(e, answer)
		return
	}
	answer.Rows = list([]presence.Row{g.core.Look(now, k, presence.Watcher{})}, row)
	g.withUser(e, k, func(u *presence.Explanation) *link.Answer {
		sessions := []presence.SessionExplained{}
		if u != nil {
			sessions = append(sessions, u.Sessions...)
		}
		return withJSON(answer, sessions)
	})
}

// withUser completes an answer in the user's turn, or at once if it has no activation.
func (g *gateway) withUser(e presence.Edge, k presence.Key, rest func(*presence.Explanation) *link.Answer) {
	if a := g.users[k]; a != nil {
		a.PostUserMessage(&explain{e, func(x presence.Explanation) *link.Answer { return rest(&x) }})
		return
	}
	g.answer(e, rest(nil))
}

func withJSON(a *link.Answer, v any) *link.Answer {
	doc, err := json.Marshal(v)
	if err != nil {
		a.Code, a.Message = link.Code_UNAVAILABLE, err.Error()
	}
	a.Json = string(doc)
	return a
}
