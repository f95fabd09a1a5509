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
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.fetched.Add(1)
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

// A fetched set is public: a symmetric key in it would let everybody sign.
func TestJWKSIgnoresSecrets(t *testing.T) {
	p := &provider{}
	secret := Secret(testSecret)
	p.set(t, map[string]Key{"s": secret})
	v := p.verifier(t, t.Context())
	_, err := v.Verify(t.Context(), p.token(t, secret, "s"))
	wantReason(t, err, Algorithm, "HS256")
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
	answer("/huge", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxJWKS+1)) })
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
		v.jwks.client.CloseIdleConnections()
		cancel()
	}
}
