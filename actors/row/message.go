package row

import (
	"fmt"
	"time"

	"muster/actors/presence"
)

func claimOf(h *presence.HeldClaim) *Claim {
	c := &h.Claim
	return &Claim{Id: c.ID, Source: c.Source, State: uint32(c.State), Text: c.Text, Emoji: c.Emoji, Activity: c.Activity,
		Priority: int32(c.Priority), Ttl: int64(c.TTL), Durable: c.Durable, Until: ms(h.Until), At: ms(h.At)}
}

func (c *Claim) held() presence.HeldClaim {
	return presence.HeldClaim{Until: instant(c.GetUntil()), At: instant(c.GetAt()), Claim: presence.Claim{ID: c.GetId(), Source: c.GetSource(),
		State: presence.State(c.GetState()), Text: c.GetText(), Emoji: c.GetEmoji(), Activity: c.GetActivity(),
		Priority: int(c.GetPriority()), TTL: time.Duration(c.GetTtl()), Durable: c.GetDurable()}}
}

func invisibleOf(r *presence.InvisibleSet) *Invisible {
	m := &Invisible{LastSeen: ms(r.LastSeen)}
	for i := range r.Claims {
		m.Claims = append(m.Claims, claimOf(&r.Claims[i]))
	}
	return m
}

func (m *Invisible) record() presence.InvisibleSet {
	r := presence.InvisibleSet{On: true, LastSeen: instant(m.GetLastSeen())}
	for _, c := range m.GetClaims() {
		r.Claims = append(r.Claims, c.held())
	}
	return r
}

func audienceOf(r *presence.RulesSet) *Audience {
	m := &Audience{}
	for _, f := range r.Rules {
		m.Rules = append(m.Rules, &Audience_Rule{Field: uint32(f.Field), Rule: uint32(f.Rule), Users: f.Users})
	}
	for _, t := range r.Grants {
		m.Grants = append(m.Grants, &Audience_Grant{To: t.To, Fields: uint32(t.Fields), Until: ms(t.Until)})
	}
	return m
}

func (m *Audience) record() presence.RulesSet {
	var r presence.RulesSet
	for _, f := range m.GetRules() {
		r.Rules = append(r.Rules, presence.FieldRule{Field: presence.Mask(f.GetField()), Rule: presence.Rule(f.GetRule()), Users: f.GetUsers()})
	}
	for _, t := range m.GetGrants() {
		r.Grants = append(r.Grants, presence.HeldGrant{To: t.GetTo(), Fields: presence.Mask(t.GetFields()), Until: instant(t.GetUntil())})
	}
	return r
}

func revokedOf(r *presence.Revocations) *Revoked {
	m := &Revoked{Before: r.Before}
	for _, t := range r.Tokens {
		m.Tokens = append(m.Tokens, &Revoked_Token{Jti: t.JTI, Until: t.Until})
	}
	return m
}

func (m *Revoked) record() presence.Revocations {
	r := presence.Revocations{Before: m.GetBefore()}
	for _, t := range m.GetTokens() {
		r.Tokens = append(r.Tokens, presence.RevokedJTI{JTI: t.GetJti(), Until: t.GetUntil()})
	}
	return r
}

func senderOf(r *presence.SenderSet) *Sender {
	m := &Sender{Floor: r.Floor[:], Offset: r.Offset}
	for _, h := range r.Hours {
		m.Hours, m.Rows = append(m.Hours, h.Hour), append(m.Rows, uint32(h.Rows))
	}
	return m
}

func (m *Sender) record(sender string) (presence.SenderSet, error) {
	r := presence.SenderSet{Sender: sender, Offset: m.GetOffset()}
	if copy(r.Floor[:], m.GetFloor()) != len(r.Floor) || len(m.GetHours()) != len(m.GetRows()) {
		return r, errShort
	}
	for i, h := range m.GetHours() {
		r.Hours = append(r.Hours, presence.HourCount{Hour: h, Rows: uint16(m.GetRows()[i])})
	}
	return r, nil
}

