package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	sdk "muster/clients/go"
	"muster/edge/auth"
)

var (
	kills    = flag.Int("kills", 3, "how often TestKill kills the server")
	killSeed = flag.Uint64("kill-seed", 0, "seed of TestKill's moments; 0: a random one")
)

const (
	killRate      = 2000 // sends a second
	killReceivers = 20
	killSessions  = 8  // clients that publish over sockets
	killWorkers   = 64 // sends under way on all of them, and half as many over HTTP
)

// campaign is a server that is killed again and again while everybody goes on.
type campaign struct {
	t        *testing.T
	args     []string
	url, api string
	tokens   chan struct{} // one for each send that is due
	number   atomic.Uint64

	mu       sync.Mutex
	sent     map[string]message  // by client id
	acked    map[string]bool     // the publisher was told that it is stored
	order    []string            // the same, in the order of the answers
	offsets  map[string]uint64   // HTTP: offset that the publisher was told
	got      map[string][]uint64 // client id → offsets under which devices got it
	devices  map[string]*inbound // by device
	faults   []string
	attempts atomic.Uint64 // over HTTP, with retries
}

type message struct {
	user, body string
	by         *sdk.Client // nil: over HTTP
}

// inbound is what one device was given.
type inbound struct {
	user, epoch string
	last        uint64
}

// TestKill kills the server with SIGKILL at random moments under 2,000 durable sends a
// second. What was acknowledged must arrive, once, without holes, and nothing may be
// forgotten that was told to anybody.
func TestKill(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := &campaign{
		t: t, tokens: make(chan struct{}, killRate/10),
		sent: map[string]message{}, acked: map[string]bool{}, offsets: map[string]uint64{}, got: map[string][]uint64{}, devices: map[string]*inbound{},
	}
	listen, api := freeAddress(t), freeAddress(t)
	c.url, c.api = "ws://"+listen+"/v1/ws", "http://"+api
	c.args = []string{"serve", "--dev", "--listen", listen, "--api-listen", api, "--node-name", "n1", "--data", t.TempDir(), "--log-level", "warn",
		"--conn-rate", "1000000", "--conn-burst", "1000000", "--user-rate", "1000000", "--admit-new", "1000000"}
	p := c.start()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var receiving, sending sync.WaitGroup
	for i := range killReceivers {
		c.receive(ctx, &receiving, fmt.Sprintf("r%d", i), "d1")
	}
	c.receive(ctx, &receiving, "r0", "d2") // a second device
	work, stop := context.WithCancel(ctx)
	c.send(work, ctx, &sending)

	var up time.Duration // all the time that there was a server
	for n := range *kills {
		ready := time.Now()
		<-time.After(time.Duration(100+rnd.IntN(900)) * time.Millisecond)
		c.noneAhead()
		up += time.Since(ready)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		p = c.start()
		if n%20 == 19 {
			t.Logf("%d kills, %s", n+1, c.counts())
		}
	}
	c.mu.Lock()
	atKill := len(c.acked)
	c.mu.Unlock()
	<-time.After(500 * time.Millisecond)
	stop()
	sending.Wait()
	c.settle()
	c.retry(ctx)
	c.noneAhead()
	cancel()
	receiving.Wait()
	for _, f := range c.judge(10 * *kills) {
		t.Error(f)
	}
	t.Logf("seed %d: %d kills, %s; %.0f acknowledged a second", seed, *kills, c.counts(), float64(atKill)/up.Seconds())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (c *campaign) start() *process {
	p := spawn(c.t, c.args...)
	p.line("ready listen=")
	return p
}

func (c *campaign) counts() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d sent, %d acknowledged, %d arrived, %d requests over HTTP", len(c.sent), len(c.acked), len(c.got), c.attempts.Load())
}

