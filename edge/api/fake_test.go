package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
)

// fakeCore is 64 shards in a map. It checks that each message is for its shard.
type fakeCore struct {
	t testing.TB

	mu     sync.Mutex
	users  map[presence.Key]*link.View
	index  map[string]*[link.Shards][]string // ids by app and shard, sorted; nil: to be made
	sent   []*link.Up
	down   map[uint32]error // shards that cannot be reached
	settle map[uint32]bool  // shards that cannot say yet
	code   link.Code        // refuses every command
	answer *link.Down       // instead of the right answer
	asked  int              // rows asked for by online pages

	streams [link.Shards]stream
	refused map[string]link.Code // acts for these users
	seen    map[[2]string]uint64 // (user, client id) of publishes, and their offsets
}

// stream is what a shard keeps of events and letters.
type stream struct {
	generation, first, last uint64 // first and last seq kept; first 0: none
	events, letters         []*link.Event
}

// happen adds an event.
func (f *fakeCore) happen(app, user, typ string, at int64, json string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.streams[link.ShardOf(app, link.KindUser, user)]
	s.last++
	if s.first == 0 {
		s.first = s.last
	}
	s.events = append(s.events, &link.Event{Seq: s.last, App: app, User: user, Type: typ, At: at, Json: json, Generation: s.generation})
}

func (f *fakeCore) stream(user string) *stream {
	return &f.streams[link.ShardOf("default", link.KindUser, user)]
}

// trim drops the events of a shard up to seq.
func (s *stream) trim(seq uint64) {
	s.events = slices.DeleteFunc(s.events, func(e *link.Event) bool { return e.Seq <= seq })
	if s.first = seq + 1; len(s.events) == 0 {
		s.first = 0
	}
}

// after lists up to limit events after seq.
func after(list []*link.Event, seq uint64, limit uint32) (page []*link.Event, more bool) {
	for _, e := range list {
		if e.Seq > seq {
			if len(page) == int(limit) {
				return page, true
			}
			page = append(page, e)
		}
	}
	return page, false
}

func (f *fakeCore) act(a *link.Act) *link.Acted {
	v := &link.Acted{Code: f.code, Message: "said the core"}
	if code, ok := f.refused[a.User]; ok {
		v.Code = code
	}
	if p := a.GetPublish(); p != nil && v.Code == link.Code_OK {
		id := [2]string{a.User, p.ClientId}
		offset, known := f.seen[id]
		if !known {
			offset = 44
			f.seen[id] = offset
		}
		v.Published = &link.Published{Epoch: 0x9f00000000000001, Offset: offset, At: 1_800_000_000_000, Duplicate: known}
	}
	return v
}

func newFake(t testing.TB) *fakeCore {
	return &fakeCore{t: t, users: map[presence.Key]*link.View{}, down: map[uint32]error{}, settle: map[uint32]bool{}, refused: map[string]link.Code{}, seen: map[[2]string]uint64{}}
}

func (f *fakeCore) online(app, user string) {
	f.index = nil
	f.users[presence.Key{App: app, User: user}] = &link.View{State: uint32(presence.Online), Since: 1}
}

func (f *fakeCore) Call(ctx context.Context, up *link.Up) (*link.Down, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if up.Shard >= link.Shards {
		f.t.Errorf("shard %d", up.Shard)
	}
	f.sent = append(f.sent, proto.Clone(up).(*link.Up))
	if err := f.down[up.Shard]; err != nil {
		return nil, err
	}
	if f.answer != nil {
		return f.answer, nil
	}
	down := &link.Down{Node: "n1", Shard: up.Shard, Term: 7}
	if up.Shard >= link.Shards/2 {
		down.Node = "n2"
	}
	switch body := up.Body.(type) {
	case *link.Up_Query:
		down.Body = &link.Down_Views{Views: f.query(up.Shard, body.Query)}
	case *link.Up_Act:
		f.mine(up.Shard, body.Act.App, link.KindUser, body.Act.User)
		down.Body = &link.Down_Acted{Acted: f.act(body.Act)}
	case *link.Up_Ask:
		down.Body = &link.Down_Answer{Answer: f.ask(up.Shard, body.Ask)}
	case *link.Up_Room:
		f.mine(up.Shard, body.Room.App, link.KindRoom, body.Room.Room)
		down.Body = &link.Down_Room{Room: f.room(body.Room)}
	default:
		return nil, errors.New("not a message of the HTTP API")
	}
	return down, nil
}

