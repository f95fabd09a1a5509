package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge/publish"
)

// publishFor is how long a publish is tried again, with the same client id, while its outcome is not known.
const publishFor = 10 * time.Second

type publishRequest struct {
	Body struct {
		Users       []string `json:"users" minItems:"1" maxItems:"1000" doc:"Into whose outboxes" nullable:"false"`
		ClientID    string   `json:"client_id" doc:"A UUIDv7 or ULID. The same id again within 24 h is the same entry, for each user by itself" example:"0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e55"`
		Body        Document `json:"body" doc:"A JSON value of at most 16 KiB"`
		Class       string   `json:"class,omitempty" enum:"critical,normal,presence" default:"normal"`
		TTLMs       uint64   `json:"ttl_ms,omitempty" maximum:"2592000000" doc:"From 10,000; 0: the server's, 7 days"`
		CollapseKey string   `json:"collapse_key,omitempty" maxLength:"64" doc:"Replaces an older entry with the same key that no device has acked"`
		AckMode     string   `json:"ack_mode,omitempty" enum:"each_device,any_device" default:"each_device" doc:"any_device: the first ack is enough"`
	}
}

// Published is what became of an entry for one user.
type Published struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User      string `json:"user"`
	Epoch     string `json:"epoch,omitempty" doc:"Of the user's outbox"`
	Offset    uint64 `json:"offset,omitempty" doc:"In the user's outbox"`
	At        int64  `json:"at,omitempty" doc:"Unix ms when it was stored"`
	Duplicate bool   `json:"duplicate,omitempty" doc:"It was stored before, under the same client_id"`
	Error     *Error `json:"error,omitempty" doc:"Absent: it is stored for good"`
}

type publishReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Results []Published `json:"results" doc:"One per user, in the order given" nullable:"false"`
}

func (a *API) publishing() {
	handle(a, huma.Operation{
		OperationID: "publish", Method: http.MethodPost, Path: "/v1/publish", Tags: []string{"outbox"},
		Summary: "Put an entry into the outboxes of up to 1,000 users",
		Description: "A result without an error says that the entry is stored for good. While a shard moves, the entry is tried again for some seconds; " +
			"after MOVING or NOT_READY nobody knows: send the same client_id again.",
	}, a.publish)
}

func (a *API) publish(ctx context.Context, in *publishRequest) (publishReply, error) {
	b := &in.Body
	draft := publish.Draft{
		ClientID: b.ClientID, Body: string(b.Body), Class: b.Class, TTLMs: b.TTLMs, Collapse: b.CollapseKey, AckMode: b.AckMode,
	}
	p, fault := draft.Publish()
	if fault != nil {
		return publishReply{}, fail(fault.Code, 0, "body.%s", fault)
	}
	reply := publishReply{Results: make([]Published, len(b.Users))}
	seen := map[string]bool{}
	for i, user := range b.Users {
		reply.Results[i].User = user
		switch {
		case !wire.ValidID(user):
			reply.Results[i].Error = badRequest("not an id: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -")
		case seen[user]:
			return publishReply{}, badRequest("body.users[%d]: %s is named twice", i, user)
		}
		seen[user] = true
	}
	parallel(len(reply.Results), func(i int) {
		if r := &reply.Results[i]; r.Error == nil {
			a.publishTo(ctx, r, p)
		}
	})
	return reply, nil
}

// publishTo puts an entry into one outbox.
func (a *API) publishTo(ctx context.Context, r *Published, p *link.Publish) {
	until := time.Now().Add(publishFor)
	for try := 1; ; try++ {
		v, err := a.acted(ctx, &link.Act{User: r.User, What: &link.Act_Publish{Publish: p}})
		if err == nil && v.Code == link.Code_OK {
			r.Epoch, r.Offset = publish.EpochWord(v.GetPublished().GetEpoch()), v.GetPublished().GetOffset()
			r.At, r.Duplicate = v.GetPublished().GetAt(), v.GetPublished().GetDuplicate()
			return
		}
		if err == nil && !publish.Unsettled(v.Code) {
			r.Error = callError(coreError(v.Code, v.Message))
			return
		}
		if err != nil {
			if r.Error = callError(err); !r.Error.Retryable {
				return
			}
		} else {
			r.Error = callError(coreError(v.Code, v.Message))
		}
		pause := publish.Pause(try)
		if ctx.Err() != nil || time.Now().Add(pause).After(until) {
			r.Error.Message = "it is not known whether the entry is stored: send it again with the same client_id"
			return
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		r.Error = nil
	}
}
