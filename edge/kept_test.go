package edge

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/auth"
)

// capToken takes "user|cap,cap" as a token.
type capToken struct{}

func (capToken) Verify(_ context.Context, token string) (auth.Claims, error) {
	user, caps, ok := strings.Cut(token, "|")
	c := auth.Claims{App: "default", User: user}
	if ok {
		c.Caps = strings.Split(caps, ",")
	}
	return c, nil
}

// kept is an edge with a fake core in virtual time, and one client on an in-memory conn.
type kept struct {
	t    *testing.T
	core *fakeCore
	edge *Edge
	pipe *link.Pipe
	ws   *websocket.Conn
	conn uint64 // as the core knows it

	mu  sync.Mutex
	in  []*wire.Reply
	big int // the longest frame
}

// inKept runs a story. attach, if any, is what the core says of the outbox when the client attaches.
func inKept(t *testing.T, token string, con *wire.Connect, attach *link.OutboxBatch, story func(k *kept)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &kept{t: t, core: newFakeCore()}
		k.core.answer = func(m *link.Up) (*link.Down, bool) {
			a := m.GetAttach()
			if a == nil || a.Call == 0 {
				return nil, false
			}
			k.conn = a.Conn
			return &link.Down{Body: &link.Down_Attached{Attached: &link.Attached{
				Call: a.Call, App: a.App, User: a.User, Conn: a.Conn, Session: a.Session, Outbox: attach,
			}}}, true
		}
		var err error
		if k.edge, err = New(Config{Node: "n", Auth: capToken{}, Hubs: 4, NoPoller: true}); err != nil {
			t.Fatal(err)
		}
		k.pipe = link.NewPipe("n", 1, k.edge.Core("n"), k.core)
		k.pipe.Dial()
		a, b := net.Pipe()
		ln := &oneConn{conns: make(chan net.Conn, 1), done: make(chan struct{})}
		ln.conns <- b
		srv := &http.Server{Handler: k.edge.Handler()}
		go srv.Serve(ln)
		if k.ws, _, err = websocket.Dial(t.Context(), "ws://pipe/v1/ws", &websocket.DialOptions{
			Subprotocols: []string{wire.Subprotocol}, HTTPClient: clientOver(func() (net.Conn, error) { return a, nil }),
		}); err != nil {
			t.Fatal(err)
		}
		k.ws.SetReadLimit(1 << 20)
		ended := make(chan struct{})
		go k.read(ended)
		t.Cleanup(func() {
			k.ws.CloseNow()
			<-ended
			k.edge.Close()
			srv.Close()
			ln.Close()
			k.pipe.Close(true)
			close(k.core.work)
			<-k.core.done
		})
		con.Token, con.DeviceId = token, "d"
		k.send(&wire.Command{Id: 1, Method: &wire.Command_Connect{Connect: con}})
		synctest.Wait()
		story(k)
	})
}

type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (k *kept) read(ended chan struct{}) {
	defer close(ended)
	for {
		_, b, err := k.ws.Read(context.Background())
		if err != nil {
			return
		}
		if wire.IsPing(b) {
			k.ws.Write(context.Background(), websocket.MessageText, []byte("{}"))
			continue
		}
		lines, err := wire.Lines(b)
		if err != nil {
			panic(err)
		}
		for line := range lines {
			r := new(wire.Reply)
			if err := wire.Decode(line, r); err != nil {
				panic(fmt.Sprintf("%v in %s", err, line))
			}
			k.mu.Lock()
			k.in, k.big = append(k.in, r), max(k.big, len(b))
			k.mu.Unlock()
		}
	}
}

func (k *kept) send(c *wire.Command) {
	k.t.Helper()
	if err := k.ws.Write(context.Background(), websocket.MessageText, c.AppendJSON(nil)); err != nil {
		k.t.Fatal(err)
	}
}

// got takes what came until now, as JSON lines.
func (k *kept) got() string {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, r := range k.in {
		b.Write(r.AppendJSON(nil))
		b.WriteByte('\n')
	}
	k.in = nil
	return strings.TrimSuffix(b.String(), "\n")
}

// replies takes what came until now.
func (k *kept) replies() []*wire.Reply {
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	in := k.in
	k.in = nil
	return in
}

