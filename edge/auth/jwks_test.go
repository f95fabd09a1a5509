package auth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// provider is an identity provider without a network: it works in virtual time.
type provider struct {
	body    atomic.Value // string; "" answers 503
	fetched atomic.Int64
	delay   time.Duration
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.fetched.Add(1)
	select {
	case <-time.After(p.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	if body, _ := p.body.Load().(string); body == "" {
		w.WriteHeader(http.StatusServiceUnavailable)
	} else {
		_, _ = io.WriteString(w, body)
	}
	return w.Result(), nil
}

func (p *provider) set(t testing.TB, keys map[string]Key) {
	var list []string
	for kid, k := range keys {
		list = append(list, jwkJSON(t, k, kid))
	}
	p.body.Store(`{"keys":[` + strings.Join(list, ",") + `]}`)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (p *provider) verifier(t *testing.T, ctx context.Context) *Verifier {
	t.Helper()
	v, err := New(ctx, Config{JWKSURLs: []string{"https://id.example/jwks"}, Client: &http.Client{Transport: p}, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (p *provider) token(t *testing.T, k Key, kid string) string {
	head := fmt.Sprintf(`{"alg":%q,"kid":%q}`, k.Alg, kid)
	return mint(t, k, head, fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Hour).Unix()))
}

func TestJWKSRotation(t *testing.T) {
	keys := testKeys(t)
	first, second := keys[2], otherES(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &provider{}
		p.set(t, map[string]Key{"k1": first})
		v := p.verifier(t, ctx)
		check := func(k Key, kid string, want Reason) {
			t.Helper()
			_, err := v.Verify(ctx, p.token(t, k, kid))
			if want == "" && err != nil {
				t.Fatal(err)
			} else if want != "" {
				wantReason(t, err, want, "token: ")
			}
		}
		check(first, "k1", "")
		if n := p.fetched.Load(); n != 1 {
			t.Fatalf("fetched %d times at start, want 1", n)
		}

		// A new key appears: the first token with it fetches the set.
		time.Sleep(time.Minute)
		p.set(t, map[string]Key{"k1": first, "k2": second})
		check(second, "k2", "")
		check(first, "k1", "")
		if n := p.fetched.Load(); n != 2 {
			t.Fatalf("fetched %d times, want 2", n)
		}

		// A flood of unknown kids asks the provider no more.
		for i := range 1000 {
			check(second, fmt.Sprint("x", i), UnknownKey)
		}
		if n := p.fetched.Load(); n != 2 {
			t.Fatalf("unknown kids fetched %d times", n-2)
		}
		time.Sleep(refreshGap - time.Second)
		begin := time.Now()
		check(second, "x", UnknownKey)
		if took := time.Since(begin); took > 0 {
			t.Fatalf("an unknown kid waited %v for the next fetch", took)
		}

		// The old key is withdrawn: gone after the cache's 5 minutes at the latest.
		p.set(t, map[string]Key{"k2": second})
		time.Sleep(refreshEvery + time.Second)
		check(first, "k1", UnknownKey)
		check(second, "k2", "")

		// The provider is down: the last keys stay good.
		p.body.Store("")
		time.Sleep(3 * refreshEvery)
		check(second, "k2", "")
		check(second, "k3", UnknownKey)
		cancel()
		synctest.Wait()
	})
}

func TestJWKSUnavailableAtStart(t *testing.T) {
	key := testKeys(t)[3]
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &provider{}
		v := p.verifier(t, ctx)
		_, err := v.Verify(ctx, p.token(t, key, "k1"))
		wantReason(t, err, Unavailable, "try again")
		p.set(t, map[string]Key{"k1": key})
		time.Sleep(refreshGap)
		if _, err := v.Verify(ctx, p.token(t, key, "k1")); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
	})
}

// Many clients come with a new key at once: one fetch, and nobody is refused.
func TestJWKSStampede(t *testing.T) {
	key := testKeys(t)[3]
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &provider{}
		p.set(t, nil)
		v := p.verifier(t, ctx)
		time.Sleep(time.Minute)
		p.set(t, map[string]Key{"k1": key})
		token := p.token(t, key, "k1")
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := v.Verify(ctx, token); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := p.fetched.Load(); n != 2 {
			t.Errorf("fetched %d times, want 2", n)
		}
		cancel()
		synctest.Wait()
	})
}

// A client that goes away while the set is fetched for it leaves it to the others.
func TestJWKSClientGoesAway(t *testing.T) {
	key := testKeys(t)[3]
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &provider{delay: time.Second}
		p.set(t, nil)
		v := p.verifier(t, ctx)
		p.set(t, map[string]Key{"k1": key})
		token := p.token(t, key, "k1")
		hasty, gone := context.WithTimeout(ctx, p.delay/2)
		defer gone()
		_, _ = v.Verify(hasty, token)
		if _, err := v.Verify(ctx, token); err != nil {
			t.Error(err)
		}
		cancel()
		synctest.Wait()
	})
}

// A fetched set is public: a symmetric key in it would let everybody sign.
func TestJWKSIgnoresSecrets(t *testing.T) {
	p := &provider{}
	secret := Secret(testSecret)
	p.set(t, map[string]Key{"s": secret})
	v := p.verifier(t, t.Context())
	_, err := v.Verify(t.Context(), p.token(t, secret, "s"))
	wantReason(t, err, Algorithm, "HS256")
}

