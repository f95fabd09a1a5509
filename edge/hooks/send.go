package hooks

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// sender posts signed bodies to one URL, not too many at once.
type sender struct {
	url     string
	keys    []*standardwebhooks.Webhook
	client  *http.Client
	slots   chan struct{}
	timeout time.Duration
}

func newSender(to string, allowHTTP bool, secrets []string, parallel int, timeout time.Duration) (*sender, error) {
	if err := CheckURL(to, allowHTTP); err != nil {
		return nil, err
	}
	s := &sender{url: to, slots: make(chan struct{}, parallel), timeout: timeout}
	if len(secrets) == 0 {
		return nil, errors.New("webhook: no secret to sign with")
	}
	for _, secret := range secrets {
		if err := CheckSecret(secret); err != nil {
			return nil, err
		}
		key, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, key)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = parallel, parallel
	s.client = &http.Client{
		Transport: transport,
		// A redirect is a fault: what is signed for one address is not meant for another.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// CheckURL reports what is wrong with the address of a webhook.
func CheckURL(to string, allowHTTP bool) error {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		return fmt.Errorf("webhook: %q is not a URL; write https://app.example/hook", to)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		host := u.Hostname()
		if ip := net.ParseIP(host); allowHTTP || host == "localhost" || ip != nil && ip.IsLoopback() {
			return nil
		}
		return fmt.Errorf("webhook: %s goes over http, which anyone on the way can read; use https", u.Redacted())
	}
	return fmt.Errorf("webhook: %q is not a URL; write https://app.example/hook", to)
}

// CheckSecret reports what is wrong with a secret. It never says the secret.
func CheckSecret(secret string) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) < 24 {
		return errors.New("webhook: a secret is whsec_ and 24 or more random bytes in base64, for example from: echo whsec_$(openssl rand -base64 32)")
	}
	return nil
}

// refused is an answer that is no 2xx.
type refused struct{ status int }

func (r *refused) Error() string { return fmt.Sprintf("the webhook answered %d", r.status) }

// post sends body once. After a refusal it says how long the other side wants to be left alone. An answer is read
// into to, if that is not nil, up to a size.
func (s *sender) post(ctx context.Context, id string, body []byte, to any, most int64) (retryAfter time.Duration, err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	now := time.Now()
	signatures := make([]string, len(s.keys))
	for i, key := range s.keys {
		if signatures[i], err = key.Sign(id, now, body); err != nil {
			return 0, err
		}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "muster-webhook/1")
	r.Header.Set(standardwebhooks.HeaderWebhookID, id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// What is left unread costs the connection, no more.
	defer io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return wanted(resp.Header.Get("Retry-After"), now), &refused{resp.StatusCode}
	}
	if to == nil {
		return 0, nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return 0, err
	case int64(len(answer)) > most:
		return 0, fmt.Errorf("the answer is longer than %d bytes", most)
	}
	if err := json.Unmarshal(answer, to); err != nil {
		return 0, fmt.Errorf("the answer is not what was asked for: %w", err)
	}
	return 0, nil
}

// wanted reads Retry-After: seconds or a date.
func wanted(h string, now time.Time) time.Duration {
	if h == "" {
		return 0
	}
	if n, err := strconv.ParseUint(h, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