func (f *fakeCore) mine(shard uint32, app, kind, id string) {
	if want := link.ShardOf(app, kind, id); shard != want {
		f.t.Errorf("%s %s/%s was sent to shard %d, want %d", kind, app, id, shard, want)
	}
}

func (f *fakeCore) query(shard uint32, q *link.Query) *link.Views {
	v := &link.Views{App: q.App}
	for _, user := range q.Users {
		f.mine(shard, q.App, link.KindUser, user)
		view := f.users[presence.Key{App: q.App, User: user}]
		row := &link.Row{User: user, View: view, Pending: f.settle[shard] && view == nil}
		if view != nil {
			row.Version = 3
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

func (f *fakeCore) ask(shard uint32, ask *link.Ask) *link.Answer {
	if f.settle[shard] {
		return &link.Answer{Code: link.Code_UNAVAILABLE, Message: "settling"}
	}
	a := &link.Answer{Code: f.code, Message: "said the core"}
	switch what := ask.What.(type) {
	case *link.Ask_Online:
		f.asked += int(what.Online.Limit)
		a.Rows = f.page(shard, ask.App, what.Online)
	case *link.Ask_Counts:
		a.Counts = map[string]uint64{"sessions": 1}
		if n := len(f.ids(ask.App, shard)); n > 0 {
			a.Counts["online"] = uint64(n)
		}
	case *link.Ask_Explain:
		a.Json = `{"user":"` + what.Explain.User + `","watcher":"` + what.Explain.Watcher + `"}`
	case *link.Ask_Contacts:
		f.mine(shard, ask.App, link.KindUser, what.Contacts.User)
		for _, r := range []*link.ContactRow{
			{User: "bob", To: true, From: true}, {User: "carol", PendingIn: true}, {User: "dave", From: true},
			{User: "mallory", Blocked: true},
		} {
			if r.User > what.Contacts.After {
				if len(a.Contacts) == int(what.Contacts.Limit) {
					a.More = true
					break
				}
				a.Contacts = append(a.Contacts, r)
			}
		}
	case *link.Ask_Events:
		s := &f.streams[shard]
		a.Events, _ = after(s.events, what.Events.After, what.Events.Limit)
		a.First, a.Last, a.Generation = s.first, s.last, s.generation
	case *link.Ask_Letters:
		a.Events, a.More = after(f.streams[shard].letters, what.Letters.After, what.Letters.Limit)
	case *link.Ask_Outbox:
		f.mine(shard, ask.App, link.KindUser, what.Outbox)
		a.Json = `{"epoch":"9f00000000000001","head":44}`
	case *link.Ask_User:
		a.Rows = f.query(shard, &link.Query{App: ask.App, Users: []string{what.User}}).Rows
		a.Json = `[{"session":"5e","device":"d-9","class":"mobile","edge":"e7","phase":"grace","last_active":"2027-01-15T08:00:00Z","cause":"silence","detached_at":"2027-01-15T08:00:05.25Z"}]`
	}
	return a
}

// ids are the users of an app in a shard, sorted.
func (f *fakeCore) ids(app string, shard uint32) []string {
	if f.index == nil {
		f.index = map[string]*[link.Shards][]string{}
		for key := range f.users {
			if f.index[key.App] == nil {
				f.index[key.App] = &[link.Shards][]string{}
			}
			list := &f.index[key.App][link.ShardOf(key.App, link.KindUser, key.User)]
			*list = append(*list, key.User)
		}
		for _, app := range f.index {
			for shard := range app {
				slices.Sort(app[shard])
			}
		}
	}
	if f.index[app] == nil {
		return nil
	}
	return f.index[app][shard]
}

func (f *fakeCore) page(shard uint32, app string, p *link.OnlinePage) (rows []*link.Row) {
	for _, user := range f.ids(app, shard) {
		if user > p.After && strings.HasPrefix(user, p.Prefix) && len(rows) < int(p.Limit) {
			rows = append(rows, &link.Row{User: user, Version: 3, View: f.users[presence.Key{App: app, User: user}]})
		}
	}
	return rows
}

func (f *fakeCore) room(c *link.RoomCommand) *link.RoomReply {
	switch {
	case f.code != link.Code_OK:
		return &link.RoomReply{Code: f.code, Message: "said the core"}
	case c.Room == "empty":
		return &link.RoomReply{Code: link.Code_NOT_FOUND}
	}
	return &link.RoomReply{Version: 5, Count: 1, Occupants: []*link.Occupant{
		{User: "alice", State: uint32(presence.Online), Info: `{"seat":1}`, EnteredAt: 9},
		{User: "ghost", Hidden: true},
	}}
}
