package chaos

import (
	"sync"
	"time"
)

// lapse is a time during which one watcher did not see the latest status of one user: from the moment at
// which the user began to set it until the watcher was told.
type lapse struct{ from, took time.Duration }

// exactness follows how long watchers are behind the users whom they watch. A watcher counts while it is
// connected; a user while its last set was not refused. Safe for concurrent use.
type exactness struct {
	now func() time.Duration

	mu     sync.Mutex
	latest map[string]string                   // user → status it set last; none: not known
	behind map[string]map[string]time.Duration // watcher that is connected → user → since when
	who    map[string][]string                 // user → who watches it
	lapses []lapse
}

func newExactness(now func() time.Duration) *exactness {
	return &exactness{now: now, latest: map[string]string{}, behind: map[string]map[string]time.Duration{}, who: map[string][]string{}}
}

// watch declares, before all else, whom a watcher watches.
func (e *exactness) watch(watcher string, users []string) {
	for _, u := range users {
		e.who[u] = append(e.who[u], watcher)
	}
}

// connected says that a watcher has a connection, or lost it.
func (e *exactness) connected(watcher string, up bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if up {
		e.behind[watcher] = map[string]time.Duration{}
	} else {
		delete(e.behind, watcher)
	}
}

// sets says that a user begins to set a status.
func (e *exactness) sets(user, status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.latest[user] = status
	for _, w := range e.who[user] {
		users := e.behind[w]
		if users == nil {
			continue
		}
		if _, already := users[user]; !already {
			users[user] = e.now()
		}
	}
}

// forget says that nobody knows which status a user has: it left, or a set failed.
func (e *exactness) forget(user string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.latest, user)
	for _, w := range e.who[user] {
		delete(e.behind[w], user)
	}
}

// saw says that a watcher was told a status of a user.
func (e *exactness) saw(watcher, user, status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	since, behind := e.behind[watcher][user]
	if behind && e.latest[user] == status {
		e.lapses = append(e.lapses, lapse{from: since, took: e.now() - since})
		delete(e.behind[watcher], user)
	}
}

// all is every lapse that ended, and those that have not yet, as if they ended now.
func (e *exactness) all() []lapse {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := append([]lapse(nil), e.lapses...)
	for _, users := range e.behind {
		for _, since := range users {
			list = append(list, lapse{from: since, took: e.now() - since})
		}
	}
	return list
}
