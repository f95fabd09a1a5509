package muster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/clients/wire"
)

// states renders a view for comparing: "ann online, bob away stale".
func states(c *Client) string {
	var all []string
	for _, p := range c.View().All() {
		s := p.User + " " + string(p.State)
		if p.Stale {
			s += " stale"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func want(t *testing.T, c *Client, s string) {
	t.Helper()
	synctest.Wait()
	if got := states(c); got != s {
		t.Errorf("got  %s\nwant %s", got, s)
	}
}

func TestConnectDeclaresTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		grace := 30 * time.Second
		o.Watch, o.Class, o.Grace, o.Name = []string{"bob", "ann", "cid"}, "mobile", &grace, "test"
		o.Rooms = []RoomOptions{{Room: "r1", Info: map[string]int{"a": 1}}}
		c, p, connect := srv.dial(o, `,"presences":[{"user":"ann","state":"online","ver":[1,2]}],"pending":["bob"],"done":true,`+
			`"rooms":[{"room":"r1","ver":[1,1],"occupants":[{"user":"me","state":"online","info":{"a":1}}],"count":1}]`)
		defer p.end()
		defer c.Close()
		if got := fmt.Sprint(connect.Token, connect.DeviceId, connect.Class.Name(), connect.Watch, connect.GetGraceMs(), connect.Client, connect.Rooms[0].Info); got != `t0d1mobile[ann bob cid] 30000test{"a":1}` {
			t.Error(got)
		}
		want(t, c, "ann online, bob unknown, cid offline")
		if s := c.Session(); s.ID != "s1" || s.User != "me" || s.Node != "n1" || s.Resumed || !c.Connected() {
			t.Errorf("%+v", s)
		}
		if r := c.Room("r1"); r.Count() != 1 || r.Occupants()[0].User != "me" || string(r.Occupants()[0].Info) != `{"a":1}` {
			t.Errorf("%+v", r.Occupants())
		}
	})
}

func TestVersionsNeverGoBack(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann"}
		c, p, _ := srv.dial(o, `,"presences":[{"user":"ann","state":"online","ver":[5,20]}],"done":true`)
		defer p.end()
		defer c.Close()
		for _, step := range []struct{ push, state string }{
			{`"state":"away","ver":[5,19]`, "ann online"},
			{`"state":"away","ver":[5,20]`, "ann online"},
			{`"state":"away","ver":[4,99]`, "ann online"},
			{`"state":"online","ver":[5,20],"stale":true,"as_of_at":1`, "ann online stale"},
			{`"state":"online","ver":[5,20]`, "ann online"},
			{`"state":"unknown","stale":true,"as_of_at":1`, "ann online stale"},
			{`"state":"online","ver":[5,20]`, "ann online"},
			{`"state":"away","ver":[5,21]`, "ann away"},
			{`"state":"dnd","ver":[6,1]`, "ann dnd"},
			{`"state":"offline","ver":[6,2],"reason":"timeout"`, "ann offline"},
			{`"state":"dreaming","ver":[6,3]`, "ann unknown"},
		} {
			p.push(`"presence":[{"user":"ann",%s}]`, step.push)
			want(t, c, step.state)
		}
	})
}

func TestResumeKeepsTheViewRight(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann", "bob", "cid", "dan"}
		c, p, first := srv.dial(o, `,"presences":[{"user":"ann","state":"online","ver":[1,2]},{"user":"bob","state":"away","ver":[1,3]},{"user":"cid","state":"online","ver":[1,4]}],"done":true`)
		defer c.Close()
		p.push(`"presence":[{"user":"dan","state":"online","ver":[1,5]}]`)
		p.close(0)
		want(t, c, "ann online stale, bob away stale, cid online stale, dan online stale")
		begin := time.Now()
		p2, again := srv.next(`,"resumed":true,"presences":[{"user":"ann","state":"dnd","ver":[1,9]},{"user":"dan","state":"online","ver":[1,5]}],"pending":["bob"],"done":true`)
		if waited := time.Since(begin); waited > 400*time.Millisecond {
			t.Errorf("came back after %v", waited)
		}
		if again.SessionId != "s1" || again.Attempt <= first.Attempt || len(again.Watch) != 4 {
			t.Errorf("second connect: %v", again)
		}
		want(t, c, "ann dnd, bob away stale, cid offline, dan online")
		p2.push(`"presence":[{"user":"bob","state":"away","ver":[1,3]},{"user":"cid","state":"online","ver":[1,4]}]`)
		want(t, c, "ann dnd, bob away, cid online, dan online") // cid: the snapshot was from before, the push is not
		if !c.Session().Resumed {
			t.Error("not resumed")
		}
	})
}

