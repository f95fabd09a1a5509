//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/edge/auth"
)

// fleet is the generator's side of a run: sessions of users u0, u1, … on one engine.
type fleet struct {
	e       *engine
	t       *target
	opt     Options
	token   map[int]string
	attempt uint64
	upgrade []byte
	members []*member

	up       int    // sessions that are connected
	resumed  uint64 // connect replies that said so
	refused  uint64 // connects refused for now and tried again
	replies  uint64 // to commands other than connect
	pushes   uint64 // presence pushes
	failures []error

	view   func(m *member, v view)  // every view that arrives
	reply  func(m *member)          // every reply to a command
	outbox func(m *member, o inbox) // every part of an outbox that arrives
	caps   []string                 // of the tokens; nil: all that a client may by itself
}

// member is one session of the generator.
type member struct {
	client
	f       *fleet
	user    int
	device  string
	watch   []int
	session string
	ready   bool   // connect was answered in full
	leaving bool   // the socket is meant to close
	reads   bool   // connect asks for the outbox from its start
	after   func() // called when ready
}

func newFleet(t *target, opt Options) (*fleet, error) {
	e, err := newEngine()
	if err != nil {
		return nil, err
	}
	return &fleet{
		e: e, t: t, opt: opt, token: map[int]string{}, attempt: 1,
		upgrade: upgradeRequest(t.addr.String(), t.path),
	}, nil
}

func userName(user int) string { return fmt.Sprintf("u%d", user) }

// add makes the session of a user; it connects later. The token is minted here, so
// that the clock does not see it.
func (f *fleet) add(user int, device string, watch ...int) (*member, error) {
	m := &member{f: f, user: user, device: device, watch: watch}
	m.upgrade = f.upgrade
	m.opened, m.line, m.gone = opened, line, gone
	m.client.owner = m
	if f.token[user] == "" {
		now := time.Now()
		claims := auth.Claims{User: userName(user), Issuer: f.opt.Issuer, Issued: now, Expires: now.Add(6 * time.Hour), Caps: f.caps}
		if f.opt.Audience != "" {
			claims.Audience = []string{f.opt.Audience}
		}
		token, err := auth.Sign(auth.Secret(f.opt.Key), claims)
		if err != nil {
			return nil, err
		}
		f.token[user] = token
	}
	f.members = append(f.members, m)
	return m, nil
}

// addFloor makes n members for a floor server.
func (f *fleet) addFloor(n int) error {
	for i := range n {
		m, err := f.add(i, "d1")
		if err != nil {
			return err
		}
		m.upgrade = upgradeRequest(f.t.addr.String(), fmt.Sprintf("/floor?i=%d", i))
	}
	return nil
}

