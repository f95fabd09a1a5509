package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

const (
	refreshEvery = 5 * time.Minute  // how long a fetched set is used without asking again
	refreshGap   = 30 * time.Second // between two fetches of a set that unknown kids ask for
	fetchTimeout = 10 * time.Second
	maxJWKS      = 1 << 20 // bytes of a fetched set
)

// jwks is the keys of some URLs. keyfunc fetches and keeps each set; one that cannot
// be fetched keeps its last keys: an identity provider that is down logs nobody out.
// The key is chosen here, because keyfunc looks up one key by its kid alone.
type jwks struct {
	sets []*jwkSet
	turn chan struct{} // holds one token: whoever has it asks the sets to fetch
}

type jwkSet struct {
	store jwkset.Storage
	limit *rate.Limiter
}

func newJWKS(ctx context.Context, cfg Config) (*jwks, error) {
	for _, raw := range cfg.JWKSURLs {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("auth: JWKS URL %q: want https://host/path", raw)
		}
		if u.Scheme == "http" {
			cfg.Log.Warn("JWKS over plain http: whoever is on the way can sign tokens", "url", raw)
		}
	}
	j := &jwks{sets: make([]*jwkSet, len(cfg.JWKSURLs)), turn: make(chan struct{}, 1)}
	errs := make([]error, len(j.sets))
	client := boundedClient(cfg.Client)
	var wg sync.WaitGroup
	for i, raw := range cfg.JWKSURLs {
		wg.Go(func() { j.sets[i], errs[i] = newSet(ctx, raw, client, cfg.Log) })
	}
	wg.Wait()
	return j, errors.Join(errs...)
}

// newSet fetches a set, which may fail, and goes on refreshing it.
func newSet(ctx context.Context, url string, client *http.Client, log *slog.Logger) (*jwkSet, error) {
	limit := rate.NewLimiter(rate.Every(refreshGap), 1)
	kf, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{url}, keyfunc.Override{
		Client: client, HTTPTimeout: fetchTimeout, RateLimitWaitMax: fetchTimeout,
		RefreshInterval: refreshEvery, RefreshUnknownKID: limit,
		ValidationSkipAll: true, // one odd key would spoil the set; usable checks each
		RefreshErrorHandlerFunc: func(url string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				log.Error("JWKS not fetched, the last keys stay", "url", url, "error", err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("auth: JWKS URL %q: %w", url, err)
	}
	s := &jwkSet{store: kf.Storage(), limit: limit}
	_, skipped := s.keys()
	for _, why := range skipped {
		log.Warn("JWKS: a key is not used", "url", url, "error", why)
	}
	return s, nil
}

// boundedClient is client with the bounds that a fetch needs.
func boundedClient(client *http.Client) *http.Client {
	bounded := http.Client{}
	if client != nil {
		bounded = *client
	}
	if bounded.Transport == nil {
		bounded.Transport = http.DefaultTransport
	}
	bounded.Transport = boundedTransport{bounded.Transport}
	bounded.Timeout = fetchTimeout
	bounded.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("redirects are not followed")
	}
	return &bounded
}

// boundedTransport lets an answer of more than maxJWKS bytes fail.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxJWKS)
	}
	return resp, err
}

// pick returns the keys that may have signed a token. If there is none, the sets are
// fetched again, each at most once in refreshGap however many tokens ask.
func (j *jwks) pick(ctx context.Context, alg, kid string) (jwt.VerificationKeySet, error) {
	keys, _ := j.current()
	set, err := pick(keys, alg, kid)
	if err == nil || alg == HS256 {
		return set, err
	}
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return set, unavailable()
	}
	// Not ctx: a client that goes away must not spend the fetch of the others.
	j.fetch(context.WithoutCancel(ctx), kid)
	<-j.turn
	keys, all := j.current()
	if set, err = pick(keys, alg, kid); err != nil && !all {
		err = unavailable()
	}
	return set, err
}

func unavailable() *Error {
	return refuse(Unavailable, "token: the keys to check it with cannot be fetched, try again")
}

// fetch lets each set look for a kid: keyfunc fetches a set that does not have it.
func (j *jwks) fetch(ctx context.Context, kid string) {
	var wg sync.WaitGroup
	for _, s := range j.sets {
		if s.limit.Tokens() >= 1 { // or else keyfunc would wait for it
			wg.Go(func() { _, _ = s.store.KeyRead(ctx, kid) })
		}
	}
	wg.Wait()
}

// current returns the keys of all sets, and whether there is a set for every URL.
// An empty one is none: a provider that answers {} must not log everybody out.
func (j *jwks) current() (keys []Key, all bool) {
	all = true
	for _, s := range j.sets {
		found, skipped := s.keys()
		keys = append(keys, found...)
		all = all && len(found)+len(skipped) > 0
	}
	return keys, all
}

func (s *jwkSet) keys() (keys []Key, skipped []error) {
	stored, err := s.store.KeyReadAll(context.Background())
	if err != nil {
		return nil, []error{err}
	}
	return usable(stored, false)
}