// fault notes a violation.
func (c *campaign) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 20 {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

// client connects as a user and comes back by itself.
func (c *campaign) client(ctx context.Context, user, device string, store sdk.PositionStore) *sdk.Client {
	c.t.Helper()
	token, err := auth.Sign(auth.Secret(devSecret), auth.Claims{
		User: user, Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(5 * time.Hour), Caps: []string{"*", "publish"},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	client, err := sdk.Dial(ctx, c.url, sdk.Options{
		Token: token, DeviceID: device, Outbox: store, Wait: true, Backoff: sdk.Backoff{Min: 20 * time.Millisecond, Max: 300 * time.Millisecond},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// receive reads a user's outbox to the end of ctx.
func (c *campaign) receive(ctx context.Context, running *sync.WaitGroup, user, device string) {
	client := c.client(ctx, user, device, new(sdk.MemoryPosition))
	in := &inbound{user: user}
	c.devices[user+"/"+device] = in
	running.Go(func() {
		defer client.Close()
		for d := range client.Outbox().Deliveries(ctx) {
			switch {
			case d.Reset:
				c.fault("%s/%s: the outbox was reset at %v", user, device, d.Position)
			case d.Gap != nil:
				c.fault("%s/%s: gap %+v", user, device, *d.Gap)
			case d.Entry != nil:
				c.take(in, device, d)
			}
		}
	})
}

func (c *campaign) take(in *inbound, device string, d sdk.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := func(format string, args ...any) {
		c.faults = append(c.faults, in.user+"/"+device+": "+fmt.Sprintf(format, args...))
	}
	if in.epoch == "" {
		in.epoch = d.Position.Epoch
	}
	if d.Position.Epoch != in.epoch {
		wrong("epoch %s after %s", d.Position.Epoch, in.epoch)
	}
	if d.Entry.Offset != in.last+1 {
		wrong("offset %d after %d", d.Entry.Offset, in.last)
	}
	in.last = d.Entry.Offset
	m, known := c.sent[d.Entry.ID]
	switch {
	case !known:
		wrong("id %s was never sent", d.Entry.ID)
	case m.user != in.user || m.body != string(d.Entry.Body):
		wrong("id %s: %q for %s came to %s as %q", d.Entry.ID, m.body, m.user, in.user, d.Entry.Body)
	}
	c.got[d.Entry.ID] = append(c.got[d.Entry.ID], d.Entry.Offset)
}

// send keeps the rate until work ends; what is under way then is sent to its end.
func (c *campaign) send(work, ctx context.Context, sending *sync.WaitGroup) {
	sending.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-work.Done():
				close(c.tokens)
				return
			case <-tick.C:
			}
			for range killRate / 200 {
				select {
				case c.tokens <- struct{}{}:
				default: // the server is behind, or dead
				}
			}
		}
	})
	for i := range killSessions {
		client := c.client(ctx, fmt.Sprintf("s%d", i), "d1", nil)
		c.t.Cleanup(client.Close)
		for range killWorkers / killSessions {
			sending.Go(func() {
				for range c.tokens {
					c.deliver(ctx, client)
				}
			})
		}
	}
	for range killWorkers / 2 {
		sending.Go(func() {
			for range c.tokens {
				c.deliver(ctx, nil)
			}
		})
	}
}

// deliver sends one message until it is stored, over the client's socket or, without one, HTTP.
func (c *campaign) deliver(ctx context.Context, by *sdk.Client) {
	n := c.number.Add(1)
	m := message{user: fmt.Sprintf("r%d", n%killReceivers), body: fmt.Sprintf(`{"n":%d}`, n), by: by}
	id := uuid.Must(uuid.NewV7()).String()
	c.mu.Lock()
	c.sent[id] = m
	c.mu.Unlock()
	if offset, err := c.publish(ctx, id, m); err != nil {
		c.fault("publish %s: %v", id, err)
	} else {
		c.ack(id, offset)
	}
}

func (c *campaign) ack(id string, offset uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[id] = true
	c.order = append(c.order, id)
	if offset > 0 {
		c.offsets[id] = offset
	}
}

// publish sends again and again until it is stored. offset is 0 if it is not told.
func (c *campaign) publish(ctx context.Context, id string, m message) (offset uint64, err error) {
	if m.by != nil {
		_, err := m.by.Publish(ctx, m.user, sdk.Message{ID: id, Body: json.RawMessage(m.body)})
		return 0, err
	}
	deadline := time.Now().Add(time.Minute)
	for {
		offset, again, err := c.publishOnce(ctx, id, m)
		if err == nil || !again || time.Now().After(deadline) {
			return offset, err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// publishResult is one user's part of the answer to /v1/publish.
type publishResult struct {
	User      string
	Offset    uint64
	Epoch     string
	Duplicate bool
	Error     *struct {
		Name, Message string
		Retryable     bool
	}
}

func (c *campaign) publishOnce(ctx context.Context, id string, m message) (offset uint64, again bool, err error) {
	c.attempts.Add(1)
	body := fmt.Sprintf(`{"users":[%q],"client_id":%q,"body":%s}`, m.user, id, m.body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.api+"/v1/publish", strings.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+devSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, true, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%s: %s", resp.Status, data)
	}
	var answer struct{ Results []publishResult }
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&answer); err != nil || len(answer.Results) != 1 {
		return 0, false, fmt.Errorf("answer %s: %v", data, err)
	}
	r := answer.Results[0]
	if r.Error != nil {
		return 0, r.Error.Retryable, errors.New(r.Error.Name + ": " + r.Error.Message)
	}
	return r.Offset, false, nil
}

// settle waits until every acknowledged send has arrived, or 30 s.
func (c *campaign) settle() {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		if c.missing() == 0 {
			return
		}
	}
}

func (c *campaign) missing() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.acked {
		if len(c.got[id]) < c.readers(id) {
			n++
		}
	}
	return n
}

// readers is how many devices read what was sent under an id.
func (c *campaign) readers(id string) int {
	if c.sent[id].user == "r0" {
		return 2
	}
	return 1
}

// retry sends some of the last messages again that were acknowledged (of a sender and a
// user the server remembers 1,024): they must get the offset under
// which they were delivered, and not be delivered again before what follows them.
func (c *campaign) retry(ctx context.Context) {
	c.mu.Lock()
	last := slices.Clone(c.order[max(0, len(c.order)-5000):])
	c.mu.Unlock()
	for i := 0; i < len(last); i += 1 + len(last)/200 {
		id := last[i]
		offset, err := c.publish(ctx, id, c.sent[id])
		c.mu.Lock()
		got := slices.Clone(c.got[id])
		c.mu.Unlock()
		if err != nil || offset != 0 && !slices.Contains(got, offset) {
			c.fault("id %s sent again: offset %d, it was delivered as %v (%v)", id, offset, got, err)
		}
	}
	for range killReceivers {
		c.deliver(ctx, nil)
	}
	c.settle()
}

// noneAhead asks whether a device came back with an offset that the server had never given.
func (c *campaign) noneAhead() {
	req, err := http.NewRequest(http.MethodGet, c.api+"/metrics", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+devSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "muster_core_resume_ahead_total "); ok {
			if strings.TrimSpace(value) != "0" {
				c.fault("resume_ahead is %s", value)
			}
			return
		}
	}
	c.t.Fatal("no metric muster_core_resume_ahead_total")
}

// judge lists what is wrong.
func (c *campaign) judge(least int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	faults := slices.Clone(c.faults)
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if len(c.acked) < least {
		wrong("only %d sends were acknowledged: the run shows nothing", len(c.acked))
	}
	lost := 0
	for id := range c.acked {
		offsets := c.got[id]
		switch {
		case len(offsets) == 0:
			lost++
		case len(offsets) != c.readers(id) || slices.Min(offsets) != slices.Max(offsets):
			wrong("id %s was delivered as %v to %d devices", id, offsets, c.readers(id))
		case c.offsets[id] != 0 && c.offsets[id] != offsets[0]:
			wrong("id %s was acknowledged as %d, delivered as %d", id, c.offsets[id], offsets[0])
		}
	}
	if lost > 0 {
		wrong("%d acknowledged sends were lost", lost)
	}
	return faults
}

// The campaign's checks find what they are there for.
func TestKillChecksFindWhatIsWrong(t *testing.T) {
	entry := func(epoch string, offset uint64, id, body string) sdk.Delivery {
		return sdk.Delivery{Position: sdk.Position{Epoch: epoch, Offset: offset}, Entry: &sdk.Entry{Offset: offset, ID: id, Body: json.RawMessage(body)}}
	}
	for name, c := range map[string]struct {
		deliveries []sdk.Delivery
		want       string // "": nothing is wrong
	}{
		"all is well":    {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 2, "b", "2")}, ""},
		"lost":           {[]sdk.Delivery{entry("e", 1, "a", "1")}, "1 acknowledged sends were lost"},
		"twice":          {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 2, "b", "2"), entry("e", 3, "a", "1")}, "id a was delivered as [1 3]"},
		"a hole":         {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 3, "b", "2")}, "offset 3 after 1"},
		"backwards":      {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 1, "b", "2")}, "offset 1 after 1"},
		"another epoch":  {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("f", 2, "b", "2")}, "epoch f after e"},
		"never sent":     {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 2, "b", "2"), entry("e", 3, "z", "3")}, "id z was never sent"},
		"another body":   {[]sdk.Delivery{entry("e", 1, "a", "1"), entry("e", 2, "b", "1")}, "came to r1"},
		"another offset": {[]sdk.Delivery{entry("e", 1, "b", "2"), entry("e", 2, "a", "1")}, "id a was acknowledged as 1, delivered as 2"},
	} {
		k := &campaign{
			t: t, sent: map[string]message{"a": {user: "r1", body: "1"}, "b": {user: "r1", body: "2"}},
			acked: map[string]bool{}, offsets: map[string]uint64{}, got: map[string][]uint64{},
		}
		k.ack("a", 1)
		k.ack("b", 0)
		in := &inbound{user: "r1"}
		for _, d := range c.deliveries {
			k.take(in, "d", d)
		}
		faults := strings.Join(k.judge(1), "; ")
		if c.want == "" && faults != "" || !strings.Contains(faults, c.want) {
			t.Errorf("%s: %q, want %q", name, faults, c.want)
		}
	}
	if faults := (&campaign{}).judge(1); len(faults) != 1 {
		t.Errorf("a run that shows nothing: %q", faults)
	}
}

// outbox reads the first n entries of a user's outbox as a new device and returns their ids.
func (c *campaign) outbox(user string, n int) (ids []string) {
	c.t.Helper()
	return c.outboxOf(user, uuid.NewString(), new(sdk.MemoryPosition), n)
}

// outboxOf is outbox for a device of a name that knows its position.
func (c *campaign) outboxOf(user, device string, position sdk.PositionStore, n int) (ids []string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	client := c.client(ctx, user, device, position)
	defer client.Close()
	for d := range client.Outbox().Deliveries(ctx) {
		if d.Entry == nil {
			if d.Gap != nil && d.Gap.Reason == "acked" {
				continue
			}
			c.t.Fatalf("%s: %+v instead of an entry", user, d)
		}
		if ids = append(ids, d.Entry.ID); len(ids) == n {
			_ = position.Save(ctx, d.Position)
			break
		}
	}
	_ = client.Bye(ctx)
	return ids
}

// readyz is empty when a server is ready, else what it says.
func readyz(t *testing.T, api string) string {
	t.Helper()
	resp, err := http.Get(api + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return ""
	}
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}
