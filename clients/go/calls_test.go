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

func TestCallsOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		ctx, zero := t.Context(), 0
		for _, row := range []struct {
			call func() error
			want string
		}{
			{func() error { return c.SetStatus(ctx, Status{DND, "in a call", "📞", time.Minute}) }, `"status":{"state":"dnd","text":"in a call","emoji":"📞","ttl_ms":60000}`},
			{func() error { return c.SetInvisible(ctx, true) }, `"status":{"state":"invisible"}`},
			{func() error { return c.SetInvisible(ctx, false) }, `"status":{"state":"online"}`},
			{func() error {
				return c.SetClaim(ctx, Claim{ID: "c", Source: "game", State: DND, Activity: []int{1}, Priority: &zero, TTL: time.Second})
			}, `"claim":{"id":"c","source":"game","state":"dnd","activity":[1],"priority":0,"ttl_ms":1000}`},
			{func() error { return c.EndClaim(ctx, "c") }, `"claim.end":{"id":"c"}`},
			{func() error { return c.SetAway(ctx) }, `"activity":{"away":true}`},
			{func() error { return c.SetInactive(ctx, true) }, `"client_state":{"inactive":true}`},
			{func() error {
				return c.SetAudience(ctx, Audience{State: &Rule{Rule: "only", Users: []string{"u"}}, Grants: []Grant{{"v", []string{"state"}, time.Second}}})
			}, `"audience":{"state":{"rule":"only","users":["u"]},"grant":[{"to":"v","fields":["state"],"ttl_ms":1000}]}`},
			{func() error { return c.LeaveRoom(ctx, "r") }, `"room.leave":{"room":"r"}`},
		} {
			result := make(chan error)
			go func() { result <- row.call() }()
			cmd := p.read()
			if got := string(cmd.AppendJSON(nil)); got != fmt.Sprintf(`{"id":%d,%s}`, cmd.Id, row.want) {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			method := row.want[:strings.Index(row.want, ":")]
			p.send(`{"id":%d,%s:{}}`, cmd.Id, method)
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		c.Close()
		p.end()
	})
}

func TestErrorsAreTyped(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		result := make(chan error)
		go func() { result <- c.SetStatus(t.Context(), Status{State: Away}) }()
		p.send(`{"id":%d,"error":{"code":111,"name":"RATE_LIMITED","message":"slow down","retryable":true,"retry_after_ms":1200}}`, p.read().Id)
		var e *Error
		if err := <-result; !errors.As(err, &e) || e.Code != wire.CodeRateLimited || !e.Retryable || e.RetryAfter != 1200*time.Millisecond ||
			err.Error() != "muster: RATE_LIMITED (111): slow down" {
			t.Error(err)
		}
		c.Close()
		p.end()
		if err := c.SetStatus(t.Context(), Status{}); err != ErrClosed {
			t.Error(err)
		}
	})
}

func TestCallsGoOnAtTheNextSocket(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		result := make(chan error)
		go func() { result <- c.SetStatus(t.Context(), Status{State: Away}) }()
		p.read() // and never answered
		p.close(0)
		p2, _ := srv.next(`,"resumed":true,"done":true`)
		p2.send(`{"id":%d,"status":{}}`, p2.read().Id)
		if err := <-result; err != nil {
			t.Error(err)
		}
		srv.setDown(true)
		p2.close(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.SetStatus(ctx, Status{State: Away}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		go func() { result <- c.SetStatus(context.Background(), Status{State: Away}) }()
		synctest.Wait()
		c.Close()
		if err := <-result; err != ErrClosed {
			t.Error(err)
		}
	})
}

func TestQuery(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		go func() {
			cmd := p.read()
			p.send(`{"id":%d,"query":{"presences":[{"user":"b","state":"dnd","text":"x","last_seen":"week"}]}}`, cmd.Id)
			p.send(`{"id":%d,"query":{"pending":["c"],"done":true}}`, cmd.Id)
		}()
		list, err := c.Query(t.Context(), "c", "b", "a")
		if err != nil || len(list) != 3 || list[0].State != Unknown || list[1].State != DND || list[1].LastSeenBucket != "week" || list[2].State != Offline {
			t.Errorf("%+v %v", list, err)
		}
		if c.View().Get("b").State != Unknown {
			t.Error("a query must not watch")
		}
		c.Close()
		p.end()
	})
}

func TestActivityIsSentSeldom(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		for range 24 {
			c.Activity()
			<-time.After(time.Second)
		}
		for range 3 {
			if cmd := p.read(); cmd.GetActivity() == nil || cmd.Id != 0 {
				t.Error(cmd)
			}
		}
		<-time.After(5 * time.Second)
		p.close(0)
		p2, connect := srv.next(`,"done":true`)
		if connect.IdleMs < 6000 || connect.IdleMs > 6500 {
			t.Errorf("idle for %d ms", connect.IdleMs)
		}
		synctest.Wait()
		c.Typing(Typing{User: "ann", Kind: "audio"})
		if cmd := p2.read(); cmd.GetTyping().GetUser() != "ann" || cmd.Id != 0 {
			t.Error(cmd)
		}
		c.Close()
		p2.end()
	})
}

