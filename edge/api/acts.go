package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

type statusRequest struct {
	UserPath
	Body struct {
		State string `json:"state" enum:"online,away,dnd,invisible,idle,xa,unavailable,busy,chat" doc:"online ends the status; idle, xa and unavailable mean away, busy means dnd, chat means online"`
		Text  string `json:"text,omitempty" maxLength:"128"`
		Emoji string `json:"emoji,omitempty" doc:"At most 32 bytes"`
		TTLMs int64  `json:"ttl_ms,omitempty" minimum:"0" maximum:"2592000000" doc:"From 10,000; 0: until changed"`
	}
}

type claimRequest struct {
	UserPath
	Body struct {
		ID       string   `json:"id" minLength:"1" maxLength:"64" doc:"Names the claim; setting it again replaces it" example:"shift-7"`
		Source   string   `json:"source,omitempty" enum:"manual,calendar,call,game,api" default:"api" doc:"Decides the priority: manual 90, call 70, calendar and api 50, game 30"`
		State    string   `json:"state,omitempty" enum:"online,away,dnd,idle,xa,unavailable,busy,chat" doc:"Absent: the claim says nothing about the state"`
		Text     string   `json:"text,omitempty" maxLength:"128"`
		Emoji    string   `json:"emoji,omitempty" doc:"At most 32 bytes"`
		Activity Document `json:"activity,omitempty" doc:"A JSON value of at most 2 KiB"`
		Priority *int32   `json:"priority,omitempty" minimum:"0" maximum:"100" doc:"Absent: the source's"`
		TTLMs    int64    `json:"ttl_ms,omitempty" minimum:"0" maximum:"2592000000" doc:"From 10,000; 0: until ended"`
	}
}

type claimPath struct {
	UserPath
	Claim string `path:"claim" minLength:"1" maxLength:"64" doc:"The claim's id"`
}

type disconnectRequest struct {
	UserPath
	Body *disconnectBody
}

type disconnectBody struct {
	DeviceID  string `json:"device_id,omitempty" maxLength:"128" doc:"Only this device"`
	SessionID string `json:"session_id,omitempty" maxLength:"128" doc:"Only this session"`
	Reason    string `json:"reason,omitempty" maxLength:"64" doc:"Told to the client"`
	Code      uint32 `json:"code,omitempty" minimum:"4000" maximum:"4999" default:"4505" doc:"Close code; below 4500 the client reconnects"`
}

type revokeRequest struct {
	UserPath
	Body *revokeBody
}

type revokeBody struct {
	Before int64  `json:"before,omitempty" minimum:"0" doc:"Refuse the user's tokens issued (iat) before this Unix second; tokens without iat are always refused then"`
	JTI    string `json:"jti,omitempty" maxLength:"128" doc:"Refuse this token only"`
	Until  int64  `json:"until,omitempty" minimum:"0" doc:"With jti: the token's exp, in Unix seconds, after which the revocation is forgotten; default in 30 days"`
}

func (a *API) acts() {
	user := []string{"user"}
	handle(a, huma.Operation{
		OperationID: "set-status", Method: http.MethodPost, Path: "/v1/users/{id}/status", Tags: user,
		Summary: "Set or end a user's status", Description: "The status is the claim \"manual\". Any state but invisible makes an invisible user visible again.",
	}, a.setStatus)
	handle(a, huma.Operation{
		OperationID: "set-claim", Method: http.MethodPost, Path: "/v1/users/{id}/claims", Tags: user,
		Summary: "Set a claim: a status from one of many sources", Description: "At most 8 per user; the highest priority wins, then the newest. It belongs to the user, not to a session.",
	}, a.setClaim)
	handle(a, huma.Operation{
		OperationID: "end-claim", Method: http.MethodDelete, Path: "/v1/users/{id}/claims/{claim}", Tags: user,
		Summary: "End a claim",
	}, a.endClaim)
	handle(a, huma.Operation{
		OperationID: "disconnect", Method: http.MethodPost, Path: "/v1/users/{id}/disconnect", Tags: user,
		Summary: "End sessions of a user at once", Description: "All, those of a device, or one. There is no grace: watchers see it at once. The user may connect again unless its token is revoked.",
	}, a.disconnect)
	handle(a, huma.Operation{
		OperationID: "revoke", Method: http.MethodPost, Path: "/v1/users/{id}/revoke", Tags: user,
		Summary: "Revoke tokens of a user", Description: "Those issued before a time, or one by its jti; without either all issued until now. Sessions that came with them end.",
	}, a.revoke)
}