func TestChangesAreSeenFromTheReader(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann", "bob"}
		c, p, _ := srv.dial(o, `,"presences":[{"user":"ann","state":"online","ver":[1,2]}],"done":true`)
		var got []string
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ch := range c.View().Changes(context.Background()) {
				got = append(got, fmt.Sprintf("%s %s %s>%s", ch.Kind, ch.User, ch.Before.State, ch.Presence.State))
			}
		}()
		synctest.Wait()
		p.push(`"presence":[{"user":"bob","state":"away","ver":[1,3]}]`)
		p.push(`"presence":[{"user":"bob","state":"online","ver":[1,4]}]`)
		p.push(`"presence":[{"user":"ann","state":"offline","ver":[1,5],"reason":"explicit"}]`)
		p.close(0)
		p2, _ := srv.next(`,"resumed":true,"presences":[{"user":"bob","state":"online","ver":[1,4]}],"done":true`)
		synctest.Wait() // nothing has changed
		p2.push(`"presence":[{"user":"bob","state":"offline","ver":[1,6]}]`)
		c.Close()
		p2.end()
		<-ended
		want := "enter ann unknown>online|update bob unknown>offline|enter bob offline>away|update bob away>online|leave ann online>offline|leave bob online>offline"
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	})
}

// A reader that is busy loses no user's last state and costs no memory per change.
func TestSlowReaderGetsTheLatest(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann", "bob"}
		c, p, _ := srv.dial(o, `,"done":true`)
		defer p.end()
		defer c.Close()
		var got []string
		for ch := range c.View().Changes(t.Context()) {
			got = append(got, fmt.Sprintf("%s %s %d", ch.Kind, ch.User, ch.Presence.Version.Number))
			switch len(got) {
			case 2: // while the reader is here, much happens
				for n := range 100 {
					p.push(`"presence":[{"user":"ann","state":"%s","ver":[1,%d]},{"user":"bob","state":"online","ver":[1,%d]}]`,
						[]string{"away", "online"}[n%2], 2*n+2, 2*n+3)
				}
				p.push(`"presence":[{"user":"bob","state":"offline","ver":[1,500]}]`)
			case 4:
				cancelled := strings.Join(got, "|")
				if cancelled != "update ann 0|update bob 0|enter ann 200|update bob 500" {
					t.Error(cancelled)
				}
				return
			}
		}
	})
}

func TestWatchAndUnwatch(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		defer p.end()
		defer c.Close()
		result := make(chan error, 1)
		go func() { result <- c.Watch(t.Context(), "ann", "bob") }()
		cmd := p.read()
		p.send(`{"id":%d,"watch":{"presences":[{"user":"ann","state":"online","ver":[1,2]}]}}`, cmd.Id)
		p.push(`"presence":[{"user":"bob","state":"away","ver":[1,3]}]`)
		p.send(`{"id":%d,"watch":{"done":true}}`, cmd.Id)
		if err := <-result; err != nil || fmt.Sprint(cmd.GetWatch().Add) != "[ann bob]" {
			t.Fatal(err, cmd)
		}
		want(t, c, "ann online, bob away") // the push for bob came after the question
		go func() { result <- c.Unwatch(t.Context(), "ann", "nobody") }()
		cmd = p.read()
		p.send(`{"id":%d,"watch":{"done":true}}`, cmd.Id)
		if err := <-result; err != nil || fmt.Sprint(cmd.GetWatch().Remove) != "[ann]" {
			t.Fatal(err, cmd)
		}
		want(t, c, "bob away")
		go func() { result <- c.Watch(t.Context(), "one", "many") }()
		p.send(`{"id":%d,"error":{"code":106,"name":"LIMIT_EXCEEDED","message":"m"}}`, p.read().Id)
		if err := <-result; !errors.Is(err, &Error{Code: wire.CodeLimitExceeded}) {
			t.Fatal(err)
		}
		want(t, c, "bob away")
		if err := c.Watch(t.Context(), "bad id"); err == nil {
			t.Error("a bad id was taken")
		}
	})
}

func TestLongWatchListsAreCut(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		for n := range 2500 {
			o.Watch = append(o.Watch, fmt.Sprintf("u%04d", n))
		}
		c, p, connect := srv.dial(o, `,"presences":[{"user":"u0001","state":"online","ver":[1,1]}],"done":true`)
		defer p.end()
		defer c.Close()
		sizes := []int{len(connect.Watch)}
		for range 2 {
			cmd := p.read()
			sizes = append(sizes, len(cmd.GetWatch().Add))
			p.send(`{"id":%d,"watch":{"presences":[{"user":"%s","state":"away","ver":[1,1]}],"done":true}}`, cmd.Id, cmd.GetWatch().Add[0])
		}
		synctest.Wait()
		if fmt.Sprint(sizes) != "[1000 1000 500]" {
			t.Error(sizes)
		}
		for user, state := range map[string]State{"u0001": Online, "u0002": Offline, "u1000": Away, "u1001": Offline, "u2000": Away, "u2499": Offline} {
			if got := c.View().Get(user).State; got != state {
				t.Errorf("%s: %s, want %s", user, got, state)
			}
		}
		long := make([]string, 1000)
		for i := range long {
			long[i] = strings.Repeat("x", 128)
		}
		if n := len(chunk(long)); n*131 > wire.MaxFrame-20<<10 || n < 200 {
			t.Errorf("%d long ids in a frame", n)
		}
	})
}

