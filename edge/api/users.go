package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
)

// UserPath is the path of a call about one user.
type UserPath struct {
	ID string `path:"id" doc:"The user" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" patternDescription:"an id of 1 to 128 of A-Z a-z 0-9 . _ @ + = -" example:"alice"`
}

type presenceRequest struct {
	Body struct {
		Users []string `json:"users" minItems:"1" maxItems:"1000" doc:"Ids of users; each is answered once" nullable:"false"`
	}
}

type presenceReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Presences []Presence `json:"presences" doc:"In the order asked for" nullable:"false"`
}

// User is what is known of one user.
type User struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Presence
	Sessions Document `json:"sessions,omitempty" doc:"The user's sessions, live ones and those in grace"`
}

func (a *API) users() {
	handle(a, huma.Operation{
		OperationID: "presence", Method: http.MethodPost, Path: "/v1/presence", Tags: []string{"presence"},
		Summary:     "Presence of up to 1,000 users",
		Description: "One item per user asked for. A user that is not known is offline; one whose shard cannot say now is unknown; an id that is not valid has an error.",
	}, a.presences)
	handle(a, huma.Operation{
		OperationID: "user", Method: http.MethodGet, Path: "/v1/users/{id}", Tags: []string{"presence"},
		Summary: "Presence and sessions of one user",
	}, a.user)
}

func (a *API) presences(ctx context.Context, in *presenceRequest) (presenceReply, error) {
	app := appOf(ctx)
	at := make(map[string]int, len(in.Body.Users)) // position of each user in the reply
	reply := presenceReply{Presences: make([]Presence, 0, len(in.Body.Users))}
	byShard := map[uint32][]string{}
	var shards []uint32
	for _, user := range in.Body.Users {
		if _, twice := at[user]; twice {
			continue
		}
		at[user] = len(reply.Presences)
		p := Presence{User: user, State: unknown}
		if !wire.ValidID(user) {
			p.Error = badRequest("not an id: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -")
		} else {
			shard := link.ShardOf(app, link.KindUser, user)
			if byShard[shard] == nil {
				shards = append(shards, shard)
			}
			byShard[shard] = append(byShard[shard], user)
		}
		reply.Presences = append(reply.Presences, p)
	}
	eachShard(shards, func(shard uint32) {
		down, err := a.call(ctx, &link.Up{
			Shard: shard,
			Body:  &link.Up_Query{Query: &link.Query{App: app, Users: byShard[shard]}},
		})
		if err != nil || down.GetViews() == nil {
			return // these users stay unknown
		}
		for _, row := range down.GetViews().Rows {
			// Only what was asked: rows of two shards never meet in one place.
			if i, ok := at[row.User]; ok && link.ShardOf(app, link.KindUser, row.User) == shard {
				reply.Presences[i] = present(down.Term, row)
			}
		}
	})
	return reply, nil
}

func (a *API) user(ctx context.Context, in *UserPath) (User, error) {
	app := appOf(ctx)
	down, err := a.call(ctx, &link.Up{
		Shard: link.ShardOf(app, link.KindUser, in.ID),
		Body:  &link.Up_Ask{Ask: &link.Ask{App: app, What: &link.Ask_User{User: in.ID}}},
	})
	if err != nil {
		return User{Presence: Presence{User: in.ID, State: unknown}}, nil
	}
	answer := down.GetAnswer()
	if answer == nil {
		return User{}, wrongAnswer()
	}
	if settling(answer.Code) {
		return User{Presence: Presence{User: in.ID, State: unknown}}, nil
	}
	if err := coreError(answer.Code, answer.Message); err != nil {
		return User{}, err
	}
	out := User{Presence: Presence{User: in.ID, State: unknown}, Sessions: Document(answer.Json)}
	for _, row := range answer.Rows {
		if row.User == in.ID {
			out.Presence = present(down.Term, row)
		}
	}
	return out, nil
}

// settling reports whether a shard says that it cannot say.
func settling(code link.Code) bool {
	return code == link.Code_MOVING || code == link.Code_UNAVAILABLE || code == link.Code_BUSY
}
