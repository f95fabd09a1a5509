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
}

func newFake(t testing.TB) *fakeCore {
	return &fakeCore{t: t, users: map[presence.Key]*link.View{}, down: map[uint32]error{}, settle: map[uint32]bool{}}
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
		down.Body = &link.Down_Acted{Acted: &link.Acted{Code: f.code, Message: "said the core"}}
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
