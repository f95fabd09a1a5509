package presence

import "time"

// User is the activation of one user. It is not safe for concurrent use. The zero User
// is not valid; use NewUser. With one session and defaults only it takes about 350 bytes.
type User struct {
	cfg      *Config
	sessions []session // oldest first
	more     *extra    // nil for a user with defaults only
	view     *View     // as last published; never nil, shared with the Gateway
	log      []logEntry
	active   int64 // last user input, Unix ms; 0: never
	last     int64 // last seen as others may know it, Unix ms; 0: never
	gone     int64 // last time a conn ended, Unix ms
	since    int64 // when a restored user had come online, Unix ms; 0: unknown
	seen     uint32
	why      Cause // of the last session that ended in this step
	logged   uint8 // log entries of this step
	lost     uint8 // sessions that this step detached without a goodbye
	news     news  // besides a change of the view
}

// news is what the gateway must hear of besides a change of the view.
type news uint8

const (
	noNews    news = iota
	countNews      // sessions or the audience changed, or the user was restored
	selfNews       // what the user sees of itself may have changed, too
)

// extra is what few users have.
type extra struct {
	claims    []claim // oldest first
	cover     *cover  // while invisible
	rules     []FieldRule
	grants    []HeldGrant
	relations relations
	graph     *graph
	revoked   Revocations
	audience  *Audience
	outbox    *outbox
	waiters   []waiter                    // by asker
	serial    uint64                      // of the last request for contact
	ids       recent[sentID, Known]       // client ids
	taken     recent[TransferTaken, Code] // transfers
	restored  bool                        // no step since
	erased    bool                        // by this step
}

// NewUser returns an activation without sessions. lastSeen is what is known of it from
// before (zero: nothing); see Gateway.LastSeen.
func NewUser(cfg *Config, lastSeen time.Time) *User {
	u := &User{cfg: cfg, view: &View{}}
	if !lastSeen.IsZero() {
		u.last = lastSeen.UnixMilli()
		u.view = &View{LastSeen: instant(u.last)}
	}
	return u
}

// Step applies one input at time now and returns what its caller must do.
//
// The caller must, in this order: make out.Records durable, deliver out.Sends, answer
// with out.Reply. If persisting fails it must drop the activation and send nothing.
// Step never blocks, and equal inputs give equal outputs.
func (u *User) Step(now time.Time, in Input) (out Output) {
	t := now.UnixMilli()
	if _, tick := in.(Tick); !tick {
		u.seen++
	}
	if m := u.more; m != nil && m.restored {
		m.restored = false
		u.expire(t, &out)
	}
	u.apply(t, in, &out)
	u.pump(t, &out)
	if o := u.box(); o != nil {
		o.record(&out)
	}
	u.publish(t, &out)
	u.why, u.logged, u.lost, u.news = NoCause, 0, 0, noNews
	return out
}

func (u *User) apply(now int64, in Input, out *Output) {
	switch in := in.(type) {
	case Attach:
		if out.Reply = u.attach(now, &in, out); in.Outbox != nil && out.Reply.Code == OK {
			u.pump(now, out)
			out.answer(in.Conn)
		}
	case Detach:
		out.Reply = u.detachConn(now, &in)
	case Active:
		out.Reply = u.activity(&in)
	case SetClaim:
		out.Reply = u.setClaim(now, &in, out)
	case EndClaim:
		out.Reply = u.endClaim(&in, out)
	case SetInvisible:
		out.Reply = u.setInvisible(now, &in, out)
	case SetAudience:
		out.Reply = u.setAudience(now, &in, out)
	case SetRelations:
		out.Reply = u.setRelations(&in, out)
	case SetGraph:
		out.Reply = u.setGraph(&in)
	case Kick:
		out.Reply = u.kick(now, &in, out)
	case Revoke:
		out.Reply = u.revoke(now, &in, out)
	case EdgeLost:
		u.edgeLost(now, in.Edge)
	case ExtendGrace:
		u.extendGrace(in.Until.UnixMilli())
	case Presume:
		u.presume(now, in.Until.UnixMilli())
	case Announced:
		u.announced(now, &in, out)
	case Handed:
		u.handed(now, &in)
	case Tick, Wake:
		u.expire(now, out)
	default:
		u.applyOwned(now, in, out)
	}
}

