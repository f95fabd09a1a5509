package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/actors/presence"
)

type roomPath struct {
	ID string `path:"id" doc:"The room" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" patternDescription:"an id of 1 to 128 of A-Z a-z 0-9 . _ @ + = -"`
}

// Occupant is a user in a room.
type Occupant struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User      string   `json:"user"`
	State     string   `json:"state" enum:"online,away,dnd,offline"`
	Info      Document `json:"info,omitempty" doc:"What the occupant shows in this room"`
	EnteredAt int64    `json:"entered_at,omitempty" doc:"Unix ms"`
}

type occupantsReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Room      string     `json:"room"`
	Ver       []uint64   `json:"ver,omitempty" doc:"[term, version]" nullable:"false"`
	Occupants []Occupant `json:"occupants" nullable:"false"`
	Count     uint32     `json:"count"`
}

type explainRequest struct {
	User    string `path:"user" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" patternDescription:"an id of 1 to 128 of A-Z a-z 0-9 . _ @ + = -"`
	Watcher string `query:"watcher" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" doc:"Say which rule hides what from this user"`
}

func (a *API) rooms() {
	handle(a, huma.Operation{
		OperationID: "occupants", Method: http.MethodGet, Path: "/v1/rooms/{id}/occupants", Tags: []string{"rooms"},
		Summary: "Who is in a room", Description: "A room in which nobody is has no occupants; rooms need not be made. Invisible users are not listed.",
	}, a.occupants)
	handle(a, huma.Operation{
		OperationID: "explain", Method: http.MethodGet, Path: "/v1/explain/{user}", Tags: []string{"operations"},
		Summary:     "Why a user shows what it shows",
		Description: "Owner node, term, devices, timers, claims and the last transitions with their causes; with a watcher, which rule hides what. For humans: its fields may change.",
	}, a.explain)
}

func (a *API) occupants(ctx context.Context, in *roomPath) (occupantsReply, error) {
	app := appOf(ctx)
	down, err := a.call(ctx, &link.Up{
		Shard: link.ShardOf(app, link.KindRoom, in.ID),
		Body:  &link.Up_Room{Room: &link.RoomCommand{App: app, Room: in.ID, What: &link.RoomCommand_List{List: true}}},
	})
	if err != nil {
		return occupantsReply{}, err
	}
	room := down.GetRoom()
	if room == nil {
		return occupantsReply{}, wrongAnswer()
	}
	reply := occupantsReply{Room: in.ID, Count: room.Count, Occupants: make([]Occupant, 0, len(room.Occupants))}
	if room.Code == link.Code_NOT_FOUND { // a room is there as soon as someone enters
		return reply, nil
	}
	if err := coreError(room.Code, room.Message); err != nil {
		return occupantsReply{}, err
	}
	if room.Version > 0 {
		reply.Ver = []uint64{down.Term, room.Version}
	}
	for _, o := range room.Occupants {
		if o.Hidden {
			continue
		}
		state := word(states[:], o.State)
		if state == "" {
			state = states[presence.Offline]
		}
		reply.Occupants = append(reply.Occupants, Occupant{
			User: o.User, State: state, Info: Document(o.Info), EnteredAt: o.EnteredAt,
		})
	}
	return reply, nil
}

func (a *API) explain(ctx context.Context, in *explainRequest) (Document, error) {
	app := appOf(ctx)
	down, err := a.call(ctx, &link.Up{
		Shard: link.ShardOf(app, link.KindUser, in.User),
		Body: &link.Up_Ask{Ask: &link.Ask{
			App: app, What: &link.Ask_Explain{Explain: &link.Explain{User: in.User, Watcher: in.Watcher}},
		}},
	})
	if err != nil {
		return nil, err
	}
	answer := down.GetAnswer()
	if answer == nil {
		return nil, wrongAnswer()
	}
	return Document(answer.Json), coreError(answer.Code, answer.Message)
}