func (m *member) connectFrame() []byte {
	var b bytes.Buffer
	m.f.attempt++
	fmt.Fprintf(&b, `{"id":1,"connect":{"token":"%s","device_id":"%s","class":"desktop","attempt":%d`, m.f.token[m.user], m.device, m.f.attempt)
	if m.session != "" {
		fmt.Fprintf(&b, `,"session_id":"%s"`, m.session)
	}
	if len(m.watch) > 0 {
		b.WriteString(`,"watch":[`)
		for i, u := range m.watch[:min(len(m.watch), 1000)] {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"u%d"`, u)
		}
		b.WriteByte(']')
	}
	if m.reads {
		b.WriteString(`,"outbox":{}`)
	}
	b.WriteString("}}")
	return appendFrame(nil, opText, b.Bytes())
}

// watchFrames are the watch commands for what does not fit into connect.
func (m *member) watchFrames() (frames [][]byte) {
	for from := 1000; from < len(m.watch); from += 1000 {
		var ids []string
		for _, u := range m.watch[from:min(len(m.watch), from+1000)] {
			ids = append(ids, fmt.Sprintf(`"u%d"`, u))
		}
		frames = append(frames, textFrame(`{"id":2,"watch":{"add":[%s]}}`, strings.Join(ids, ",")))
	}
	return frames
}

func opened(c *client) {
	m := c.owner
	m.f.e.send(c, m.connectFrame())
}

var (
	pushPrefix  = []byte(`{"push":`)
	selfKey     = []byte(`"self":{`)
	connectKey  = []byte(`"connect":{`)
	errorKey    = []byte(`"error":{`)
	doneKey     = []byte(`"done":true`)
	resumedKey  = []byte(`"resumed":true`)
	presenceKey = []byte(`"presence":[`)
	retryKey    = []byte(`"retry_after_ms":`)
	outboxKey   = []byte(`"outbox":{`)
)

func line(c *client, text []byte) {
	m := c.owner
	f := m.f
	if f.outbox != nil && bytes.Contains(text, outboxKey) {
		m.received(text)
	}
	if bytes.HasPrefix(text, pushPrefix) {
		if i := bytes.Index(text, selfKey); i >= 0 {
			text = text[:i]
		}
		if bytes.HasPrefix(text[len(pushPrefix)+1:], presenceKey) {
			f.pushes++
			m.views(text)
		}
		return
	}
	switch {
	case bytes.Contains(text, errorKey):
		m.refusal(text)
	case bytes.Contains(text, connectKey):
		m.connected(text)
	default:
		f.replies++
		if f.reply != nil {
			f.reply(m)
		}
		m.views(text)
	}
}

func (m *member) views(text []byte) {
	if m.f.view == nil {
		return
	}
	eachView(text, func(v view) {
		if v.state != 0 && v.user != m.user {
			m.f.view(m, v)
		}
	})
}

func (m *member) connected(text []byte) {
	if id := stringField(text, "session_id"); id != "" {
		m.session = id
	}
	if bytes.Contains(text, resumedKey) {
		m.f.resumed++
	}
	m.views(text)
	if bytes.Contains(text, doneKey) && !m.ready {
		m.ready = true
		m.f.up++
		for _, frame := range m.watchFrames() {
			m.f.e.send(&m.client, frame)
		}
		if m.after != nil {
			m.after()
		}
	}
}

// refusal: a connect that may be tried again is; everything else is a failure.
func (m *member) refusal(text []byte) {
	if !m.ready && bytes.Contains(text, retryKey) {
		m.f.refused++
		return
	}
	m.f.fail(fmt.Errorf("u%d: %.300s", m.user, text))
}

func (f *fleet) fail(err error) {
	if len(f.failures) < 3 { // the first ones tell
		f.failures = append(f.failures, err)
	}
}

func gone(c *client, err error) {
	m := c.owner
	if m.ready {
		m.ready = false
		m.f.up--
	}
	if !m.leaving {
		if err == nil {
			err = errors.New("closed by the server")
		}
		m.f.fail(fmt.Errorf("u%d: socket lost, close code %d: %w", m.user, c.code, err))
	}
}

// connect connects the members given, at most width at a time, and waits for all.
func (f *fleet) connect(members []*member, width int, limit time.Duration, progress func(done int)) error {
	next, before, target := 0, f.up, f.up+len(members)
	deadline := time.Now().Add(limit)
	for f.up < target {
		for next < len(members) && next-(f.up-before) < width {
			m := members[next]
			m.leaving = false
			if err := f.e.dial(&m.client, f.t.entry(m.user)); err != nil {
				return err
			}
			next++
		}
		f.e.poll(5 * time.Millisecond)
		if err := f.err(); err != nil {
			return err
		}
		if f.refused > 0 {
			return errors.New("the server refused connects for now (admission); raise admit-new and admit-resume")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d sessions connected after %v", f.up-before, len(members), limit)
		}
		if progress != nil {
			progress(f.up - before)
		}
	}
	return nil
}

// err is what went wrong so far.
func (f *fleet) err() error { return errors.Join(f.failures...) }

// cut drops the sockets of members without a goodbye.
func (f *fleet) cut(members []*member) {
	for _, m := range members {
		m.leaving = true
		f.e.drop(&m.client, nil)
	}
}

var byeFrame = textFrame(`{"id":3,"bye":{}}`)

// bye ends the sessions of members and waits until the server has closed the sockets.
func (f *fleet) bye(members []*member, limit time.Duration) error {
	for _, m := range members {
		m.leaving = true
		f.e.send(&m.client, byeFrame)
	}
	left := func() bool {
		for _, m := range members {
			if m.phase != closed {
				return false
			}
		}
		return true
	}
	if !f.e.until(limit, left) {
		return fmt.Errorf("sockets still open %v after bye", limit)
	}
	return nil
}
