package actors

import (
	"slices"
	"time"

	"muster/actors/presence"
)

// graphs is what an application's own graph said of the shard's users, for a while.
type graphs struct {
	known map[presence.Key]*contacts
	ask   map[string][]string // users by application, asked for at the end of the turn
}

type contacts struct {
	users []string
	at    time.Time // of the answer; zero: none yet
	asked bool
}

// graphAnswer is what the graph said.
type graphAnswer struct {
	app      string
	users    []string
	contacts map[string][]string
	err      error
}

const graphKept = 60 * time.Second

// graph asks for a user's contacts if they are not known or old.
func (g *gateway) graph(k presence.Key, now time.Time) {
	if g.node.cfg.Graph == nil {
		return
	}
	c := g.graphs.known[k]
	if c == nil {
		c = &contacts{}
		if g.graphs.known == nil {
			g.graphs.known = map[presence.Key]*contacts{}
		}
		g.graphs.known[k] = c
	}
	if !c.asked && now.Sub(c.at) >= graphKept {
		c.asked = true
		if g.graphs.ask == nil {
			g.graphs.ask = map[string][]string{}
		}
		g.graphs.ask[k.App] = append(g.graphs.ask[k.App], k.User)
	}
}

// graphOf is what the graph said of a user; nil if that is not known.
func (g *gateway) graphOf(k presence.Key) *presence.SetGraph {
	if c := g.graphs.known[k]; c != nil && !c.at.IsZero() {
		return &presence.SetGraph{Contacts: c.users}
	}
	return nil
}

// feedGraph tells a new activation what is known, and asks for what is not.
func (g *gateway) feedGraph(k presence.Key, now time.Time) {
	if in := g.graphOf(k); in != nil {
		g.step(presence.Deliver{Key: k, In: *in}, nil, now)
	}
	g.graph(k, now)
}

// regraph asks again for the contacts of a user who is known here.
func (g *gateway) regraph(k presence.Key, now time.Time) {
	if c := g.graphs.known[k]; c != nil {
		c.at, c.asked = time.Time{}, false
		g.graph(k, now)
	}
}

// askGraphs asks for all that the turn needs, in one question for each application.
func (g *gateway) askGraphs() {
	if len(g.graphs.ask) == 0 {
		return
	}
	n, shard := g.node, g.shard
	for app, users := range g.graphs.ask {
		n.cfg.Graph(app, users, func(contacts map[string][]string, err error) {
			n.post(shard, &graphAnswer{app, users, contacts, err})
		})
	}
	g.graphs.ask = nil
}

// graphed takes an answer. After an error what was known goes on to count.
func (g *gateway) graphed(m *graphAnswer, now time.Time) {
	if m.err != nil {
		g.node.cfg.Logger.Warn("contacts of the application's graph", "app", m.app, "users", len(m.users), "error", m.err)
	}
	for _, u := range m.users {
		k := presence.Key{App: m.app, User: u}
		c := g.graphs.known[k]
		if c == nil {
			continue
		}
		if c.asked = false; m.err != nil {
			continue
		}
		was := c.users
		if c.users, c.at = m.contacts[u], now; c.users == nil {
			c.users = []string{}
		}
		if g.core.Known(k) && (was == nil || !slices.Equal(was, c.users)) {
			g.step(presence.Deliver{Key: k, In: presence.SetGraph{Contacts: c.users}}, nil, now)
		}
	}
}

// forgetGraphs drops what is old and of nobody who is resident.
func (g *gateway) forgetGraphs(now time.Time) {
	for k, c := range g.graphs.known {
		if !c.asked && now.Sub(c.at) >= graphKept && g.users[k] == nil {
			delete(g.graphs.known, k)
		}
	}
}
