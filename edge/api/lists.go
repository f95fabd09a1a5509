package api

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
)

type onlineRequest struct {
	Prefix string `query:"prefix" pattern:"^[A-Za-z0-9._@+=-]{0,128}$" doc:"Only users whose id begins so"`
	Cursor string `query:"cursor" maxLength:"256" doc:"The cursor of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Users in a page"`
}

type onlineReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Presences []Presence `json:"presences" doc:"Users who are not offline, in the order of their ids" nullable:"false"`
	Cursor    string     `json:"cursor,omitempty" doc:"Ask with it for the next page; absent: this was the last"`
	Complete  bool       `json:"complete" doc:"false: some shards could not answer, users of theirs are missing"`
}

type countsReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Totals   map[string]uint64            `json:"totals" doc:"Users by state: online, away, dnd" nullable:"false"`
	Nodes    map[string]map[string]uint64 `json:"nodes" doc:"The same by node that owns them" nullable:"false"`
	Complete bool                         `json:"complete" doc:"false: some shards could not answer, their users are not counted"`
}

func (a *API) lists() {
	handle(a, huma.Operation{
		OperationID: "online", Method: http.MethodGet, Path: "/v1/online", Tags: []string{"presence"},
		Summary:     "Who is online, by pages",
		Description: "A user who is online the whole time is on exactly one page; one who comes or goes meanwhile may be missing.",
	}, a.online)
	handle(a, huma.Operation{
		OperationID: "counts", Method: http.MethodGet, Path: "/v1/counts", Tags: []string{"presence"},
		Summary: "How many users, by state and by node",
	}, a.counts)
}

func (a *API) online(ctx context.Context, in *onlineRequest) (onlineReply, error) {
	after, err := afterOf(in.Cursor)
	if err != nil {
		return onlineReply{}, err
	}
	m := merge{ask: func(shard uint32, after string, limit int) ([]Presence, bool) {
		return a.onlineOf(ctx, shard, in.Prefix, after, limit)
	}}
	users, more := m.page(after, in.Limit)
	reply := onlineReply{Presences: users, Complete: !m.failed}
	if more {
		reply.Cursor = cursorAfter(users[len(users)-1].User)
	}
	return reply, nil
}

// onlineOf asks one shard for its users after an id.
func (a *API) onlineOf(ctx context.Context, shard uint32, prefix, after string, limit int) ([]Presence, bool) {
	down, err := a.call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{
		App:  appOf(ctx),
		What: &link.Ask_Online{Online: &link.OnlinePage{Prefix: prefix, After: after, Limit: uint32(limit)}},
	}}})
	answer := down.GetAnswer()
	if err != nil || answer == nil {
		return nil, false
	}
	users := make([]Presence, len(answer.Rows))
	for i, row := range answer.Rows {
		users[i] = present(down.Term, row)
	}
	return users, answer.Code == link.Code_OK // a settling shard gives those it knows
}

// merge makes one page of all shards' lists, which are sorted by id. A page of n
// takes about n/64 of each shard, so each is asked for little more than that, and
// asked again when it has more to give than its share.
type merge struct {
	// ask returns at most limit users of a shard after an id; false: it cannot answer.
	ask    func(shard uint32, after string, limit int) ([]Presence, bool)
	failed bool // some shard could not answer

	lists [link.Shards]sortedList
}

type sortedList struct {
	users []Presence // not yet taken
	after string     // the last id that was fetched
	more  bool       // the shard may have users after it
}

// page returns up to limit users after an id, and whether there are more.
func (m *merge) page(after string, limit int) (users []Presence, more bool) {
	users = make([]Presence, 0, limit)
	share := min(limit+1, limit/(link.Shards/2)+8)
	for i := range m.lists {
		m.lists[i] = sortedList{after: after, more: true}
	}
	m.fill(allShards, share)
	for {
		least := -1
		for i := range m.lists {
			l := &m.lists[i]
			if len(l.users) == 0 && l.more {
				m.fill([]uint32{uint32(i)}, share)
			}
			if len(l.users) > 0 && (least < 0 || l.users[0].User < m.lists[least].users[0].User) {
				least = i
			}
		}
		if least < 0 {
			return users, false
		}
		if len(users) == limit {
			return users, true
		}
		l := &m.lists[least]
		users = append(users, l.users[0])
		l.users = l.users[1:]
	}
}

// fill fetches the next users of the shards, in parallel.
func (m *merge) fill(shards []uint32, limit int) {
	var mu sync.Mutex
	eachShard(shards, func(shard uint32) {
		l := &m.lists[shard]
		users, ok := m.ask(shard, l.after, limit)
		// A shard that repeats itself would hold the page for ever: what is not
		// after the last id is dropped, and a fetch without news is its end.
		users = slices.DeleteFunc(users, func(p Presence) bool { return p.User <= l.after })
		l.users, l.more = users, ok && len(users) >= limit
		if len(users) > 0 {
			l.after = users[len(users)-1].User
		}
		if !ok {
			mu.Lock()
			m.failed = true
			mu.Unlock()
		}
	})
}

func (a *API) counts(ctx context.Context, _ *struct{}) (countsReply, error) {
	reply := countsReply{Totals: map[string]uint64{}, Nodes: map[string]map[string]uint64{}, Complete: true}
	var mu sync.Mutex
	eachShard(allShards, func(shard uint32) {
		down, err := a.call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{
			App: appOf(ctx), What: &link.Ask_Counts{Counts: true},
		}}})
		answer := down.GetAnswer()
		mu.Lock()
		defer mu.Unlock()
		if err != nil || answer == nil || answer.Code != link.Code_OK {
			reply.Complete = false
		}
		if answer == nil {
			return
		}
		node := reply.Nodes[down.Node]
		if node == nil {
			node = map[string]uint64{}
			reply.Nodes[down.Node] = node
		}
		for name, n := range answer.Counts {
			reply.Totals[name] += n
			node[name] += n
		}
	})
	return reply, nil
}
