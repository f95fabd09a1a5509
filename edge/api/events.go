package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/clients/wire"
)

// Replayer is the webhook's dispatcher.
type Replayer interface {
	// Replay sends the events of a shard after seq again. It is an error if who leads the shard cannot be asked.
	Replay(ctx context.Context, shard uint32, seq uint64) error
}

// Event is one thing that happened to a user.
type Event struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	EventID string   `json:"event_id" doc:"The same for ever: drop what you have seen" example:"12-1-345"`
	Type    string   `json:"type" example:"user.online"`
	User    string   `json:"user" doc:"Whom it is about"`
	At      int64    `json:"at" doc:"Unix ms"`
	Seq     uint64   `json:"seq" doc:"Rises with each event of the same user, with steps"`
	Data    Document `json:"data,omitempty" doc:"By type"`
}

type eventsRequest struct {
	Cursor string   `query:"cursor" maxLength:"1800" doc:"The cursor of the answer before; now: from now on; absent: from the oldest event kept"`
	Limit  int      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Events in an answer"`
	Types  []string `query:"types" maxItems:"20" doc:"Only these types, with commas between them" nullable:"false"`
}

type eventsReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Events   []Event `json:"events" doc:"Those of one user are in order" nullable:"false"`
	Cursor   string  `json:"cursor" doc:"Ask with it for what comes after"`
	More     bool    `json:"more,omitempty" doc:"There is more already"`
	Missed   bool    `json:"missed,omitempty" doc:"Events after the cursor you gave are no longer kept, or history was lost: what you have built from events is not exact any more"`
	Complete bool    `json:"complete" doc:"false: some shards could not answer; their events come later, with this cursor"`
}

type deadRequest struct {
	Cursor string `query:"cursor" maxLength:"1800" doc:"The cursor of the answer before; absent: from the oldest event kept"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Events in an answer"`
}

type deadReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Events   []Event `json:"events" nullable:"false"`
	Cursor   string  `json:"cursor" doc:"Ask with it for what comes after"`
	Replay   string  `json:"replay,omitempty" doc:"Give it to /v1/events/replay to have these sent again"`
	More     bool    `json:"more,omitempty" doc:"There is more already"`
	Complete bool    `json:"complete" doc:"false: some shards could not answer; their events come later, with this cursor"`
}

type replayRequest struct {
	Body struct {
		Cursor string `json:"cursor" maxLength:"1800" doc:"A cursor of /v1/events, or replay of /v1/events/dead: what comes after it is sent again"`
	}
}

type replayReply struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	Shards   int  `json:"shards" doc:"How many go back"`
	Complete bool `json:"complete" doc:"false: some shards could not; repeat the call"`
}

func (a *API) events() {
	tag := []string{"events"}
	handle(a, huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/v1/events", Tags: tag,
		Summary: "What happened, from a cursor on",
		Description: "The stream behind the webhooks. Reading it changes nothing: any number of readers may go on from cursors of their own. " +
			"With Accept: text/event-stream it does not end: each event comes as it happens, the id of the last of a batch is the cursor, " +
			"Last-Event-ID goes on from there, and an event \"missed\" says what missed says here.",
	}, a.listEvents)
	handle(a, huma.Operation{
		OperationID: "dead-events", Method: http.MethodGet, Path: "/v1/events/dead", Tags: tag,
		Summary: "Events that the webhook refused for good",
	}, a.deadEvents)
	handle(a, huma.Operation{
		OperationID: "replay-events", Method: http.MethodPost, Path: "/v1/events/replay", Tags: tag,
		Summary:     "Have the webhook sent all events after a cursor again",
		Description: "With their old event_id; a shard that has not got that far stays where it is. Of all apps, so the key must not be bound to one.",
	}, a.replay)
}

// fetched is what one shard has to give.
type fetched struct {
	shard  uint32
	place  place
	events []*link.Event
	more   bool
	missed bool
	ok     bool
}

