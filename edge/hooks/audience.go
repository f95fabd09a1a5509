package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// AudienceConfig is what the client of the audience webhook is made with.
type AudienceConfig struct {
	URL       string // https, or http to this machine
	AllowHTTP bool
	Secrets   []string
	Parallel  int // requests at once [8]
}

const (
	maxAsked    = 100                  // users in one question
	maxAnswer   = 32 << 20             // bytes
	linger      = 5 * time.Millisecond // for questions to come together
	askTimeout  = 3 * time.Second
	maxWaiting  = 100_000 // users that wait to be asked for
	maxContacts = 5000    // of one user; more are left out
)

// Audience asks the application who the contacts of users are. Safe for concurrent use.
type Audience struct {
	sender *sender
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex
	queues  map[string][]wish // by app
	waiting int
	closed  bool
	running sync.WaitGroup
}

// question is one call of Ask.
type question struct {
	mu       sync.Mutex
	left     int
	contacts map[string][]string
	err      error
	done     func(map[string][]string, error)
}

// wish is one user of a question.
type wish struct {
	user string
	of   *question
}

// NewAudience makes a client.
func NewAudience(cfg AudienceConfig) (*Audience, error) {
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	s, err := newSender(cfg.URL, cfg.AllowHTTP, cfg.Secrets, cfg.Parallel, askTimeout)
	if err != nil {
		return nil, err
	}
	a := &Audience{sender: s, queues: map[string][]wish{}}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a, nil
}

// Ask asks for the contacts of users and calls done once, with the contacts of each, or an error: then nothing is known of
// any of them, and nobody may be taken for a contact. A user that the answer leaves out has none. Questions that come together
// are asked together, of up to 100 users at once. It does not block; done may be called before it returns, or from another goroutine.
func (a *Audience) Ask(app string, users []string, done func(contacts map[string][]string, err error)) {
	q := &question{left: len(users), contacts: make(map[string][]string, len(users)), done: done}
	if len(users) == 0 {
		done(q.contacts, nil)
		return
	}
	a.mu.Lock()
	if a.closed || a.waiting+len(users) > maxWaiting {
		a.mu.Unlock()
		done(nil, fmt.Errorf("audience webhook: closed, or %d users wait already", maxWaiting))
		return
	}
	defer a.mu.Unlock()
	a.waiting += len(users)
	first := len(a.queues[app]) == 0
	for _, u := range users {
		a.queues[app] = append(a.queues[app], wish{u, q})
	}
	for len(a.queues[app]) >= maxAsked {
		a.send(app)
	}
	if first && len(a.queues[app]) > 0 {
		a.running.Add(1)
		time.AfterFunc(linger, func() {
			defer a.running.Done()
			a.mu.Lock()
			defer a.mu.Unlock()
			a.send(app)
		})
	}
}

// send begins a request with what waits for an app; a.mu is held.
func (a *Audience) send(app string) {
	list := a.queues[app]
	n := min(len(list), maxAsked)
	if n == 0 {
		return
	}
	part := list[:n:n]
	if a.queues[app] = list[n:]; n == len(list) {
		delete(a.queues, app)
	}
	a.waiting -= n
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		contacts, err := a.ask(app, part)
		for _, w := range part {
			w.of.answered(w.user, contacts[w.user], err)
		}
	}()
}

// ask sends one request.
func (a *Audience) ask(app string, list []wish) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	defer cancel()
	seen := map[string]bool{}
	asked := struct {
		App   string   `json:"app"`
		Users []string `json:"users"`
	}{App: app}
	for _, w := range list {
		if !seen[w.user] {
			seen[w.user] = true
			asked.Users = append(asked.Users, w.user)
		}
	}
	body, err := json.Marshal(&asked)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Contacts map[string][]string `json:"contacts"`
	}
	id := fmt.Sprintf("aud_%016x", rand.Uint64())
	if _, err := a.sender.post(ctx, id, body, &answer, maxAnswer); err != nil {
		return nil, fmt.Errorf("audience webhook: %w", err)
	}
	if answer.Contacts == nil {
		return nil, fmt.Errorf(`audience webhook: the answer has no "contacts"`)
	}
	return answer.Contacts, nil
}

// answered adds the answer for one user; the last one ends the question.
func (q *question) answered(user string, contacts []string, err error) {
	q.mu.Lock()
	q.left--
	if err != nil {
		q.err = err
	}
	if len(contacts) > maxContacts {
		contacts = contacts[:maxContacts]
	}
	q.contacts[user] = contacts
	over := q.left == 0
	q.mu.Unlock()
	if !over {
		return
	}
	if q.err != nil {
		q.done(nil, q.err)
		return
	}
	q.done(q.contacts, nil)
}

// Close gives up what is on the way, and returns when all questions have had their answer or error.
func (a *Audience) Close() {
	a.mu.Lock()
	a.closed = true
	a.stop()
	for app := range a.queues {
		for len(a.queues[app]) > 0 {
			a.send(app)
		}
	}
	a.mu.Unlock()
	a.running.Wait()
	a.sender.client.CloseIdleConnections()
}