// applyOwned takes what is about what the user owns for good.
func (u *User) applyOwned(now int64, in Input, out *Output) {
	switch in := in.(type) {
	case Publish:
		out.Reply = u.publishEntry(now, &in, out)
	case AckOutbox:
		out.Reply = u.ackOutbox(now, &in, out)
	case Contact:
		out.Reply = u.contact(now, &in, out)
	case Import:
		out.Reply = u.importRows(&in, out)
	case SetDevice:
		out.Reply = u.setDevice(now, &in, out)
	case NotifyWhen:
		out.Reply = u.notifyWhen(&in, out)
	case Received:
		out.Reply = u.received(now, &in, out)
	case Purge:
		out.Reply = u.purge(&in, out)
	case Erase:
		out.Reply = u.erase(now, out)
	default:
		out.Reply = bad("unknown input")
	}
}

// publish compares what the user shows with what it showed and fills in out.Publish.
func (u *User) publish(now int64, out *Output) {
	u.tidy(now)
	v := u.public(now)
	from := u.view.State
	erased := u.more != nil && u.more.erased
	if erased {
		u.more.erased = false
		if v = (View{}); from != Offline {
			v.Reason = ReasonKicked
		}
	}
	changed := !v.Equal(u.view)
	u.stamp(from, v.State)
	was := u.view
	if changed || erased {
		shown := v
		u.view = &shown
	}
	if out.Reply.Self == needSelf {
		out.Reply.Self = u.selfView(now)
	}
	if !changed && u.news == noNews {
		return
	}
	p := &Shown{View: u.view, Lost: int(u.lost), Until: u.changes()}
	if u.more != nil {
		p.Audience = u.more.audience
	}
	u.count(p)
	if p.Live > 0 && (changed || u.news == selfNews) {
		if p.Self = out.Reply.Self; p.Self == nil {
			p.Self = u.selfView(now)
		}
	}
	out.Publish = p
	if (from == Offline) != (v.State == Offline) && !erased {
		out.Records = append(out.Records, u.marker())
	}
	if changed && u.cfg.Events {
		u.event(now, was, out)
	}
	if !p.Presumed {
		u.notify(out)
	}
}

func (u *User) marker() Marker {
	v := u.view
	return Marker{
		Online: v.State != Offline, LastSeen: instant(u.last), LastConnected: instant(u.gone), Since: v.Since, Reason: v.Reason,
	}
}

// needSelf marks a reply that is to carry the user's own view as it is after the step.
var needSelf = &Self{}

// count fills in what the sessions add up to.
func (u *User) count(p *Shown) {
	presumed := false
	for i := range u.sessions {
		s := &u.sessions[i]
		switch s.phase() {
		case live:
			p.Live++
			p.Edges = insertEdge(p.Edges, s.conn.Holder())
		case inGrace:
			p.Detached++
			presumed = presumed || s.id == ""
			if at := instant(s.off); at.After(p.LostAt) {
				p.LostAt = at
			}
		}
	}
	p.Presumed = presumed && p.Live == 0 && p.Detached == 1 && u.covered() == nil
}

// tidy gives back what a user with defaults does not need.
func (u *User) tidy(now int64) {
	m := u.more
	if m == nil {
		return
	}
	m.ids.age(now)
	m.taken.age(now)
	if m.outbox != nil && m.outbox.empty() {
		m.outbox = nil
	}
	if m.outbox == nil && !m.some() && !m.erased && m.serial < uint64(now) && len(m.ids.rows)+len(m.taken.rows) == 0 {
		u.more = nil
	}
}

// some reports that there is more than an outbox and what is under way.
func (m *extra) some() bool {
	return len(m.claims) > 0 || m.cover != nil || m.audience != nil || m.revoked.Before != 0 || len(m.revoked.Tokens) > 0 ||
		len(m.waiters) > 0
}

func (u *User) extra() *extra {
	if u.more == nil {
		u.more = &extra{}
	}
	return u.more
}

// Seen counts the inputs handled, without Ticks.
func (u *User) Seen() uint32 { return u.seen }

// Idle reports that the activation may passivate: no session, live, in grace or
// resumable. All else is stored, and what ends meanwhile ends at the first Step after
// Restore. The caller must not stop it while records are not committed, or lazy ones lost.
func (u *User) Idle() bool { return len(u.sessions) == 0 }

// instant turns Unix ms into a time; 0 into the zero time.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