func TestLiveness(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		defer c.Close()
		begin := time.Now()
		for range 5 {
			<-time.After(20 * time.Second) // in virtual time
			p.send("{}")
			if cmd := p.read(); cmd.Method != nil || cmd.Id != 0 {
				t.Fatal("not an answer to the ping:", cmd)
			}
		}
		synctest.Wait()
		p2, _ := srv.next(`,"resumed":true,"done":true`) // the server has fallen silent
		if d := time.Since(begin); d < 130*time.Second || d > 131*time.Second {
			t.Errorf("gave up after %v, want 100 s and 30 s", d)
		}
		p.end()
		c.Close()
		p2.end()
	})
}

func TestCloseCodes(t *testing.T) {
	for _, row := range wire.CloseCodes() {
		t.Run(row.Code.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, srv *server) {
				c, p, _ := srv.dial(srv.options(), `,"done":true`)
				p.send(`{"push":{"disconnect":{"code":%d,"reason":"%s","reconnect":%v,"retry_after_ms":2000}}}`, row.Code, row.Reason, row.Code.Reconnect())
				begin := time.Now()
				p.close(row.Code)
				if row.Code.Reconnect() && row.Code != wire.CloseTokenExpired {
					p2, _ := srv.next(`,"done":true`)
					if d := time.Since(begin); d < 2*time.Second || d > 3*time.Second {
						t.Errorf("came back after %v, told 2 s", d)
					}
					c.Close()
					p2.end()
					if c.Err() != ErrClosed {
						t.Error(c.Err())
					}
					return
				}
				<-c.Done()
				var closed *CloseError
				if err := c.Err(); !errors.As(err, &closed) || closed.Code != row.Code || closed.Reason != row.Reason {
					t.Errorf("ended with %v", err)
				}
				if err := c.SetStatus(t.Context(), Status{State: DND}); !errors.As(err, &closed) {
					t.Errorf("a call afterwards: %v", err)
				}
				srv.quiet(5 * time.Minute)
			})
		})
	}
}

// A proxy that swallows the close code does not hide the reason.
func TestDisconnectPushStandsForTheCode(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		p.push(`"session_revoked":{"reason":"elsewhere"},"disconnect":{"code":4505,"reason":"revoked"}`)
		p.close(0)
		<-c.Done()
		var closed *CloseError
		if !errors.As(c.Err(), &closed) || closed.Code != wire.CloseRevoked || closed.Reconnect() {
			t.Error(c.Err())
		}
	})
}

func TestUsersWatchedByTheToken(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann"}
		c, p, _ := srv.dial(o, `,"presences":[{"user":"boss","state":"online","ver":[1,1]}],"pending":["vip"],"done":true`)
		p.push(`"presence":[{"user":"late","state":"away","ver":[1,2]}]`)
		want(t, c, "ann offline, boss online, late away, vip unknown")
		result := make(chan error)
		go func() { result <- c.Unwatch(t.Context(), "ann", "late") }()
		cmd := p.read()
		p.push(`"presence":[{"user":"late","state":"online","ver":[1,3]},{"user":"ann","state":"online","ver":[1,4]}]`) // crossed it
		p.send(`{"id":%d,"watch":{"done":true}}`, cmd.Id)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		want(t, c, "boss online, vip unknown")
		p.close(0)
		p2, connect := srv.next(`,"presences":[{"user":"late","state":"online","ver":[1,3]}],"done":true`)
		if len(connect.Watch) != 0 {
			t.Errorf("the token's users were declared: %v", connect.Watch)
		}
		synctest.Wait()
		if c.View().Get("late").State != Online {
			t.Error("the token watches late again")
		}
		c.Close()
		p2.end()
	})
}

func TestBackgroundCommandsInsist(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Rooms = []RoomOptions{{Room: "r"}}
		for n := range 1001 {
			o.Watch = append(o.Watch, fmt.Sprintf("u%04d", n))
		}
		c, p, _ := srv.dial(o, `,"rooms":[{"room":"r","error":{"code":123,"retryable":true,"retry_after_ms":500}}],"done":true`)
		begin := time.Now()
		p.send(`{"id":%d,"error":{"code":128,"name":"BUSY","retryable":true,"retry_after_ms":2000}}`, p.read().Id)
		p.send(`{"id":%d,"error":{"code":128,"name":"BUSY","retryable":true}}`, p.read().Id)
		for range 2 {
			cmd := p.read()
			if cmd.GetRoomEnter() != nil {
				p.send(`{"id":%d,"room.enter":{"room":"r","ver":[1,1],"occupants":[{"user":"me","state":"online"}],"count":1}}`, cmd.Id)
			} else {
				p.send(`{"id":%d,"watch":{"presences":[{"user":"u1000","state":"dnd","ver":[1,1]}],"done":true}}`, cmd.Id)
			}
		}
		synctest.Wait()
		if c.View().Get("u1000").State != DND || c.Room("r").Count() != 1 || c.Room("r").Err() != nil {
			t.Error(c.View().Get("u1000"), c.Room("r").Err())
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Error(d)
		}
		c.Close()
		p.end()
	})
}
