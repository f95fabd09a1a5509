package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
)

// UserPath is the path of a call about one user.
type UserPath struct {
	ID string `path:"id" doc:"The user" pattern:"^[A-Za-z0-9._@+=-]{1,128}$" patternDescription:"an id of 1 to 128 of A-Z a-z 0-9 . _ @ + = -" example:"alice"`
}

// Freshness is how new the answer of a read must be.
type Freshness struct {
	Linearizable bool `query:"linearizable" doc:"Answer only when the shard's leader has made sure that it still leads, so that nothing acknowledged before is missing; it costs a round between the cores. Else an error that can be retried"`
}

type userRequest struct {
	UserPath
	Freshness
}

type presenceRequest struct {
	Freshness
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
	Sessions []Session `json:"sessions,omitempty" doc:"Live ones, and those that were lost while they can be resumed" nullable:"false"`
}

// Session is a device's logical connection.
type Session struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	SessionID     string `json:"session_id"`
	DeviceID      string `json:"device_id"`
	Class         string `json:"class" enum:"unspecified,desktop,mobile,web,tv,bot"`
	Phase         string `json:"phase" enum:"live,grace,resumable,presumed" doc:"grace: lost, still shown; resumable: no longer shown; presumed: not heard of since its node died"`
	Node          string `json:"node,omitempty" doc:"The node that holds or held its socket"`
	Client        string `json:"client,omitempty" doc:"What the client calls itself"`
	Away          bool   `json:"away,omitempty"`
	LastActiveAt  int64  `json:"last_active_at,omitempty" doc:"Unix ms, to the minute"`
	DetachedAt    int64  `json:"detached_at,omitempty" doc:"Unix ms"`
	DetachCause   string `json:"detach_cause,omitempty"`
	GraceEndsAt   int64  `json:"grace_ends_at,omitempty" doc:"Unix ms when it stops being shown"`
	ResumableTill int64  `json:"resumable_until_at,omitempty" doc:"Unix ms"`
}

// coreSession is a session in the words of the core, which writes for explain.
type coreSession struct {
	Session    string    `json:"session"`
	Device     string    `json:"device"`
	Class      string    `json:"class"`
	Client     string    `json:"client"`
	Edge       string    `json:"edge"`
	Phase      string    `json:"phase"`
	Away       bool      `json:"away"`
	LastActive time.Time `json:"last_active"`
	Cause      string    `json:"cause"`
	DetachedAt time.Time `json:"detached_at"`
	GraceEnd   time.Time `json:"grace_end"`
	ResumeEnd  time.Time `json:"resume_end"`
}

func sessions(doc string) ([]Session, error) {
	var list []coreSession
	if doc == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(doc), &list); err != nil {
		return nil, wrongAnswer()
	}
	out := make([]Session, len(list))
	for i, s := range list {
		if !slices.Contains(classes[:], s.Class) {
			s.Class = classes[0]
		}
		out[i] = Session{
			SessionID: s.Session, DeviceID: s.Device, Class: s.Class, Phase: s.Phase, Node: s.Edge, Client: s.Client, Away: s.Away,
			LastActiveAt: millis(s.LastActive), DetachedAt: millis(s.DetachedAt), DetachCause: s.Cause,
			GraceEndsAt: millis(s.GraceEnd), ResumableTill: millis(s.ResumeEnd),
		}
	}
	return out, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
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
			Body:  &link.Up_Query{Query: &link.Query{App: app, Users: byShard[shard], Linearizable: in.Linearizable}},
		})
		if in.Linearizable {
			for _, user := range byShard[shard] {
				reply.Presences[at[user]].Error = unconfirmed()
			}
		}
		if err != nil || down.GetViews() == nil {
			return // these users stay unknown
		}
		for _, row := range down.GetViews().Rows {
			// Only what was asked: rows of two shards never meet in one place.
			i, ok := at[row.User]
			if !ok || link.ShardOf(app, link.KindUser, row.User) != shard || row.Pending {
				continue
			}
			reply.Presences[i] = present(down.Term, row)
		}
	})
	return reply, nil
}

func (a *API) user(ctx context.Context, in *userRequest) (User, error) {
	app := appOf(ctx)
	down, err := a.call(ctx, &link.Up{
		Shard: link.ShardOf(app, link.KindUser, in.ID),
		Body:  &link.Up_Ask{Ask: &link.Ask{App: app, Linearizable: in.Linearizable, What: &link.Ask_User{User: in.ID}}},
	})
	if err != nil {
		return unsaid(in)
	}
	answer := down.GetAnswer()
	if answer == nil {
		return User{}, wrongAnswer()
	}
	if settling(answer.Code) {
		return unsaid(in)
	}
	if err := coreError(answer.Code, answer.Message); err != nil {
		return User{}, err
	}
	out := User{Presence: Presence{User: in.ID, State: unknown}}
	if out.Sessions, err = sessions(answer.Json); err != nil {
		return User{}, err
	}
	for _, row := range answer.Rows {
		if row.User == in.ID && row.Pending && in.Linearizable {
			return User{}, unconfirmed()
		}
		if row.User == in.ID {
			out.Presence = present(down.Term, row)
		}
	}
	return out, nil
}

// unsaid is a user of whom the shard cannot say anything now: unknown, but an error if it had to be certain.
func unsaid(in *userRequest) (User, error) {
	if in.Linearizable {
		return User{}, unconfirmed()
	}
	return User{Presence: Presence{User: in.ID, State: unknown}}, nil
}

// settling reports whether a shard says that it cannot say.
func settling(code link.Code) bool {
	return code == link.Code_MOVING || code == link.Code_UNAVAILABLE || code == link.Code_BUSY
}
