//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	sdk "muster/clients/go"
	"muster/edge/auth"
)

const (
	callPatience = 3 * time.Second // for one HTTP request
	sendPatience = time.Minute     // for one message, over all attempts
	backoffMin   = 50 * time.Millisecond
	backoffMax   = time.Second
	arrivals     = 300 // people a second, at the start
)

// record is what a campaign remembers.
type record struct {
	start time.Time

	mu      sync.Mutex
	sends   []send
	devices []device
	steps   []step
	ops     []statusOp
	views   []seen
	spans   []presentSpan
	probes  []probe
	samples []sample
	faults  []faultSpan
	crashes []string

	absences []absence
}

func (r *record) now() time.Duration { return time.Since(r.start) }

func (r *record) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// load is what uses the cluster: the fronts are the servers that take clients.
type load struct {
	*record
	fronts   []place
	balancer *balancer
	seed     uint64
	http     *http.Client
	running  sync.WaitGroup
	hard     context.Context // ends everything
	exact    *exactness

	receivers int           // users whose outboxes are read
	arrival   time.Duration // over which all people come
}

func newLoad(hard context.Context, r *record, fronts []place, o Options) *load {
	arrival := max(3*time.Second, time.Duration(o.Sessions)*time.Second/arrivals)
	return &load{record: r, receivers: max(receivers, o.Sends/perReceiver), fronts: fronts, balancer: newBalancer(fronts), seed: o.Seed, hard: hard, exact: newExactness(r.now), arrival: arrival, http: &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialPatience}).DialContext, MaxIdleConnsPerHost: 100,
	}}}
}

// random is a source for one part of the workload; the same at each replay.
func (l *load) random(part uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, part)) }

// errGrounded is what somebody gets who is to stay away.
var errGrounded = errors.New("stays away")

// balanced dials what the balancer chooses. It dials nothing while grounded says so; that may be nil.
func (l *load) balanced(grounded *atomic.Bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if grounded != nil && grounded.Load() {
				return nil, errGrounded
			}
			return l.balancer.dial(ctx)
		},
		DisableKeepAlives: true,
	}}
}

// clientURL goes to whom the balancer chooses.
const clientURL = "ws://muster.invalid/v1/ws"

func token(user string) string {
	t, err := auth.Sign(auth.Secret(tokenKey), auth.Claims{
		User: user, Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(48 * time.Hour), Caps: []string{"watch", "status", "publish"},
	})
	if err != nil {
		panic(err) // the key is a constant
	}
	return t
}

// dial connects a user until ctx ends. It waits while grounded says so; that may be nil.
func (l *load) dial(ctx context.Context, user string, o sdk.Options, grounded *atomic.Bool) (*sdk.Client, error) {
	o.Token, o.Wait, o.HTTPClient = token(user), true, l.balanced(grounded)
	o.Backoff.Max = backoffMax // so that a cluster that has healed is seen to; all else is what the SDK does by itself
	if o.DeviceID == "" {
		o.DeviceID = "d1"
	}
	client, err := sdk.Dial(ctx, clientURL, o)
	if err != nil && ctx.Err() == nil {
		l.note(func() {
			l.crashes = append(l.crashes, fmt.Sprintf("%v: %s was refused for good: %v", l.now(), user, err))
		})
		pause(ctx, backoffMax)
	}
	return client, err
}

// errRefused is an answer that trying again does not change.
var errRefused = errors.New("refused")

// call makes one request to a front.
func (l *load) call(ctx context.Context, front place, limit time.Duration, method, path, body string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, front.api()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+apiKey)
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%s: %s", resp.Status, data)
	case resp.StatusCode == http.StatusNoContent:
		return nil
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: %s %s: %s: %s", errRefused, method, path, resp.Status, data)
	}
	return json.Unmarshal(data, answer)
}

// published is the answer to a publish to one user.
type published struct {
	Results []struct {
		Offset uint64 `json:"offset"`
		Error  *struct {
			Name      string `json:"name"`
			Retryable bool   `json:"retryable"`
		} `json:"error"`
	} `json:"results"`
}

// publish makes one attempt over HTTP.
func (l *load) publish(ctx context.Context, front place, limit time.Duration, user, id, body, more string) (offset uint64, err error) {
	var a published
	err = l.call(ctx, front, limit, http.MethodPost, "/v1/publish", fmt.Sprintf(`{"users":[%q],"client_id":%q,"body":%s%s}`, user, id, body, more), &a)
	switch {
	case err != nil:
		return 0, err
	case len(a.Results) != 1:
		return 0, fmt.Errorf("%w: %d results", errRefused, len(a.Results))
	case a.Results[0].Error != nil && a.Results[0].Error.Retryable:
		return 0, errors.New(a.Results[0].Error.Name)
	case a.Results[0].Error != nil:
		return 0, fmt.Errorf("%w: %s", errRefused, a.Results[0].Error.Name)
	}
	return a.Results[0].Offset, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// pause waits; false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
