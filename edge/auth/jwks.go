package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshEvery = 5 * time.Minute  // how long a fetched set is used without asking again
	refreshGap   = 30 * time.Second // between two fetches that unknown kids ask for
	fetchTimeout = 10 * time.Second
	maxJWKS      = 1 << 20 // bytes of a fetched set
)

// jwks is the keys of some URLs, fetched together. A set that cannot be fetched
// keeps its last keys: an identity provider that is down logs nobody out.
type jwks struct {
	client *http.Client
	log    *slog.Logger
	sets   []*jwkSet

	fetching chan struct{} // holds one token: whoever has it fetches
	asked    time.Time     // of the last fetch; guarded by fetching
}

type jwkSet struct {
	url  string
	keys atomic.Pointer[[]Key] // nil until fetched once
}

func newJWKS(ctx context.Context, cfg Config) (*jwks, error) {
	j := &jwks{client: cfg.Client, log: cfg.Log, fetching: make(chan struct{}, 1)}
	if j.client == nil {
		j.client = &http.Client{Timeout: fetchTimeout, CheckRedirect: noRedirect}
	}
	for _, raw := range cfg.JWKSURLs {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("auth: JWKS URL %q: want https://host/path", raw)
		}
		if u.Scheme == "http" {
			j.log.Warn("JWKS over plain http: whoever is on the way can sign tokens", "url", raw)
		}
		j.sets = append(j.sets, &jwkSet{url: raw})
	}
	j.fetch(ctx)
	go func() {
		tick := time.NewTicker(refreshEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				j.fetching <- struct{}{}
				j.fetch(ctx)
				<-j.fetching
			}
		}
	}()
	return j, nil
}

func noRedirect(*http.Request, []*http.Request) error {
	return errors.New("redirects are not followed")
}

// keys returns the keys that may fit h. If none has its kid, the sets are fetched
// again, at most once in refreshGap however many tokens ask.
func (j *jwks) keys(ctx context.Context, h *header) ([]Key, error) {
	keys, _ := j.current()
	if fits(keys, h) {
		return keys, nil
	}
	select {
	case j.fetching <- struct{}{}:
	case <-ctx.Done():
		return nil, unavailable()
	}
	defer func() { <-j.fetching }()
	keys, all := j.current()
	if fits(keys, h) { // somebody fetched while this one waited
		return keys, nil
	}
	if time.Since(j.asked) >= refreshGap {
		// Not ctx: a client that goes away must not spend the fetch of the others.
		j.fetch(context.WithoutCancel(ctx))
		keys, all = j.current()
	}
	if !all && !fits(keys, h) {
		return nil, unavailable()
	}
	return keys, nil
}

func unavailable() *Error {
	return refuse(Unavailable, "token: the keys to check it with cannot be fetched, try again")
}

func fits(keys []Key, h *header) bool {
	return slices.ContainsFunc(keys, func(k Key) bool {
		return k.Alg == h.alg && (h.kid == "" || k.ID == "" || k.ID == h.kid)
	})
}

// current returns the keys of all sets, and whether every set was fetched once.
func (j *jwks) current() (keys []Key, all bool) {
	if len(j.sets) == 1 {
		if p := j.sets[0].keys.Load(); p != nil {
			return *p, true
		}
		return nil, false
	}
	all = true
	for _, s := range j.sets {
		if p := s.keys.Load(); p != nil {
			keys = append(keys, *p...)
		} else {
			all = false
		}
	}
	return keys, all
}

// fetch replaces the keys of every set that answers. One at a time.
func (j *jwks) fetch(ctx context.Context) {
	j.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range j.sets {
		wg.Go(func() {
			keys, err := j.get(ctx, s.url)
			if err != nil {
				j.log.Error("JWKS not fetched, the last keys stay", "url", s.url, "error", err)
				return
			}
			s.keys.Store(&keys)
		})
	}
	wg.Wait()
}

func (j *jwks) get(ctx context.Context, url string) ([]Key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := j.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxJWKS {
		return nil, fmt.Errorf("more than %d bytes", maxJWKS)
	}
	keys, skipped, err := parseJWKS(data, false)
	if err != nil {
		return nil, err
	}
	for _, why := range skipped {
		j.log.Warn("JWKS: a key was skipped", "url", url, "error", why)
	}
	return keys, nil
}
