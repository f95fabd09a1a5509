package muster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/clients/wire"
)

func TestMoveMakesBeforeItBreaks(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann", "bob"}
		var seen []string
		o.OnConnection = func(e Connection) { seen = append(seen, fmt.Sprint(e.Up, e.Session.Resumed)) }
		c, p, _ := srv.dial(o, `,"presences":[{"user":"ann","state":"online","ver":[1,2]}],"done":true`)
		begin := time.Now()
		p.push(`"reconnect":{"code":4011,"reason":"drain","retry_after_ms":7300}`)
		p2 := srv.socket()
		if d := time.Since(begin); d != 7300*time.Millisecond {
			t.Errorf("moved after %v", d)
		}
		cmd := p2.read()
		p.push(`"presence":[{"user":"bob","state":"online","ver":[1,3]}]`) // the old one still counts
		want(t, c, "ann online, bob online")
		p2.send(`{"id":%d,"connect":{"session_id":"s1","resumed":true,"ping_ms":20000,"presences":[{"user":"ann","state":"away","ver":[1,4]}],"done":true}}`, cmd.Id)
		want(t, c, "ann away, bob offline")
		p.end() // the client closes the old one
		p2.push(`"presence":[{"user":"bob","state":"online","ver":[1,3]}]`)
		want(t, c, "ann away, bob online")
		c.Close()
		p2.end()
		if s := strings.Join(seen, ","); s != "true false,true true" {
			t.Errorf("connections: %s", s)
		}
	})
}

// The server closes the old socket with 4510 as soon as the new one has attached, which
// may be before the client has its answer.
func TestReplacedByOneself(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		p.push(`"reconnect":{"code":4011,"reason":"drain"}`)
		p2 := srv.socket()
		cmd := p2.read()
		p.close(wire.CloseReplaced)
		synctest.Wait()
		p2.close(0) // and the new one fails before its answer
		p3, _ := srv.next(`,"resumed":true,"done":true`)
		if c.Err() != nil || cmd.GetConnect().SessionId != "s1" {
			t.Error(c.Err())
		}
		c.Close()
		p3.end()
	})
}

func TestOldSocketDiesDuringTheWait(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		p.push(`"reconnect":{"code":4011,"reason":"drain","retry_after_ms":5000}`)
		p.close(wire.CloseRevoked)
		<-c.Done()
		var closed *CloseError
		if !errors.As(c.Err(), &closed) || closed.Code != wire.CloseRevoked {
			t.Error(c.Err())
		}
		srv.quiet(time.Minute)
	})
}

func TestUsersAddedWhileMovingAreNotForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		o.Watch = []string{"ann", "bob"}
		c, p, _ := srv.dial(o, `,"done":true`)
		p.push(`"reconnect":{"code":4011,"reason":"drain"}`)
		p2 := srv.socket()
		connect := p2.read()
		result := make(chan error, 2)
		go func() { result <- c.Watch(t.Context(), "cid") }()
		p.send(`{"id":%d,"watch":{"presences":[{"user":"cid","state":"online","ver":[1,7]}],"done":true}}`, p.read().Id)
		go func() { result <- c.Unwatch(t.Context(), "ann") }()
		p.send(`{"id":%d,"watch":{"done":true}}`, p.read().Id)
		if err := errors.Join(<-result, <-result); err != nil {
			t.Fatal(err)
		}
		p2.send(`{"id":%d,"connect":{"session_id":"s1","resumed":true,"ping_ms":20000,"done":true}}`, connect.Id)
		add, remove := p2.read(), p2.read()
		if fmt.Sprint(add.GetWatch().GetAdd(), remove.GetWatch().GetRemove()) != "[cid] [ann]" {
			t.Errorf("got %v, %v", add, remove)
		}
		p2.send(`{"id":%d,"watch":{"presences":[{"user":"cid","state":"online","ver":[1,7]}],"done":true}}`, add.Id)
		want(t, c, "bob offline, cid online")
		c.Close()
		p.end()
		p2.end()
	})
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		var waits []time.Duration
		o.OnConnection = func(e Connection) {
			if !e.Up {
				waits = append(waits, e.RetryIn)
			}
		}
		c, p, _ := srv.dial(o, `,"done":true`)
		srv.setDown(true)
		p.close(0)
		<-time.After(10 * time.Minute)
		srv.setDown(false)
		begin := time.Now()
		p2, _ := srv.next(`,"done":true`)
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("came back after %v", d)
		}
		c.Close()
		p2.end()
		if len(waits) < 20 || waits[0] > 400*time.Millisecond || slices.Max(waits) < 10*time.Second || slices.Max(waits) > 20*time.Second {
			t.Errorf("waits: %v", waits)
		}
	})
	b := Backoff{Min: 200 * time.Millisecond, Max: 20 * time.Second}
	for _, row := range []struct {
		n          int
		atLeast, r float64
		want       string
	}{
		{0, 0, 0, "0s"}, {0, 0, 0.5, "100ms"}, {3, 0, 0.5, "800ms"}, {7, 0, 0.5, "10s"}, {5000, 0, 0.99, "19.8s"},
		{0, 7, 0, "7s"}, {9, 7, 0.5, "10.5s"}, {1, 7, 0.5, "7.2s"},
	} {
		if got := b.wait(row.n, time.Duration(row.atLeast)*time.Second, row.r); got.String() != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

func TestSocketsThatDieAtOnceAreTriedMoreSlowly(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		begin := time.Now()
		for range 30 {
			p.close(0)
			p, _ = srv.next(`,"done":true`)
		}
		if d := time.Since(begin); d < 30*time.Second {
			t.Errorf("30 sockets in %v", d)
		}
		c.Close()
		p.end()
	})
}

func TestAdmission(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		srv.refuse = []int{503}
		_, err := Dial(t.Context(), "ws://muster.test/", srv.options())
		var handshake *HandshakeError
		if !errors.As(err, &handshake) || handshake.Status != 503 || handshake.RetryAfter != 3*time.Second {
			t.Fatal(err)
		}
		srv.refuse = []int{429, 503}
		o := srv.options()
		o.Wait = true
		begin := time.Now()
		c, p, _ := srv.dial(o, `,"done":true`)
		if d := time.Since(begin); d < 6*time.Second || d > 8*time.Second {
			t.Errorf("took %v, told to wait twice 3 s", d)
		}
		c.Close()
		p.end()
	})
}

func TestDialErrors(t *testing.T) {
	for _, row := range []struct {
		answer string
		want   error
	}{
		{`"error":{"code":101,"name":"UNAUTHORIZED","message":"m"}`, &Error{Code: wire.CodeUnauthorized}},
		{`"error":{"code":109,"name":"TOKEN_EXPIRED","message":"m"}`, &Error{Code: wire.CodeTokenExpired}},
		{`"error":{"code":123,"name":"MOVING","retryable":true,"retry_after_ms":500}`, &Error{Code: wire.CodeMoving}},
	} {
		bubble(t, func(t *testing.T, srv *server) {
			result := make(chan error)
			go func() {
				_, err := Dial(t.Context(), "http://muster.test/v1/ws", srv.options())
				result <- err
			}()
			p := srv.socket()
			p.send(`{"id":%d,%s}`, p.read().Id, row.answer)
			if err := <-result; !errors.Is(err, row.want) {
				t.Errorf("%s: %v", row.answer, err)
			}
			p.end()
		})
	}
	for _, o := range []Options{{}, {Token: "t", DeviceID: "a b"}, {Token: "t", Class: "fridge"}, {Token: "t", Watch: []string{""}},
		{Token: "t", Name: strings.Repeat("x", 65)}, {Token: "t", Rooms: []RoomOptions{{Room: "?"}}},
		{Token: "t", Rooms: []RoomOptions{{Room: "r", Info: strings.Repeat("x", 2000)}}}} {
		if _, err := Dial(t.Context(), "ws://localhost:1", o); err == nil || !strings.HasPrefix(err.Error(), "muster: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		result := make(chan error)
		begin := time.Now()
		go func() {
			_, err := Dial(t.Context(), "ws://muster.test", srv.options())
			result <- err
		}()
		p := srv.socket()
		if err := <-result; err == nil || time.Since(begin) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		p.end()
	})
}