// told takes what the core was told until now, without announcements, and without the numbers of calls and conns.
func (k *kept) told() string {
	synctest.Wait()
	k.core.mu.Lock()
	defer k.core.mu.Unlock()
	var list []string
	for _, m := range k.core.ups {
		switch b := m.Body.(type) {
		case *link.Up_Announce:
			continue
		case *link.Up_Act:
			a := b.Act
			list = append(list, fmt.Sprintf("act %s session=%v conn=%v %s", a.User, a.Session != "", a.Conn == k.conn, compact(&link.Act{What: a.What})))
		case *link.Up_Ask:
			list = append(list, "ask "+compact(&link.Ask{What: b.Ask.What}))
		case *link.Up_Ack:
			list = append(list, fmt.Sprintf("ack %s %x/%d %v", b.Ack.User, b.Ack.Epoch, b.Ack.Offset, b.Ack.Conn == k.conn))
		default:
			list = append(list, fmt.Sprintf("%T", b))
		}
	}
	k.core.ups = nil
	return strings.Join(list, "\n")
}

func compact(m proto.Message) string {
	b, _ := protojson.Marshal(m)
	return strings.ReplaceAll(string(b), " ", "")
}

// act answers every act and ask with what f says.
func (k *kept) act(f func(a *link.Act) *link.Acted) {
	before := k.core.answer
	k.core.mu.Lock()
	defer k.core.mu.Unlock()
	k.core.answer = func(m *link.Up) (*link.Down, bool) {
		a := m.GetAct()
		if a == nil {
			return before(m)
		}
		k.core.ups = append(k.core.ups, m)
		v := f(a)
		if v == nil {
			return nil, true
		}
		v.Call = a.Call
		return &link.Down{Body: &link.Down_Acted{Acted: v}}, true
	}
}

func (k *kept) outbox(b *link.OutboxBatch) {
	b.App, b.User, b.Conn = "default", "u", k.conn
	k.core.say(userShard(presence.Key{App: "default", User: "u"}), &link.Down{Body: &link.Down_Outbox{Outbox: b}})
}

func entries(from, to uint64, size int) (list []*link.OutboxEntry) {
	for o := from; o <= to; o++ {
		list = append(list, &link.OutboxEntry{Offset: o, ClientId: "c", Sender: "s", At: 1, Until: 2, Body: `"` + strings.Repeat("x", size) + `"`})
	}
	return list
}

const someID = "0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e55"

func publishTo(id uint64, user string) *wire.Command {
	return &wire.Command{Id: id, Method: &wire.Command_Publish{Publish: &wire.Publish{User: user, ClientId: someID, Body: `{"a":1}`}}}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s\n%s\nwant\n%s", what, got, want)
	}
}

// Only a token that names it lets its bearer write into the outboxes of others.
func TestPublishNeedsCapability(t *testing.T) {
	for token, allowed := range map[string]bool{"u": false, "u|watch": false, "u|publish": true} {
		inKept(t, token, &wire.Connect{}, nil, func(k *kept) {
			k.act(func(*link.Act) *link.Acted {
				return &link.Acted{Published: &link.Published{Epoch: 1, Offset: 2, At: 3}}
			})
			k.got()
			k.send(publishTo(5, "bob"))
			want := `{"id":5,"error":{"code":103,"name":"PERMISSION_DENIED","message":"the token does not allow publish"}}`
			acts := ""
			if allowed {
				want = `{"id":5,"publish":{"client_id":"` + someID + `","at":3}}`
				acts = `act bob session=false conn=false {"publish":{"sender":"u","id":"AZjzwloQfT6cQWsfCi1OVQ==","clientId":"` + someID + `","body":"{\"a\":1}"}}`
			}
			equal(t, token, k.got(), want)
			equal(t, token, k.told(), acts)
		})
	}
}