// claimStates are the states a claim may name. invisible is not one: it is a flag.
var claimStates = map[string]presence.State{
	"": presence.Offline, "online": presence.Online, "chat": presence.Online,
	"away": presence.Away, "idle": presence.Away, "xa": presence.Away, "unavailable": presence.Away,
	"dnd": presence.DND, "busy": presence.DND,
}

const minTTL = 10_000

// checkTTL knows the lower bound; the upper one is in the schema.
func checkTTL(ms int64) error {
	if ms != 0 && ms < minTTL {
		return badRequest("body.ttl_ms: want 0 (no end) or at least %d", minTTL)
	}
	return nil
}

func (a *API) setStatus(ctx context.Context, in *statusRequest) (empty, error) {
	if len(in.Body.Emoji) > wire.MaxEmoji {
		return empty{}, badRequest("body.emoji: more than %d bytes", wire.MaxEmoji)
	}
	if err := checkTTL(in.Body.TTLMs); err != nil {
		return empty{}, err
	}
	hide := in.Body.State == "invisible"
	if hide { // first, so that nothing of what follows is seen
		if err := a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Invisible{Invisible: true}}); err != nil {
			return empty{}, err
		}
		if in.Body.Text == "" && in.Body.Emoji == "" {
			return empty{}, nil
		}
	}
	state := claimStates[in.Body.State]
	if hide {
		state = presence.Online
	}
	claim := &link.Claim{
		Id: "manual", Source: "manual", State: uint32(state), Text: in.Body.Text, Emoji: in.Body.Emoji,
		Priority: -1, TtlMs: in.Body.TTLMs, Durable: true,
	}
	if err := a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Claim{Claim: claim}}); err != nil || hide {
		return empty{}, err
	}
	// Last, so that a user that shows up again shows the new status at once.
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Invisible{Invisible: false}})
}

func (a *API) setClaim(ctx context.Context, in *claimRequest) (empty, error) {
	b := &in.Body
	if len(b.Emoji) > wire.MaxEmoji {
		return empty{}, badRequest("body.emoji: more than %d bytes", wire.MaxEmoji)
	}
	if len(b.Activity) > wire.MaxActivity {
		return empty{}, badRequest("body.activity: more than %d bytes", wire.MaxActivity)
	}
	if err := checkTTL(b.TTLMs); err != nil {
		return empty{}, err
	}
	priority := int32(-1)
	if b.Priority != nil {
		priority = *b.Priority
	}
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Claim{Claim: &link.Claim{
		Id: b.ID, Source: b.Source, State: uint32(claimStates[b.State]), Text: b.Text, Emoji: b.Emoji,
		Activity: string(b.Activity), Priority: priority, TtlMs: b.TTLMs, Durable: true,
	}}})
}

func (a *API) endClaim(ctx context.Context, in *claimPath) (empty, error) {
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_EndClaim{EndClaim: in.Claim}})
}

func (a *API) disconnect(ctx context.Context, in *disconnectRequest) (empty, error) {
	b := or(in.Body)
	if b.DeviceID != "" && b.SessionID != "" {
		return empty{}, badRequest("body: give device_id or session_id, not both")
	}
	code := b.Code
	if code == 0 {
		code = uint32(wire.CloseRevoked)
	}
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Kick{Kick: &link.Kick{
		Device: b.DeviceID, Session: b.SessionID, Reason: b.Reason, Close: code,
	}}})
}

// or is the body of a request that needs none.
func or[T any](body *T) *T {
	if body == nil {
		return new(T)
	}
	return body
}

const forgetJTI = 30 * 24 * time.Hour

func (a *API) revoke(ctx context.Context, in *revokeRequest) (empty, error) {
	b, now := or(in.Body), a.cfg.Now()
	r := &link.Revoke{Before: b.Before, Jti: b.JTI, Until: b.Until}
	switch {
	case b.Before > 0 && b.JTI != "":
		return empty{}, badRequest("body: give before or jti, not both")
	case b.Until > 0 && b.JTI == "":
		return empty{}, badRequest("body.until: goes with jti")
	case b.Before > now.Add(time.Minute).Unix():
		return empty{}, badRequest("body.before: lies ahead (want Unix seconds, as in iat)")
	case b.Until > 0 && b.Until <= now.Unix():
		return empty{}, badRequest("body.until: has passed (want Unix seconds, as in exp)")
	case b.JTI != "" && b.Until == 0:
		r.Until = now.Add(forgetJTI).Unix()
	case b.JTI == "" && b.Before == 0:
		r.Before = now.Unix() + 1 // iat has whole seconds: this one's too
	}
	return empty{}, a.act(ctx, &link.Act{User: in.ID, What: &link.Act_Revoke{Revoke: r}})
}