// A JWK without alg is good for the algorithm of its type and for no other.
func TestJWKSWithoutAlg(t *testing.T) {
	keys := testKeys(t)[1:]
	p := &provider{}
	var list []string
	for i, k := range keys {
		list = append(list, strings.Replace(jwkJSON(t, k, fmt.Sprint("k", i)), fmt.Sprintf(`"alg":%q,`, k.Alg), "", 1))
	}
	body := `{"keys":[` + strings.Join(list, ",") + `]}`
	if strings.Contains(body, "alg") {
		t.Fatalf("alg is still there: %s", body)
	}
	p.body.Store(body)
	v := p.verifier(t, t.Context())
	claims := fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Hour).Unix())
	for i, k := range keys {
		if _, err := v.Verify(t.Context(), p.token(t, k, fmt.Sprint("k", i))); err != nil {
			t.Errorf("%s: %v", k.Alg, err)
		}
		confused := Secret(string(publicPEM(t, k)))
		_, err := v.Verify(t.Context(), p.token(t, confused, fmt.Sprint("k", i)))
		wantReason(t, err, Algorithm, "HS256")
		other := keys[(i+1)%len(keys)]
		_, err = v.Verify(t.Context(), mint(t, k, fmt.Sprintf(`{"alg":%q,"kid":"k%d"}`, other.Alg, i), claims))
		wantReason(t, err, UnknownKey, "kid")
		_, err = v.Verify(t.Context(), mint(t, k, fmt.Sprintf(`{"alg":%q}`, other.Alg), claims))
		wantReason(t, err, Signature, "")
	}
}

// Two providers may use one kid, and a set that is empty or down spoils no other.
func TestJWKSOfTwoProviders(t *testing.T) {
	keys := testKeys(t)
	rs, es, own := keys[1], keys[2], keys[3]
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var a, b provider
		a.set(t, map[string]Key{"1": es})
		b.body.Store(`{}`)
		v, err := New(ctx, Config{
			Keys: []Key{own}, JWKSURLs: []string{"https://a.example/k", "https://b.example/k"}, Log: quiet(),
			Client: &http.Client{Transport: byHost{"a.example": &a, "b.example": &b}},
		})
		if err != nil {
			t.Fatal(err)
		}
		check := func(k Key, kid string, want Reason) {
			t.Helper()
			_, err := v.Verify(ctx, a.token(t, k, kid))
			if want == "" && err != nil {
				t.Fatal(err)
			} else if want != "" {
				wantReason(t, err, want, "token: ")
			}
		}
		check(own, "any", "")
		check(es, "1", "")
		check(rs, "1", Unavailable)
		b.set(t, map[string]Key{"1": rs})
		time.Sleep(refreshGap)
		check(rs, "1", "")
		check(es, "1", "")
		check(otherES(t), "1", Signature)
		check(otherES(t), "2", UnknownKey)
		b.body.Store(`{"keys":[]}`) // withdrawn at last, but nobody is sent away for good
		time.Sleep(refreshEvery)
		check(rs, "1", Unavailable)
		check(own, "any", "")
		cancel()
		synctest.Wait()
	})
}

type byHost map[string]*provider

func (h byHost) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host].RoundTrip(r) }

// A provider that accepts and never answers holds a token up for fetchTimeout at most.
func TestJWKSHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		v, err := New(ctx, Config{JWKSURLs: []string{"https://id.example/k"}, Client: &http.Client{Transport: hanging{}}, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		p := &provider{}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := v.Verify(ctx, p.token(t, testKeys(t)[3], "k"))
				wantReason(t, err, Unavailable, "")
			})
		}
		wg.Wait()
		if took := time.Since(begin); took > 2*fetchTimeout {
			t.Errorf("start and token took %v", took)
		}
		cancel()
		synctest.Wait()
	})
}

type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Keys of no use here, as providers publish them, cost the others nothing.
func TestJWKSWithOddKeys(t *testing.T) {
	keys := testKeys(t)
	use := func(use string) string {
		return strings.Replace(jwkJSON(t, otherES(t), use), `"kty"`, fmt.Sprintf(`"use":%q,"kty"`, use), 1)
	}
	p := &provider{}
	p.body.Store(`{"keys":[{"kty":"OKP","crv":"Ed448","x":"AA"},{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQAB","e":"AQAB"},` +
		use("enc") + `,` + use("tls") + `,` + jwkJSON(t, keys[2], "k") + `]}`)
	v := p.verifier(t, t.Context())
	if _, err := v.Verify(t.Context(), p.token(t, keys[2], "k")); err != nil {
		t.Fatal(err)
	}
	if set, _ := v.jwks.current(); len(set) != 1 {
		t.Fatalf("%d keys are in use, want 1: %+v", len(set), set)
	}
}

func TestJWKSWithoutKid(t *testing.T) {
	keys := testKeys(t)
	p := &provider{}
	p.set(t, map[string]Key{"a": otherES(t), "b": keys[2], "c": keys[1]})
	v := p.verifier(t, t.Context())
	token := mint(t, keys[2], `{"alg":"ES256"}`, fmt.Sprintf(`{"sub":"alice","exp":%d}`, time.Now().Add(time.Hour).Unix()))
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

// Over a real socket, with what an evil or broken server may answer.
func TestJWKSFetch(t *testing.T) {
	good := `{"keys":[` + jwkJSON(t, testKeys(t)[2], "k") + `]}`
	mux := http.NewServeMux()
	answer := func(path string, f http.HandlerFunc) { mux.HandleFunc(path, f) }
	answer("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, good) })
	answer("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	answer("/html", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	answer("/huge", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat(" ", maxJWKS)+good)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for path, want := range map[string]int{"/good": 1, "/redirect": 0, "/html": 0, "/huge": 0, "/missing": 0} {
		ctx, cancel := context.WithCancel(t.Context())
		v, err := New(ctx, Config{JWKSURLs: []string{srv.URL + path}, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		if keys, _ := v.jwks.current(); len(keys) != want {
			t.Errorf("%s: %d keys, want %d", path, len(keys), want)
		}
		cancel()
	}
}
