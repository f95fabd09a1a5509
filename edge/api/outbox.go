package api

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/edge/publish"
)

type purgeReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Epoch string `json:"epoch" doc:"The new one"`
}

func (a *API) outboxes() {
	handle(a, huma.Operation{
		OperationID: "outbox", Method: http.MethodGet, Path: "/v1/users/{id}/outbox", Tags: []string{"outbox"},
		Summary: "State of a user's outbox", Description: "Epoch, newest and oldest offset, what waits, and how far each registered device has got. For humans: its fields may change.",
	}, a.outbox)
	handle(a, huma.Operation{
		OperationID: "purge-outbox", Method: http.MethodPost, Path: "/v1/users/{id}/outbox/purge", Tags: []string{"outbox"},
		Summary: "Drop all entries of a user's outbox", Description: "It goes on under a new epoch: the devices are told that their position is void (reset).",
	}, a.purge)
	handle(a, huma.Operation{
		OperationID: "erase-user", Method: http.MethodDelete, Path: "/v1/users/{id}", Tags: []string{"user"},
		Summary: "Erase all that is stored of a user",
		Description: "Its sessions end; outbox, devices, relations, rules and claims go, and others forget it as a contact. Its revocations stay, so that old tokens " +
			"do not bring it back. It may be repeated safely.",
	}, a.erase)
}

func (a *API) outbox(ctx context.Context, in *userRequest) (Document, error) {
	answer, err := a.ask(ctx, in.ID, &link.Ask{Linearizable: in.Linearizable, What: &link.Ask_Outbox{Outbox: in.ID}})
	if err != nil {
		return nil, err
	}
	return Document(answer.Json), nil
}

func (a *API) purge(ctx context.Context, in *UserPath) (purgeReply, error) {
	epoch := a.cfg.NewEpoch()
	return purgeReply{Epoch: publish.EpochWord(epoch)}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Purge{Purge: epoch}})
}

// newEpoch is at random, and never 0, which means none.
func newEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return max(binary.BigEndian.Uint64(b[:]), 1)
}

func (a *API) erase(ctx context.Context, in *UserPath) (empty, error) {
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Erase{Erase: true}})
}
