package muster

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/clients/wire"
)

func TestContactCallsOnTheWire(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		ctx := t.Context()
		ids := make([]string, wire.MaxBlock+1)
		for i := range ids {
			ids[i] = "u"
		}
		quoted := `"u"` + strings.Repeat(`,"u"`, wire.MaxBlock-1)
		for _, row := range []struct {
			call func() error
			want []string
		}{
			{func() error { return c.Block(ctx, ids...) }, []string{`"block":{"add":[` + quoted + `]}`, `"block":{"add":["u"]}`}},
			{func() error { return c.Unblock(ctx, "v") }, []string{`"block":{"remove":["v"]}`}},
			{func() error { return c.Unblock(ctx) }, nil},
			{func() error { return c.NotifyWhen(ctx, "v", time.Hour) }, []string{`"notify_when":{"user":"v","ttl_ms":3600000}`}},
			{func() error { return c.EndNotifyWhen(ctx, "v") }, []string{`"notify_when":{"user":"v","end":true}`}},
			{func() error { return c.RegisterPush(ctx, "fcm", "tok") }, []string{`"device":{"provider":"fcm","token":"tok"}`}},
			{func() error { return c.ForgetDevice(ctx) }, []string{`"device":{"forget":true}`}},
		} {
			result := make(chan error)
			go func() { result <- row.call() }()
			for _, want := range row.want {
				cmd := p.read()
				if got := string(cmd.AppendJSON(nil)); got != fmt.Sprintf(`{"id":%d,%s}`, cmd.Id, want) {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				p.send(`{"id":%d,%s:{}}`, cmd.Id, want[:strings.Index(want, ":")])
			}
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		if err := c.Block(ctx, "no id"); err == nil {
			t.Error("took a bad id")
		}
		c.Close()
		p.end()
	})
}

func TestContacts(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		o := srv.options()
		var told []Contact
		o.OnContact = func(c Contact) { told = append(told, c) }
		c, p, _ := srv.dial(o, `,"done":true`)
		for action, row := range map[ContactAction]struct {
			json string
			want Contact
		}{
			Subscribe:   {`,"pending_out":true`, Contact{PendingOut: true}},
			Approve:     {`,"subscription":"from"`, Contact{From: true}},
			Deny:        {`,"subscription":"to"`, Contact{To: true}},
			Unsubscribe: {`,"subscription":"both","approved":true,"pending_in":true`, Contact{To: true, From: true, Approved: true, PendingIn: true}},
			Remove:      {``, Contact{}},
		} {
			go func() {
				cmd := p.read()
				if m := cmd.GetContact(); m.GetUser() != "ann" || m.GetAction() != string(action) {
					t.Errorf("%s: sent %v", action, cmd)
				}
				p.send(`{"id":%d,"contact":{"contact":{"user":"ann"%s}}}`, cmd.Id, row.json)
			}()
			row.want.User = "ann"
			if got, err := c.Contact(t.Context(), "ann", action); err != nil || got != row.want {
				t.Errorf("%s: %+v %v", action, got, err)
			}
		}
		go func() {
			p.send(`{"id":%d,"contacts":{"contacts":[{"user":"a","subscription":"to"},{"user":"b","blocked":true}],"more":true}}`, p.read().Id)
			cmd := p.read()
			if cmd.GetContacts().GetAfter() != "b" {
				t.Error(cmd)
			}
			p.send(`{"id":%d,"contacts":{"contacts":[{"user":"c","pending_in":true}]}}`, cmd.Id)
		}()
		if list, err := c.Contacts(t.Context()); err != nil || fmt.Sprint(list) != "[{a true false false false false false} {b false false false false false true} {c false false false true false false}]" {
			t.Error(list, err)
		}
		p.push(`"contact":[{"user":"x","pending_in":true},{"user":"y"}]`)
		synctest.Wait()
		if fmt.Sprint(told) != "[{x false false false true false false} {y false false false false false false}]" {
			t.Error(told)
		}
		c.Close()
		p.end()
	})
}

// What belonged to a session is set again when another one had to begin.
func TestClaimsAreSetAgain(t *testing.T) {
	bubble(t, func(t *testing.T, srv *server) {
		c, p, _ := srv.dial(srv.options(), `,"done":true`)
		say := func(f func() error) {
			t.Helper()
			result := make(chan error)
			go func() { result <- f() }()
			cmd := p.read()
			p.send(`{"id":%d,"claim":{}}`, cmd.Id)
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		ctx := t.Context()
		say(func() error { return c.SetStatus(ctx, Status{State: DND, Text: "call", TTL: 5 * time.Minute}) })
		say(func() error { return c.SetClaim(ctx, Claim{ID: "g", Source: "game", State: Away}) })
		say(func() error { return c.SetClaim(ctx, Claim{ID: "short", State: Away, TTL: time.Minute}) })
		say(func() error { return c.SetClaim(ctx, Claim{ID: "long", State: Away, TTL: time.Hour}) })
		say(func() error { return c.SetClaim(ctx, Claim{ID: "ended", State: Away}) })
		say(func() error { return c.EndClaim(ctx, "ended") })
		say(func() error { return c.SetClaim(ctx, Claim{ID: "gone", State: Away}) })
		p.push(`"self":{"claims":[{"id":"manual"},{"id":"g"},{"id":"short"}]}`) // another device has ended it
		p.close(0)
		p, _ = srv.next(`,"resumed":true,"done":true`)
		srv.setDown(true)
		p.close(0)
		<-time.After(100 * time.Second)
		srv.setDown(false)
		p, _ = srv.next(`,"done":true,"self":{"claims":[{"id":"long"}]}`)
		for _, want := range []string{`{"id":"g","source":"game","state":"away"}`, `{"id":"manual","source":"manual","state":"dnd","text":"call","ttl_ms":`} {
			cmd := p.read()
			if got := string(cmd.GetClaim().AppendJSON(nil)); !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if ttl := cmd.GetClaim().GetTtlMs(); ttl > 200_000 {
				t.Errorf("%v ms are left of 5 min after 100 s", ttl)
			}
			p.send(`{"id":%d,"claim":{}}`, cmd.Id)
		}
		say(func() error { return c.SetStatus(ctx, Status{State: Online}) })
		p.close(0)
		p, _ = srv.next(`,"done":true,"self":{"claims":[{"id":"g","state":"dnd"}]}`) // set by another device meanwhile
		p.send("{}")
		if cmd := p.read(); cmd.Method != nil {
			t.Errorf("got %v, want nothing but a pong", cmd)
		}
		c.Close()
		p.end()
	})
}