func TestBye(t *testing.T) {
	for name, answer := range map[string]func(p *peer, id uint64){
		"answered": func(p *peer, id uint64) { p.send(`{"id":%d,"bye":{}}`, id) },
		"closed":   func(p *peer, id uint64) { p.close(1000) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, srv *server) {
				c, p, _ := srv.dial(srv.options(), `,"done":true`)
				result := make(chan error)
				go func() { result <- c.Bye(t.Context()) }()
				cmd := p.read()
				if cmd.GetBye() == nil {
					t.Fatal(cmd)
				}
				answer(p, cmd.Id)
				if err := <-result; err != nil || c.Err() != ErrClosed {
					t.Error(err, c.Err())
				}
				p.end()
				srv.quiet(time.Minute)
				c.Close()
			})
		})
	}
}

func TestPushesToTheApplication(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		var got []string
		o.OnTyping = func(t Typing) {
			got = append(got, fmt.Sprintf("%s %s %s %v %v", t.User, t.Room, t.Kind, t.Stop, t.TTL))
		}
		o.OnSelf = func(s Self) {
			got = append(got, fmt.Sprintf("%s %v %d %v", s.Presence.State, s.Invisible, len(s.Claims), s.Audience.State != nil))
		}
		c, p, _ := srv.dial(o, `,"done":true,"self":{"presence":{"user":"me","state":"online"}}`)
		p.push(`"typing":[{"user":"ann","kind":"text","ttl_ms":6000},{"user":"bob","room":"r","stop":true}]`)
		p.push(`"self":{"presence":{"user":"me","state":"invisible"},"invisible":true,"claims":[{"id":"m","priority":90}],"audience":{"state":{"rule":"nobody"}}}`)
		c.Close()
		p.end()
		if s := strings.Join(got, "|"); s != "online false 0 false|ann  text false 6s|bob r  true 0s|invisible true 1 true" {
			t.Error(s)
		}
	})
}

func TestRooms(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		go func() {
			p.send(`{"id":%d,"room.enter":{"room":"r","ver":[1,5],"occupants":[{"user":"ann","state":"online"},{"user":"me","state":"online"}],"count":2}}`, p.read().Id)
		}()
		r, err := c.EnterRoom(t.Context(), RoomOptions{Room: "r", Info: "hi"})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ch := range r.Changes(context.Background()) {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", ch.Kind, ch.Occupant.User, ch.Occupant.State, ch.Reason)))
			}
		}()
		synctest.Wait()
		p.push(`"room":{"room":"r","ver":[1,6],"enter":[{"user":"bob","state":"away"}],"count":3}`)
		p.push(`"room":{"room":"r","ver":[1,6],"leave":[{"user":"bob"}],"count":9}`)
		p.push(`"room":{"room":"r","ver":[1,7],"update":[{"user":"bob","state":"online"}],"leave":[{"user":"ann","reason":"timeout"}],"count":2}`)
		p.push(`"room":{"room":"other","ver":[1,8],"count":7}`)
		if r.Count() != 2 || len(r.Occupants()) != 2 {
			t.Errorf("%d %v", r.Count(), r.Occupants())
		}
		synctest.Wait()
		p.push(`"room":{"room":"r","ver":[1,8],"all":true,"enter":[{"user":"eve","state":"online"},{"user":"me","state":"online"}],"count":2}`)
		p.close(0)
		p2, connect := srv.next(`,"resumed":true,"rooms":[{"room":"r","ver":[1,9],"occupants":[{"user":"cid","state":"online"},{"user":"me","state":"online"}],"count":2}],"done":true`)
		if len(connect.Rooms) != 1 || connect.Rooms[0].Info != `"hi"` {
			t.Error(connect.Rooms)
		}
		synctest.Wait()
		go func() {
			p2.send(`{"id":%d,"room.window":{"room":"x","occupants":[{"user":"dan","state":"dnd"}],"count":40}}`, p2.read().Id)
		}()
		if list, n, err := c.ListRoom(t.Context(), "x"); err != nil || n != 40 || list[0].State != DND {
			t.Error(list, n, err)
		}
		p2.close(0)
		p3, _ := srv.next(`,"resumed":true,"rooms":[{"room":"r","error":{"code":106,"name":"LIMIT_EXCEEDED"}}],"done":true`)
		synctest.Wait()
		if !errors.Is(r.Err(), &Error{Code: wire.CodeLimitExceeded}) {
			t.Error(r.Err())
		}
		go func() { p3.send(`{"id":%d,"room.leave":{}}`, p3.read().Id) }()
		if err := r.Leave(t.Context()); err != nil || c.Room("r") != nil {
			t.Error(err)
		}
		c.Close()
		p3.end()
		<-ended
		want := "enter ann online|enter me online|enter bob away|update bob online|leave ann online timeout|enter eve online|leave bob online|enter cid online|leave eve online"
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	})
}

func TestRoomThatCannotBeEntered(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		go func() { p.send(`{"id":%d,"error":{"code":103,"name":"PERMISSION_DENIED"}}`, p.read().Id) }()
		if _, err := c.EnterRoom(t.Context(), RoomOptions{Room: "r"}); !errors.Is(err, &Error{Code: wire.CodePermissionDenied}) || c.Room("r") != nil {
			t.Error(err)
		}
		c.Close()
		p.end()
	})
}

func TestSocketURL(t *testing.T) {
	for in, want := range map[string]string{
		"ws://h:1": "ws://h:1/v1/ws", "wss://h/": "wss://h/v1/ws", "https://h/v1/ws": "https://h/v1/ws",
		"h:8000": "ws://h:8000/v1/ws", "ws://h/muster/v1/ws": "ws://h/muster/v1/ws",
	} {
		if got := socketURL(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