// While it is not known what became of an entry, the same client id goes again, for 10 s at most.
func TestPublishIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		first func(try int) *link.Acted // nil: silence
	}{
		{"moving", func(int) *link.Acted { return &link.Acted{Code: link.Code_MOVING} }},
		{"unknown outcome", func(int) *link.Acted { return &link.Acted{Code: link.Code_UNKNOWN_OUTCOME} }},
		{"busy", func(int) *link.Acted { return &link.Acted{Code: link.Code_BUSY} }},
		{"silence", func(int) *link.Acted { return nil }},
	} {
		inKept(t, "u|publish", &wire.Connect{}, nil, func(k *kept) {
			tries, heal := 0, 3
			k.act(func(a *link.Act) *link.Acted {
				if tries++; tries < heal {
					return c.first(tries)
				}
				return &link.Acted{Published: &link.Published{Epoch: 1, Offset: 2, At: 3}}
			})
			k.got()
			k.send(publishTo(5, "bob"))
			time.Sleep(6 * time.Second)
			equal(t, c.name, k.got(), `{"id":5,"publish":{"client_id":"`+someID+`","at":3}}`)
			acts := strings.Split(k.told(), "\n")
			if len(acts) != 3 || acts[0] != acts[1] || acts[1] != acts[2] {
				t.Fatalf("%s: %s", c.name, acts)
			}
			began := time.Now()
			heal, tries = 1<<30, 0
			k.send(publishTo(6, "bob"))
			var r []*wire.Reply
			for len(r) == 0 {
				time.Sleep(10 * time.Millisecond)
				r = k.replies()
			}
			e, took := r[0].GetError(), time.Since(began)
			if e.GetCode() != uint32(wire.CodeMoving) || !e.Retryable || e.RetryAfterMs == 0 || took < 6*time.Second || took > 10*time.Second {
				t.Fatalf("%s: %v after %v", c.name, e, took)
			}
			if tries < 4 || tries > 200 {
				t.Fatalf("%s: %d tries", c.name, tries)
			}
		})
	}
}

// What a shard refuses for good is told with its own code, after one try.
func TestPublishRefusals(t *testing.T) {
	inKept(t, "u|publish", &wire.Connect{}, nil, func(k *kept) {
		var code link.Code
		tries := 0
		k.act(func(*link.Act) *link.Acted { tries++; return &link.Acted{Code: code, Message: "said the core"} })
		k.got()
		for core, client := range map[link.Code]wire.Code{
			link.Code_OUTBOX_FULL: 127, link.Code_ID_EXPIRED: 126, link.Code_ID_REUSED: 121, link.Code_BLOCKED: 129,
			link.Code_BAD_REQUEST: 107, link.Code_LIMIT: 106, link.Code_DENIED: 103,
		} {
			code, tries = core, 0
			k.send(publishTo(5, "bob"))
			e := k.replies()[0].GetError()
			if e.GetCode() != uint32(client) || e.Message != "said the core" || tries != 1 {
				t.Fatalf("%v became %v after %d tries", core, e, tries)
			}
		}
	})
}

// Every command that keeps something: what the core is told, and what is refused before it.
func TestKeptCommands(t *testing.T) {
	for _, c := range []struct{ in, told, got string }{
		{`{"id":2,"contact":{"user":"bob","action":"subscribe"}}`,
			`act u session=true conn=true {"contact":{"user":"bob","action":1}}`,
			`{"id":2,"contact":{"contact":{"user":"bob","subscription":"none","pending_out":true}}}`},
		{`{"id":2,"contact":{"user":"bob","action":"marry"}}`, "", "contact.action: want subscribe, approve, deny, unsubscribe or remove"},
		{`{"id":2,"contact":{"user":"u","action":"remove"}}`, "", "contact.user: a user has no relation to itself"},
		{`{"id":2,"contact":{"user":"b b","action":"remove"}}`, "", "contact.user: " + wantID},
		{`{"id":2,"block":{"add":["bob"],"remove":["carol"]}}`,
			`act u session=true conn=true {"relations":{"block":["bob"],"unblock":["carol"]}}`, `{"id":2,"block":{}}`},
		{`{"id":2,"block":{}}`, "", "block: name at least one user in add or remove"},
		{`{"id":2,"block":{"add":["u"]}}`, "", "block.add[0]: a user has no relation to itself"},
		{`{"id":2,"notify_when":{"user":"bob","ttl_ms":60000}}`,
			`act u session=true conn=true {"notifyWhen":{"user":"bob","ttlMs":"60000"}}`, `{"id":2,"notify_when":{}}`},
		{`{"id":2,"notify_when":{"user":"bob","state":"away"}}`, "", "notify_when.state: want online"},
		{`{"id":2,"notify_when":{"user":"bob","ttl_ms":1}}`, "", "notify_when.ttl_ms: want 10000 to 2592000000, or 0"},
		{`{"id":2,"device":{"provider":"fcm","token":"t"}}`,
			`act u session=true conn=true {"device":{"device":"d","provider":"fcm","token":"t"}}`, `{"id":2,"device":{}}`},
		{`{"id":2,"device":{"token":"t"}}`, "", "device.provider: missing, it says whose token it is"},
		{`{"id":2,"device":{"provider":"` + strings.Repeat("p", 33) + `"}}`, "", "device.provider: more than 32 bytes"},
		{`{"id":2,"device":{"provider":"fcm","token":"t","forget":true}}`, "", "device: a device that is forgotten has no token"},
		{`{"id":2,"ack":{"outbox":1}}`, "", "ack: this session does not read the outbox; say so in connect"},
		{`{"id":2,"publish":{"user":"b b","client_id":"` + someID + `","body":1}}`, "", "publish.user: " + wantID},
		{`{"id":2,"publish":{"user":"bob","client_id":"` + someID + `"}}`, "", "publish.body: missing: want a JSON value"},
		{`{"id":2,"publish":{"user":"bob","client_id":"c-1","body":1}}`, "", "publish.client_id: want a UUIDv7 or a ULID"},
		{`{"id":2,"contacts":{"after":"b b"}}`, "", "contacts.after: " + wantID},
		{`{"id":2,"contacts":{"limit":501}}`, "", "contacts.limit: more than 500"},
	} {
		inKept(t, "u|contact,contacts,block,notify_when,device,publish", &wire.Connect{}, nil, func(k *kept) {
			k.act(func(a *link.Act) *link.Acted {
				v := &link.Acted{}
				if a.GetContact() != nil {
					v.Contact = &link.ContactRow{User: a.GetContact().User, PendingOut: true}
				}
				return v
			})
			k.got()
			k.ws.Write(context.Background(), websocket.MessageText, []byte(c.in))
			want := c.got
			if !strings.HasPrefix(want, "{") {
				want = string(wire.CodeBadRequest.Error(want, 0).AppendJSON([]byte(`{"id":2,"error":`))) + "}"
			}
			equal(t, c.in, k.got(), want)
			equal(t, c.in, k.told(), c.told)
		})
	}
}

