package muster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"muster/clients/wire"
)

type published struct {
	receipt Receipt
	err     error
}

func publish(t *testing.T, ctx context.Context, c *Client, m Message) chan published {
	t.Helper()
	result := make(chan published, 1)
	go func() {
		r, err := c.Publish(ctx, "ann", m)
		result <- published{r, err}
	}()
	return result
}

func TestPublish(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		hour := time.Hour // the server's clock is ahead
		c, p, _ := srv.dial(srv.options(), fmt.Sprintf(`,"done":true,"server_at":%d`, time.Now().Add(hour).UnixMilli()))
		<-time.After(3 * time.Second)
		result := publish(t, t.Context(), c, Message{Body: map[string]int{"a": 1}, Class: "critical", TTL: time.Minute, CollapseKey: "k", AnyDevice: true})
		cmd := p.read()
		m := cmd.GetPublish()
		id, err := uuid.Parse(m.GetClientId())
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Errorf("%q is no UUIDv7: %v", m.GetClientId(), err)
		}
		seconds, nanos := id.Time().UnixTime()
		if at := time.Unix(seconds, nanos); !at.Equal(time.Now().Add(hour)) {
			t.Errorf("the id is of %v, the server's clock says %v", at, time.Now().Add(hour))
		}
		m.ClientId = "x"
		if got := string(cmd.AppendJSON(nil)); got != fmt.Sprintf(`{"id":%d,"publish":{"user":"ann","client_id":"x","body":{"a":1},"class":"critical","ttl_ms":60000,"collapse_key":"k","ack_mode":"any_device"}}`, cmd.Id) {
			t.Error(got)
		}
		p.send(`{"id":%d,"publish":{"client_id":"%s","at":5000}}`, cmd.Id, id)
		if r := <-result; r.err != nil || r.receipt.ID != id.String() || r.receipt.At.UnixMilli() != 5000 {
			t.Error(r)
		}
		c.Close()
		p.end()
	})
}

// Whatever happens on the way, the same id is sent until there is an answer that counts.
func TestPublishInsists(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		result := publish(t, t.Context(), c, Message{Body: "hi"})
		cmd := p.read()
		first := cmd.GetPublish().GetClientId()
		next := func() uint64 {
			t.Helper()
			cmd := p.read()
			if id := cmd.GetPublish().GetClientId(); id != first {
				t.Errorf("sent %q again as %q", first, id)
			}
			return cmd.Id
		}
		p.send(`{"id":%d,"error":{"code":123,"name":"MOVING","retryable":true,"retry_after_ms":50}}`, cmd.Id)
		p.send(`{"id":%d,"error":{"code":128,"name":"BUSY","retryable":true}}`, next())
		p.send(`{"id":%d,"error":{"code":122,"name":"CUT_OFF","retryable":true}}`, next())
		p.send(`{"id":%d,"error":{"code":100,"name":"INTERNAL","retryable":true}}`, next())
		next()
		begin := time.Now()
		p.close(0) // the answer is lost
		p, _ = srv.next(`,"resumed":true,"done":true`)
		next()
		next() // there was no answer
		if d := time.Since(begin); d < 15*time.Second-time.Millisecond || d > 20*time.Second {
			t.Errorf("sent again after %v", d)
		}
		srv.setDown(true)
		p.close(wire.CloseDrain)
		<-time.After(time.Minute)
		srv.setDown(false)
		p, _ = srv.next(`,"resumed":true,"done":true`)
		p.send(`{"id":%d,"publish":{"client_id":"%s","at":7000}}`, next(), first)
		if r := <-result; r.err != nil || r.receipt.ID != first || r.receipt.At.UnixMilli() != 7000 {
			t.Error(r)
		}
		c.Close()
		p.end()
	})
}

func TestPublishEnds(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		for _, code := range []wire.Code{wire.CodeIDReused, wire.CodeIDExpired, wire.CodeOutboxFull, wire.CodeBlocked, wire.CodePermissionDenied, wire.CodeTooLarge} {
			result := publish(t, t.Context(), c, Message{ID: "01K3STVJGG8ZPX7M4S2QWB6R9T"})
			cmd := p.read()
			if id := cmd.GetPublish().GetClientId(); id != "01K3STVJGG8ZPX7M4S2QWB6R9T" {
				t.Error(id)
			}
			answer := wire.Reply{Id: cmd.Id, Body: &wire.Reply_Error{Error: code.Error("", 0)}}
			p.send("%s", answer.AppendJSON(nil))
			if r := <-result; !errors.Is(r.err, &Error{Code: code}) {
				t.Errorf("%v: %v", code, r.err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		result := publish(t, ctx, c, Message{})
		id := p.read().GetPublish().GetClientId()
		p.read()
		if r := <-result; !errors.Is(r.err, context.DeadlineExceeded) || r.receipt.ID != id {
			t.Error(r, id)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		result = publish(t, ctx, c, Message{})
		p.send(`{"id":%d,"error":{"code":128,"name":"BUSY","retryable":true,"retry_after_ms":30000}}`, p.read().Id)
		if r := <-result; !errors.Is(r.err, context.DeadlineExceeded) || !errors.Is(r.err, &Error{Code: wire.CodeBusy}) {
			t.Error(r)
		}
		for _, m := range []Message{{Body: func() {}}, {Body: strings.Repeat("x", wire.MaxBody)}} {
			if _, err := c.Publish(t.Context(), "ann", m); err == nil {
				t.Errorf("took %T", m.Body)
			}
		}
		if _, err := c.Publish(t.Context(), "no such id", Message{}); err == nil {
			t.Error("took a bad id")
		}
		result = publish(t, t.Context(), c, Message{})
		p.read()
		c.Close()
		if r := <-result; !errors.Is(r.err, ErrClosed) {
			t.Error(r.err)
		}
		p.end()
	})
}

func TestIDs(t *testing.T) {
	at := time.UnixMilli(1789000000123)
	seen := map[string]bool{}
	for range 1000 {
		s := newID(at)
		id, err := uuid.Parse(s)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || !strings.HasPrefix(strings.ReplaceAll(s, "-", ""), fmt.Sprintf("%012x", at.UnixMilli())) || seen[s] {
			t.Fatal(s, err)
		}
		seen[s] = true
	}
}
