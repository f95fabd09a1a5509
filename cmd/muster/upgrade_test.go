package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	sdk "muster/clients/go"
)

// The nodes of a cluster are replaced one by one, while users are watched and messages are stored, by a build that claims to
// be a minor version newer; on the way one goes back. Nobody is seen offline and nothing acknowledged is lost. Records are
// written in the new version when the last node knows it: from then on the older build is refused. So is, before that, one that is two
// minor versions newer.
func TestRollingUpgrade(t *testing.T) {
	f := newFleet(t, "n1", "n2", "n3")
	n1, n2, n3 := f.nodes["n1"], f.nodes["n2"], f.nodes["n3"]
	e1, e2 := f.add("e1", "--role", "edge"), f.add("e2", "--role", "edge")
	for _, m := range []*peer{n1, n2, n3, e1} {
		f.start(m)
	}
	f.startAs(e2, "--claim-newer", "1")
	for _, m := range []*peer{n1, n2, n3, e1, e2} {
		m.line("ready listen=")
	}
	f.eventually("three voters", func() string { return f.whole(n1, 1) })
	seen := f.crowd(e1, e2, "ann")
	var users []string // in so many shards that some move from a newer node to an older one
	for i := range 30 {
		users = append(users, fmt.Sprint("u", i))
	}
	load := f.store(e1, users...)

	for name, args := range map[string][]string{"n4": {"--data", t.TempDir()}, "e4": {"--role", "edge"}} {
		f.refused(f.add(name, args...), "speaks versions 1 to 1, this build 2 to 3", "2")
	}
	f.stop(n1)
	f.refused(n1, "records are written in version 1, and this build writes 2 to 3", "2")
	f.startAs(n1, "--claim-newer", "1")
	f.eventually("n1 is newer", func() string { return f.whole(n2, 1) })
	f.replace(n2, 1, "1") // n1 leads from here on
	seen.live()
	f.replace(n1, 1, "0") // n3, which is of the older build, reads what n1 has written
	seen.live()
	f.replace(n1, 1, "1")
	f.replace(n3, 2, "1")
	f.stop(n3)
	f.refused(n3, "records are written in version 2, and this build knows them up to 1", "0")
	f.startAs(n3, "--claim-newer", "1")
	f.eventually("n3 is newer", func() string { return f.whole(n1, 2) })
	seen.live()
	seen.steady()
	load.finish()
}

// replace stops a node and starts it as a build so many minor versions newer. The cluster then writes records in a version.
func (f *fleet) replace(m *peer, records uint8, newer string) {
	f.t.Helper()
	f.stop(m)
	f.startAs(m, "--claim-newer", newer)
	m.line("ready listen=")
	f.eventually(fmt.Sprint(m.name, " is ", newer, " newer"), func() string { return f.whole(m, records) })
}

func (f *fleet) stop(m *peer) {
	f.t.Helper()
	m.signal(syscall.SIGTERM)
	if code := m.exit(); code != 0 {
		f.t.Fatalf("%s: exit code %d: %q", m.name, code, m.lines)
	}
}

// refused wants a node to end with one line that says why.
func (f *fleet) refused(m *peer, why, newer string) {
	f.t.Helper()
	f.startAs(m, "--claim-newer", newer)
	if code := m.exit(); code != 1 {
		f.t.Errorf("%s: exit code %d", m.name, code)
	}
	if last := m.lines[len(m.lines)-1]; !strings.Contains(last, why) {
		f.t.Errorf("%s said %q, want %q", m.name, m.lines, why)
	}
}

// whole says what three active cores lack to hold every shard threefold, up to date, and to write records in a version.
func (f *fleet) whole(m *peer, records uint8) string {
	doc, err := f.doc(m)
	if err != nil {
		return err.Error()
	}
	for _, n := range []string{"n1", "n2", "n3"} { // says which shards cannot be read
		if status, why := f.call(f.nodes[n], devSecret, "/readyz", ""); status != http.StatusOK {
			return fmt.Sprint(n, ": ", status, " ", why)
		}
	}
	active := 0
	for _, n := range doc.Nodes {
		if n.Role == "both" && n.State == "active" {
			active++
		}
	}
	if active != 3 || doc.Records != records {
		return fmt.Sprintf("records of version %d, nodes %+v", doc.Records, doc.Nodes)
	}
	for _, s := range doc.Shards {
		if len(s.Voters) != 3 || s.Leader == "" || s.Lag > 64 {
			return fmt.Sprintf("shard %+v", s)
		}
	}
	return ""
}

// storing is somebody who stores numbers for users, and users who read them.
type storing struct {
	f     *fleet
	users []string
	stop  context.CancelFunc
	wait  sync.WaitGroup
	last  int // the last number that was acknowledged for all users
	retry int

	mu   sync.Mutex
	read map[string][]string
}

// store begins to store through a node, one number after the other, each until it is acknowledged.
func (f *fleet) store(m *peer, users ...string) *storing {
	ctx, stop := context.WithCancel(f.t.Context())
	s := &storing{f: f, users: users, stop: stop, read: map[string][]string{}}
	f.t.Cleanup(func() { stop(); s.wait.Wait() })
	for _, u := range users {
		client, err := sdk.Dial(ctx, m.url, sdk.Options{Token: tokenFor(f.t, u), DeviceID: "d", Outbox: new(sdk.MemoryPosition), Wait: true})
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(client.Close)
		s.wait.Go(func() {
			for d := range client.Outbox().Deliveries(f.t.Context()) {
				s.mu.Lock()
				switch {
				case d.Entry == nil:
					s.read[u] = append(s.read[u], fmt.Sprintf("%+v", d))
				default:
					s.read[u] = append(s.read[u], string(d.Entry.Body))
				}
				s.mu.Unlock()
			}
		})
	}
	s.wait.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			s.number(ctx, m, s.last+1)
		}
	})
	return s
}

// number stores one number for all users, as often as it takes.
func (s *storing) number(ctx context.Context, m *peer, n int) {
	list, _ := json.Marshal(s.users)
	body := fmt.Sprintf(`{"users":%s,"client_id":%q,"body":%d}`, list, uuid.Must(uuid.NewV7()), n)
	for again := false; ctx.Err() == nil; again = true {
		if again {
			s.retry++
		}
		status, text := s.f.call(m, devSecret, "/v1/publish", body)
		var answer struct{ Results []publishResult }
		if status != http.StatusOK || json.Unmarshal([]byte(text), &answer) != nil || len(answer.Results) != len(s.users) {
			continue
		}
		stored := 0
		for _, r := range answer.Results {
			if r.Error == nil {
				stored++
			}
		}
		if stored == len(s.users) {
			s.last = n
			return
		}
	}
}

// finish ends the storing: each user has read every number that was acknowledged, once and in order.
func (s *storing) finish() {
	s.f.t.Helper()
	s.stop()
	var last string
	s.f.eventually("what was stored is read", func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, u := range s.users {
			if len(s.read[u]) < s.last {
				return fmt.Sprintf("%s has read %d of %d", u, len(s.read[u]), s.last)
			}
		}
		return ""
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		for i, n := range s.read[u] {
			if n != fmt.Sprint(i+1) {
				s.f.t.Fatalf("%s read %s as number %d, after %s", u, n, i+1, last)
			}
			last = n
		}
	}
	s.f.t.Logf("%d messages for %d users, %d attempts were repeated", s.last, len(s.users), s.retry)
	if s.last < 50 {
		s.f.t.Errorf("only %d messages were stored", s.last)
	}
}
