package listen

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// makeCert returns a self-signed certificate for 127.0.0.1 and its key, as PEM.
func makeCert(t testing.TB, name string, from, to time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

type certFiles struct{ cert, key string }

func newFiles(t testing.TB) certFiles {
	dir := t.TempDir()
	return certFiles{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
}

func (f certFiles) write(t testing.TB, cert, key []byte) {
	t.Helper()
	if err := os.WriteFile(f.cert, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.key, key, 0o600); err != nil {
		t.Fatal(err)
	}
}

// name is the certificate that a handshake shows now.
func (c *Certificate) name(t testing.TB) string {
	t.Helper()
	got, err := c.Config().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(got.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.Subject.CommonName
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), text)
}

func TestReload(t *testing.T) {
	f := newFiles(t)
	synctest.Test(t, func(t *testing.T) {
		hour := time.Hour
		later := expiresSoon + 2*hour
		cert1, key1 := makeCert(t, "one", time.Now().Add(-hour), time.Now().Add(later))
		cert2, key2 := makeCert(t, "two", time.Now().Add(-hour), time.Now().Add(later))
		old, oldKey := makeCert(t, "expired", time.Now().Add(-2*hour), time.Now().Add(-hour))
		early, earlyKey := makeCert(t, "early", time.Now().Add(hour), time.Now().Add(later))
		f.write(t, cert1, key1)
		log := &syncBuffer{}
		c, err := LoadCertificate(f.cert, f.key, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go c.Watch(ctx)
		broken := 0
		step := func(what string, cert, key []byte, want string, takes bool) {
			t.Helper()
			f.write(t, cert, key)
			time.Sleep(3*reloadEvery + time.Second)
			synctest.Wait()
			if got := c.name(t); got != want {
				t.Fatalf("%s: the certificate is %q, want %q", what, got, want)
			}
			if !takes {
				broken++
			}
			if got := log.count("not taken"); got != broken {
				t.Fatalf("%s: %d errors logged, want %d: each change is said once", what, got, broken)
			}
		}
		step("nothing changed", cert1, key1, "one", true)
		step("garbage", []byte("garbage"), key1, "one", false)
		step("key of another", cert1, key2, "one", false)
		step("expired", old, oldKey, "one", false)
		step("not yet valid", early, earlyKey, "one", false)
		step("good", cert2, key2, "two", true)
		step("empty files", nil, nil, "two", false)
		step("back to the one in use", cert2, key2, "two", true)
		if err := os.Remove(f.key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * reloadEvery)
		if got := c.name(t); got != "two" || log.count("no such file") != 1 {
			t.Fatalf("without the key file: %q", got)
		}
		broken++
		step("good again", cert1, key1, "one", true)

		// As time goes by without a new one, the log says so once a day.
		if got := log.count("expires soon"); got != 0 {
			t.Errorf("%d warnings more than a week before the end", got)
		}
		time.Sleep(3 * hour)
		first := log.count("expires soon")
		time.Sleep(warningEvery)
		if got := log.count("expires soon"); first != 1 || got != 2 {
			t.Errorf("%d, then %d warnings; want 1, then 2", first, got)
		}
		cancel()
		synctest.Wait()
	})
}

func TestLoadRefuses(t *testing.T) {
	now := time.Now()
	good, key := makeCert(t, "good", now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := makeCert(t, "other", now.Add(-time.Hour), now.Add(time.Hour))
	old, oldKey := makeCert(t, "old", now.Add(-2*time.Hour), now.Add(-time.Hour))
	early, earlyKey := makeCert(t, "early", now.Add(time.Hour), now.Add(2*time.Hour))
	for name, c := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"mismatch": {good, otherKey, "match"},
		"no key":   {good, nil, "key"},
		"garbage":  {[]byte("x"), key, "certificate"},
		"expired":  {old, oldKey, "expired at"},
		"early":    {early, earlyKey, "not valid before"},
	} {
		f := newFiles(t)
		f.write(t, c.cert, c.key)
		if _, err := LoadCertificate(f.cert, f.key, quiet()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", name, err, c.want)
		}
	}
	if _, err := LoadCertificate("/nonexistent", "/nonexistent", quiet()); err == nil {
		t.Error("missing files accepted")
	}
}

// Over real sockets: a reload reaches new connections, the old ones live on, and
// nothing below TLS 1.2 gets in.
func TestServeTLS(t *testing.T) {
	f := newFiles(t)
	now := time.Now()
	cert1, key1 := makeCert(t, "one", now.Add(-time.Hour), now.Add(time.Hour))
	f.write(t, cert1, key1)
	c, err := LoadCertificate(f.cert, f.key, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Open(t.Context(), "127.0.0.1:0", 32<<10)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	go func() { served <- Serve(ctx, NewServer(hello, quiet()), ln, c, time.Second) }()

	get := func(client *http.Client) string {
		t.Helper()
		resp, err := client.Get("https://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName + " " + string(body)
	}
	dial := func() *http.Client {
		return &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
		}}
	}
	first := dial()
	if got := get(first); got != "one HTTP/1.1" {
		t.Errorf("%q", got)
	}
	cert2, key2 := makeCert(t, "two", now.Add(-time.Hour), now.Add(time.Hour))
	f.write(t, cert2, key2)
	if refused := c.reload(nil); refused != nil {
		t.Fatalf("refused: %s", refused)
	}
	second := dial()
	if got := get(second); got != "two HTTP/1.1" {
		t.Errorf("after the reload: %q", got)
	}
	if got := get(first); got != "one HTTP/1.1" {
		t.Errorf("the old connection: %q", got)
	}
	old, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		_ = old.Close()
		t.Error("TLS 1.1 was accepted")
	}
	first.CloseIdleConnections()
	second.CloseIdleConnections()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