// Stored is a transfer as the source shard keeps it.
type Stored struct {
	App, From, To string
	At            time.Time
	What          presence.Transferred
}

// EncodeTransfer is the value of a transfer.
func EncodeTransfer(t *Stored) []byte {
	m := &Transfer{App: t.App, From: t.From, To: t.To, At: ms(t.At)}
	switch w := t.What.(type) {
	case presence.Handshake:
		m.What, m.Serial = &Transfer_Stanza{Stanza: uint32(w.Stanza)}, w.Serial
	case presence.BlockedBy:
		m.What = &Transfer_BlockedBy{BlockedBy: w.On}
	case presence.NotifyWhen:
		m.What = &Transfer_NotifyWhen{NotifyWhen: &NotifyWhen{User: w.User, Ttl: int64(w.TTL), End: w.End, Hidden: uint32(w.Hidden)}}
	case presence.Publish:
		m.What = &Transfer_Publish{Publish: &Publish{Type: uint32(w.Type), Sender: w.Sender, Id: w.ID[:], ClientId: w.ClientID, Body: w.Body,
			Digest: w.Digest, Class: uint32(w.Class), Ttl: int64(w.TTL), Collapse: w.Collapse, AnyDevice: w.AnyDevice}}
	case presence.Erased:
		m.What = &Transfer_Erased{Erased: true}
	}
	return encode(m)
}

// DecodeTransfer reads a transfer.
func DecodeTransfer(v []byte) (*Stored, error) {
	var m Transfer
	if err := decode(v, &m); err != nil {
		return nil, err
	}
	t := &Stored{App: m.App, From: m.From, To: m.To, At: instant(m.At)}
	switch w := m.What.(type) {
	case *Transfer_Stanza:
		t.What = presence.Handshake{Stanza: presence.ContactStanza(w.Stanza), Serial: m.Serial}
	case *Transfer_BlockedBy:
		t.What = presence.BlockedBy{On: w.BlockedBy}
	case *Transfer_NotifyWhen:
		n := w.NotifyWhen
		t.What = presence.NotifyWhen{User: n.GetUser(), TTL: time.Duration(n.GetTtl()), End: n.GetEnd(), Hidden: presence.Mask(n.GetHidden())}
	case *Transfer_Publish:
		p := w.Publish
		out := presence.Publish{Type: presence.EntryType(p.GetType()), Sender: p.GetSender(), ClientID: p.GetClientId(), Body: p.GetBody(),
			Digest: p.GetDigest(), Class: presence.Urgency(p.GetClass()), TTL: time.Duration(p.GetTtl()), Collapse: p.GetCollapse(), AnyDevice: p.GetAnyDevice()}
		copy(out.ID[:], p.GetId())
		t.What = out
	case *Transfer_Erased:
		t.What = presence.Erased{}
	default:
		return nil, fmt.Errorf("%w: a transfer of nothing", errShort)
	}
	return t, nil
}

// StoredEvent is an event with its subject.
type StoredEvent struct {
	Key        presence.Key
	Event      presence.Event
	Generation uint64 // of the shard
}

// EncodeEvent is the value of an event or a letter.
func EncodeEvent(e *StoredEvent) []byte {
	return encode(&Event{App: e.Key.App, User: e.Key.User, Type: e.Event.Type, At: ms(e.Event.At), Json: e.Event.JSON, Generation: e.Generation})
}

// DecodeEvent reads an event or a letter.
func DecodeEvent(v []byte) (*StoredEvent, error) {
	var m Event
	if err := decode(v, &m); err != nil {
		return nil, err
	}
	return &StoredEvent{presence.Key{App: m.App, User: m.User}, presence.Event{Type: m.Type, At: instant(m.At), JSON: m.Json}, m.Generation}, nil
}