// eventsAfter asks one shard for events after a place.
func (a *API) eventsAfter(ctx context.Context, shard uint32, from place, limit int) (f fetched) {
	f = fetched{shard: shard, place: from}
	ask := func(after uint64) *link.Answer {
		down, err := a.call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{
			App: appOf(ctx), What: &link.Ask_Events{Events: &link.EventsPage{After: after, Limit: uint32(limit)}},
		}}})
		if answer := down.GetAnswer(); err == nil && answer.GetCode() == link.Code_OK {
			return answer
		}
		return nil
	}
	answer := ask(from.seq)
	if answer == nil {
		return f
	}
	was := from
	if known, lost := was.era != 0, was.era != answer.Generation+1; known && (lost || answer.Last != 0 && was.seq > answer.Last) {
		// The shard has lost history: its numbers began again somewhere before.
		f.missed = true
		if answer = ask(0); answer == nil {
			return f
		}
		was.seq = 0
	} else if known && was.seq < answer.Last && (answer.First == 0 || answer.First > was.seq+1) {
		f.missed = true
	}
	f.place = place{answer.Generation + 1, was.seq}
	for _, e := range answer.Events {
		if e.Seq > was.seq { // in order, whatever is answered
			was.seq = e.Seq
			f.events = append(f.events, e)
		}
	}
	f.ok, f.more = true, len(f.events) > 0 && (was.seq < answer.Last || len(f.events) >= limit)
	if len(f.events) == 0 {
		f.place.seq = max(f.place.seq, answer.Last) // what is between is no longer kept
	}
	return f
}

// page is a part of the events of all shards.
type page struct {
	events []Event
	at     places
	before places // just before the first event of each shard; of the others nothing
	more   bool
	missed bool
	failed bool
}

// most is how often a page asks again when all it was given is of other apps or types.
const most = 8

// readPage merges the shards' events by time, which keeps the order of each.
func readPage(at places, limit int, wanted func(*link.Event) bool, fetch func(shard uint32, from place, limit int) fetched) page {
	p := page{at: at, events: []Event{}}
	share := min(limit, max(16, limit/8))
	for range most {
		var list [link.Shards]fetched
		p.more = false
		eachShard(allShards, func(shard uint32) { list[shard] = fetch(shard, p.at[shard], share) })
		for i := range list {
			p.missed = p.missed || list[i].missed
			p.failed = p.failed || !list[i].ok
			p.more = p.more || list[i].more
			p.at[i] = list[i].place
		}
		for {
			first := -1
			for i := range list {
				if l := list[i].events; len(l) > 0 && (first < 0 || l[0].At < list[first].events[0].At) {
					first = i
				}
			}
			if first < 0 {
				break
			}
			if len(p.events) == limit {
				p.more = true
				return p
			}
			e := list[first].events[0]
			list[first].events = list[first].events[1:]
			p.at[first].seq = e.Seq
			if wanted(e) {
				if p.before[first].era == 0 {
					p.before[first] = place{e.Generation + 1, e.Seq - 1}
				}
				p.events = append(p.events, eventOf(uint32(first), e))
			}
		}
		if !p.more || len(p.events) > 0 {
			break
		}
	}
	return p
}

func eventOf(shard uint32, e *link.Event) Event {
	return Event{
		EventID: fmt.Sprintf("%d-%d-%d", shard, e.Generation, e.Seq), Type: e.Type, User: e.User, At: e.At, Seq: e.Seq, Data: Document(e.Json),
	}
}

// wanted picks the events of the caller's app, and of some types if any are named.
func (in *eventsRequest) wanted(app string) func(*link.Event) bool {
	types := map[string]bool{}
	for _, t := range in.Types {
		for _, one := range strings.Split(t, ",") {
			types[strings.TrimSpace(one)] = true
		}
	}
	return func(e *link.Event) bool { return e.App == app && (len(types) == 0 || types[e.Type]) }
}

// from is where the reader goes on.
func (in *eventsRequest) from(ctx context.Context, a *API) (places, error) {
	if a.cfg.EventsOff {
		return places{}, errEventsOff
	}
	switch in.Cursor {
	case "":
		return places{}, nil
	case "now":
		return a.newest(ctx)
	}
	return parsePlaces(in.Cursor)
}

