package actors

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	InFlight   int                   `json:"in_flight"`  // proposals of the shard
	Waiting    int                   `json:"waiting"`    // steps of the user that wait for a commit
	Generation uint64                `json:"generation"` // of the shard
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
		answer.Rows = list(rows, viewRow)
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
	case *link.Ask_Contacts:
		g.contacts(e, answer, presence.Key{App: a.GetApp(), User: w.Contacts.GetUser()}, w.Contacts, now)
		return
	case *link.Ask_Outbox:
		g.outbox(e, answer, presence.Key{App: a.GetApp(), User: w.Outbox}, now)
		return
	case *link.Ask_Events:
		g.askEvents(e, a.GetCall(), w.Events, now)
		return
	case *link.Ask_Letters:
		g.askLetters(e, a.GetCall(), w.Letters)
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
	g.learn(k, now)
	if by != "" {
		x.Watcher, x.Sees = by, g.core.Hides(k, presence.Watcher{User: by})
	}
	x.InFlight, x.Generation = len(g.flights), g.generation
	if t := g.gates[k]; t != nil {
		x.Waiting = len(t.queue)
	}
	g.withUser(e, k, now, answer, func(u *presence.User) {
		state := u.Explain()
		x.Resident, x.State = g.users[k] != nil, &state
		withJSON(answer, x)
	})
}

// user answers with the exact view and the sessions of a user.
func (g *gateway) user(e presence.Edge, answer *link.Answer, k presence.Key, now time.Time) {
	if !g.holds(k, link.KindUser) {
		answer.Code, answer.Message = link.Code_BAD_REQUEST, "no such user in this shard"
		g.answer(e, answer)
		return
	}
	g.learn(k, now)
	answer.Rows = list([]presence.Row{g.core.Look(now, k, presence.Watcher{})}, viewRow)
	g.withUser(e, k, now, answer, func(u *presence.User) {
		withJSON(answer, append([]presence.SessionExplained{}, u.Explain().Sessions...))
	})
}

// contacts answers with a page of a user's relations.
func (g *gateway) contacts(e presence.Edge, answer *link.Answer, k presence.Key, p *link.ContactsPage, now time.Time) {
	limit := min(max(int(p.GetLimit()), 1), maxPage)
	g.withUser(e, k, now, answer, func(u *presence.User) {
		var rows []presence.RelationRow
		rows, answer.More = u.Relations(p.GetAfter(), limit)
		answer.Contacts = list(rows, contactRow)
	})
}

// outbox answers with the state of a user's outbox.
func (g *gateway) outbox(e presence.Edge, answer *link.Answer, k presence.Key, now time.Time) {
	g.withUser(e, k, now, answer, func(*presence.User) {
		records, _, err := g.load(k)
		if err != nil {
			answer.Code, answer.Message = link.Code_UNAVAILABLE, "the user cannot be read"
			return
		}
		withJSON(answer, outboxState(records))
	})
}

// OutboxState is the answer to "what waits for this user, and for which devices".
type OutboxState struct {
	Epoch   string        `json:"epoch"` // 16 hexadecimal digits; empty: there never was an entry
	Head    uint64        `json:"head"`  // last offset given
	First   uint64        `json:"first"` // oldest offset kept; 0: none
	Entries int           `json:"entries"`
	Bytes   int           `json:"bytes"` // of bodies
	Devices []DeviceState `json:"devices"`
}

// DeviceState is one registered device.
type DeviceState struct {
	Device   string `json:"device"`
	Offset   uint64 `json:"offset"` // it has processed all up to here
	Provider string `json:"provider,omitempty"`
	Push     bool   `json:"push"` // it has a token
	Seen     string `json:"seen"` // the day on which it was last there
}

// outboxState sums up records of one user.
func outboxState(records []presence.Record) *OutboxState {
	s := &OutboxState{Devices: []DeviceState{}}
	var epoch uint64
	entries, cursors := map[uint64]int{}, map[string]uint64{}
	for _, r := range records {
		switch r := r.(type) {
		case presence.OutboxSet:
			epoch, s.Head = r.Epoch, max(s.Head, r.Head)
			maps.DeleteFunc(entries, func(offset uint64, _ int) bool { return offset <= r.Trimmed })
		case presence.EntryPut:
			entries[r.Entry.Offset] = r.Entry.Size
			s.Head = max(s.Head, r.Entry.Offset)
		case presence.EntriesDropped:
			maps.DeleteFunc(entries, func(offset uint64, _ int) bool { return r.From <= offset && offset <= r.To })
		case presence.DeviceSet:
			s.Devices = slices.DeleteFunc(s.Devices, func(d DeviceState) bool { return d.Device == r.Device })
			s.Devices = append(s.Devices, DeviceState{Device: r.Device, Offset: r.Offset, Provider: r.Provider, Push: r.Token != "", Seen: day(r.Seen)})
		case presence.DeviceGone:
			s.Devices = slices.DeleteFunc(s.Devices, func(d DeviceState) bool { return d.Device == r.Device })
		case presence.CursorSet:
			if r.Epoch == epoch {
				cursors[r.Device] = r.Offset
			}
		}
	}
	if epoch != 0 {
		s.Epoch = fmt.Sprintf("%016x", epoch)
	}
	for offset, size := range entries {
		s.Entries, s.Bytes = s.Entries+1, s.Bytes+size
		if s.First == 0 || offset < s.First {
			s.First = offset
		}
	}
	for i := range s.Devices {
		s.Devices[i].Offset = max(s.Devices[i].Offset, cursors[s.Devices[i].Device])
	}
	return s
}

// day is a Unix day.
func day(n uint32) string { return time.Unix(int64(n)*86400, 0).UTC().Format(time.DateOnly) }

// withUser completes an answer with what is known of a user: behind what its activation has emitted, or from what
// is stored if it has none.
func (g *gateway) withUser(e presence.Edge, k presence.Key, now time.Time, answer *link.Answer, rest func(*presence.User)) {
	if !g.holds(k, link.KindUser) {
		answer.Code, answer.Message = link.Code_BAD_REQUEST, "no such user in this shard"
		g.answer(e, answer)
		return
	}
	if a := g.users[k]; a != nil {
		a.PostUserMessage(&explain{e, func(a *activation) *link.Answer { rest(a.user); return answer }})
		return
	}
	records, _, err := g.load(k)
	if err != nil {
		g.park(k, err, now)
		answer.Code, answer.Message = link.Code_UNAVAILABLE, "the user cannot be read"
	} else {
		rest(g.restored(records))
	}
	g.answer(e, answer)
}

func withJSON(a *link.Answer, v any) {
	doc, err := json.Marshal(v)
	if err != nil {
		a.Code, a.Message = link.Code_UNAVAILABLE, err.Error()
	}
	a.Json = string(doc)
}
