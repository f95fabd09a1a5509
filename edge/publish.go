package edge

import (
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/publish"
)

// publishFor is how long a publish is tried again, with the same client id, before the client is told to.
const publishFor = 10_000 // ms

// publishing is a publish on its way to the shard of the user whose outbox it is for.
type publishing struct {
	s       *socket
	id      uint64 // of the command
	user    string
	publish *link.Publish
	tries   int
	until   int64 // clock ms
}

func (h *hub) commandPublish(s *socket, c *wire.Command, m *wire.Publish) {
	if !wire.ValidID(m.User) {
		s.refuse(c.Id, wire.CodeBadRequest, "publish.user: "+wantID, 0)
		return
	}
	draft := publish.Draft{
		Sender: s.who.key.User, ClientID: m.ClientId, Body: m.Body, Class: m.Class, TTLMs: m.TtlMs,
		Collapse: m.CollapseKey, AckMode: m.AckMode,
	}
	p, fault := draft.Publish()
	if fault != nil {
		s.refuse(c.Id, fault.Code, "publish."+fault.Error(), 0)
		return
	}
	to := presence.Key{App: s.who.key.App, User: m.User}
	h.pass(h.edge.hubOf(userShard(to)), &publishing{
		s: s, id: c.Id, user: m.User, publish: p, until: h.edge.clock() + publishFor,
	})
}

// publishHere sends a publish to its shard once.
func (h *hub) publishHere(p *publishing) {
	if p.s.phase() >= closing {
		return // nobody is left to be told
	}
	p.tries++
	key := presence.Key{App: p.s.who.key.App, User: p.user}
	call := h.expect(userShard(key), long, func(d *link.Down) { h.published(p, d) })
	h.upSoon(userShard(key), call, &link.Up{Body: &link.Up_Act{Act: &link.Act{
		Call: call, App: key.App, User: key.User, What: &link.Act_Publish{Publish: p.publish},
	}}})
}

// published answers the client, or tries again while it is not known what became of the entry.
func (h *hub) published(p *publishing, d *link.Down) {
	s, v := p.s, d.GetActed()
	switch {
	case v == nil || publish.Unsettled(v.Code):
		pause := publish.Pause(p.tries)
		if next := pause + h.edge.cfg.AttachTimeout; h.edge.clock()+next.Milliseconds() < p.until {
			h.edge.count.retried.Add(1)
			time.AfterFunc(pause, func() { h.tell(p) })
			return
		}
		s.refuse(p.id, wire.CodeMoving, "it is not known whether the entry is stored: send it again with the same client_id", retryMoving)
	case v.Code != link.Code_OK:
		s.refuseWith(p.id, v.Code, v.Message)
	case p.id != 0:
		s.send(&wire.Reply{Id: p.id, Body: &wire.Reply_Publish{Publish: &wire.PublishReply{
			ClientId: p.publish.ClientId, At: millis(v.GetPublished().GetAt()),
		}}})
	}
}