// A page of contacts is cut so that it fits in a frame; who has blocked the user stays unknown.
func TestContactsPage(t *testing.T) {
	inKept(t, "u", &wire.Connect{}, nil, func(k *kept) {
		attach := k.core.answer
		k.core.mu.Lock()
		k.core.answer = func(m *link.Up) (*link.Down, bool) {
			a := m.GetAsk()
			if a == nil {
				return attach(m)
			}
			k.core.ups = append(k.core.ups, m)
			v := &link.Answer{Call: a.Call}
			for i := range a.GetContacts().Limit {
				v.Contacts = append(v.Contacts, &link.ContactRow{
					User: fmt.Sprintf("%s%03d", strings.Repeat("n", 120), i), To: true, From: i%2 == 0,
				})
			}
			return &link.Down{Body: &link.Down_Answer{Answer: v}}, true
		}
		k.core.mu.Unlock()
		k.got()
		k.send(&wire.Command{Id: 2, Method: &wire.Command_Contacts{Contacts: &wire.Contacts{Limit: 2}}})
		n := strings.Repeat("n", 120)
		equal(t, "two", k.got(), `{"id":2,"contacts":{"contacts":[{"user":"`+n+`000","subscription":"both"},{"user":"`+n+`001","subscription":"to"}]}}`)
		equal(t, "two", k.told(), `ask {"contacts":{"user":"u","limit":2}}`)
		k.send(&wire.Command{Id: 3, Method: &wire.Command_Contacts{Contacts: &wire.Contacts{After: "a"}}})
		r := k.replies()[0].GetContacts()
		if n := len(r.GetContacts()); n < 100 || n == 500 || !r.More || k.big > wire.MaxFrame {
			t.Fatalf("%d rows, more %v, frame of %d", n, r.GetMore(), k.big)
		}
		equal(t, "all", k.told(), `ask {"contacts":{"user":"u","after":"a","limit":500}}`)
		k.core.say(userShard(presence.Key{App: "default", User: "u"}), &link.Down{Body: &link.Down_Contacts{Contacts: &link.ContactsChanged{
			App: "default", User: "u", Rows: []*link.ContactRow{
				{User: "bob", From: true}, {User: "carol"},
			},
		}}})
		equal(t, "push", k.got(), `{"push":{"contact":[{"user":"bob","subscription":"from"},{"user":"carol"}]}}`)
	})
}