var errEventsOff = fail(wire.CodeNotAvailable, 0, "no events are kept: start the server with --events or --webhook")

// newest is a cursor after all that there is. It needs every shard: one that was left out would begin at its oldest.
func (a *API) newest(ctx context.Context) (at places, err error) {
	var mu sync.Mutex
	eachShard(allShards, func(shard uint32) {
		down, callErr := a.call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{
			App: appOf(ctx), What: &link.Ask_Events{Events: &link.EventsPage{After: math.MaxInt64, Limit: 1}},
		}}})
		answer := down.GetAnswer()
		if callErr == nil {
			callErr = coreError(answer.GetCode(), answer.GetMessage())
		}
		mu.Lock()
		defer mu.Unlock()
		if callErr != nil {
			err = callErr
			return
		}
		at[shard] = place{answer.GetGeneration() + 1, answer.GetLast()}
	})
	return at, err
}

func (a *API) listEvents(ctx context.Context, in *eventsRequest) (eventsReply, error) {
	at, err := in.from(ctx, a)
	if err != nil {
		return eventsReply{}, err
	}
	p := readPage(at, in.Limit, in.wanted(appOf(ctx)), func(shard uint32, from place, limit int) fetched {
		return a.eventsAfter(ctx, shard, from, limit)
	})
	return eventsReply{Events: p.events, Cursor: p.at.String(), More: p.more, Missed: p.missed, Complete: !p.failed}, nil
}

// deadEvents reads the letters. They are kept by seq like events, but not all seqs are there.
func (a *API) deadEvents(ctx context.Context, in *deadRequest) (deadReply, error) {
	at := places{}
	if a.cfg.EventsOff {
		return deadReply{}, errEventsOff
	}
	if in.Cursor != "" {
		var err error
		if at, err = parsePlaces(in.Cursor); err != nil {
			return deadReply{}, err
		}
	}
	p := readPage(at, in.Limit, (&eventsRequest{}).wanted(appOf(ctx)), func(shard uint32, from place, limit int) fetched {
		return a.lettersAfter(ctx, shard, from, limit)
	})
	reply := deadReply{Events: p.events, Cursor: p.at.String(), More: p.more, Complete: !p.failed}
	if p.before != (places{}) {
		reply.Replay = p.before.String()
	}
	return reply, nil
}

func (a *API) lettersAfter(ctx context.Context, shard uint32, from place, limit int) (f fetched) {
	f = fetched{shard: shard, place: from}
	down, err := a.call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{
		App: appOf(ctx), What: &link.Ask_Letters{Letters: &link.LettersPage{After: from.seq, Limit: uint32(limit)}},
	}}})
	answer := down.GetAnswer()
	if err != nil || answer == nil || answer.Code != link.Code_OK {
		return f
	}
	f.ok, f.more = true, answer.More && len(answer.Events) > 0
	for _, e := range answer.Events {
		if e.Seq > from.seq {
			from.seq, f.place.era = e.Seq, e.Generation+1
			f.events = append(f.events, e)
		}
	}
	return f
}

func (a *API) replay(ctx context.Context, in *replayRequest) (replayReply, error) {
	if a.cfg.Hooks == nil {
		return replayReply{}, fail(wire.CodeNotAvailable, 0, "there is no webhook (--webhook)")
	}
	if bound, _ := ctx.Value(boundKey{}).(bool); bound {
		return replayReply{}, fail(wire.CodePermissionDenied, 0, "the API key is bound to an app, and the webhook is for all")
	}
	at, err := parsePlaces(in.Body.Cursor)
	if err != nil {
		return replayReply{}, err
	}
	reply := replayReply{Complete: true}
	var mu sync.Mutex
	eachShard(allShards, func(shard uint32) {
		if at[shard].era == 0 {
			return
		}
		err := a.cfg.Hooks.Replay(ctx, shard, at[shard].seq)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			reply.Complete = false
			return
		}
		reply.Shards++
	})
	return reply, nil
}