func TestGarbageFromTheServer(t *testing.T) {
	for _, frame := range []string{"hello", `{"push":`, strings.Repeat("{}\n", 65), "[]"} {
		bubble(t, func(t *testing.T, srv *server) {
			c, p, _ := srv.dial(srv.options(), `,"done":true`)
			p.send("%s", frame)
			p2, _ := srv.next(`,"done":true`)
			p.end()
			c.Close()
			p2.end()
		})
	}
	bubble(t, func(t *testing.T, srv *server) { // sound, but from the future
		o := srv.options()
		o.Watch = []string{"ann"}
		c, p, _ := srv.dial(o, `,"done":true`)
		p.send("%s", `{"push":{"presence":[{"user":7}]}}`+"\n"+`{"what":{}}`+"\n"+`{"push":{"presence":[{"user":"ann","state":"away","ver":[1,1]}]}}`)
		want(t, c, "ann away")
		c.Close()
		p.end()
	})
}

func TestTokens(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		n := 0
		o.Token, o.TokenFunc = "", func(context.Context) (string, error) {
			if n++; n == 3 {
				return "", errors.New("the issuer is down")
			}
			return fmt.Sprintf("t%d", n), nil
		}
		now := func() int64 { return time.Now().Add(time.Hour).UnixMilli() } // the server's clock is an hour ahead
		c, p, connect := srv.dial(o, fmt.Sprintf(`,"server_at":%d,"exp_at":%d,"done":true`, now(), now()+600_000))
		if connect.Token != "t1" {
			t.Error(connect.Token)
		}
		begin := time.Now()
		pings := func(p *peer) *wire.Command { // keeps the socket alive until something else comes
			for {
				<-time.After(15 * time.Second)
				p.send("{}")
				if cmd := p.read(); cmd.Method != nil {
					p.read() // the pong
					return cmd
				}
			}
		}
		cmd := pings(p)
		if d := time.Since(begin); cmd.GetRefresh().GetToken() != "t2" || d < 540*time.Second || d > 556*time.Second {
			t.Errorf("%v after %v, want a new token a minute before the end", cmd, d)
		}
		p.send(`{"id":%d,"refresh":{"exp_at":%d}}`, cmd.Id, now()+600_000)
		cmd = pings(p)
		if cmd.GetRefresh().GetToken() != "t4" {
			t.Errorf("%v, want another try after the failure", cmd)
		}
		p.send(`{"id":%d,"refresh":{"exp_at":%d}}`, cmd.Id, now()+3600_000)
		synctest.Wait()
		p.close(wire.CloseTokenExpired)
		p2, connect := srv.next(`,"done":true`)
		if connect.Token != "t5" {
			t.Errorf("%s, want a fresh one after 4013", connect.Token)
		}
		go func() { p2.send(`{"id":%d,"refresh":{}}`, p2.read().Id) }()
		if err := c.Refresh(t.Context()); err != nil || n != 6 {
			t.Error(err, n)
		}
		c.Close()
		p2.end()
	})
}

// A server that does not read holds nobody longer than the caller's context, and is left.
func TestServerThatDoesNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		srv.stall = true
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		srv.mu.Lock()
		srv.stall = false
		srv.mu.Unlock()
		begin := time.Now()
		const callers = 200
		results := make(chan error, callers)
		for range callers {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				results <- c.SetStatus(ctx, Status{State: Away})
			}()
		}
		for range callers {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("callers were held for %v", d)
		}
		c.Typing(Typing{User: "ann"})
		p2, _ := srv.next(`,"done":true`)
		if d := time.Since(begin); d > 13*time.Second {
			t.Errorf("the socket was left after %v", d)
		}
		c.Close()
		p2.end()
		close(p.freed)
	})
}

func TestByeWithoutConnection(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		srv.setDown(true)
		p.close(0)
		synctest.Wait()
		if err := c.Bye(t.Context()); err != ErrNotConnected {
			t.Error(err)
		}
	})
}
