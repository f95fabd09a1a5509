package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"muster/edge/listen"
)

// check completes cfg (names, the well-known values of --dev) and refuses what cannot
// work; each error says what to do.
func (c *Config) check(from sources) error {
	if c.NodeName == "" {
		c.NodeName, _ = os.Hostname()
	}
	if c.NodeName == "" {
		c.NodeName = "muster"
	}
	for _, a := range c.addresses() {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			return fmt.Errorf("%s: %q is not an address; write host:port, such as 127.0.0.1:8000", a.name, a.addr)
		}
	}
	if err := c.checkCluster(); err != nil {
		return err
	}
	if c.Dev {
		return c.checkDev(from)
	}
	if c.Data == "" {
		return fmt.Errorf("data: no directory; write one, such as /var/lib/muster")
	}
	if c.JWTKey == "" && c.JWTKeyFile == "" && len(c.JWKSURL) == 0 {
		return fmt.Errorf("no key for client tokens: set --jwt-key, --jwt-key-file or --jwks-url, or try it out with --dev")
	}
	if len(c.APIKey) == 0 {
		return fmt.Errorf("no key for the HTTP API: set --api-key, or try it out with --dev")
	}
	return c.checkValues()
}

type namedAddress struct{ name, addr string }

func (c *Config) addresses() []namedAddress {
	return []namedAddress{{"listen", c.Listen}, {"api-listen", c.APIListen}}
}

// devSecret is the key of tokens and of the HTTP API with --dev.
const devSecret = "muster-dev"

func (c *Config) checkDev(from sources) error {
	for _, a := range c.addresses() {
		host, _, _ := net.SplitHostPort(a.addr)
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s: --dev uses well-known keys and so binds to loopback only; write 127.0.0.1:port or leave out --dev", a.name)
		}
	}
	if c.JWTKey == "" && c.JWTKeyFile == "" && len(c.JWKSURL) == 0 {
		c.JWTKey, from["jwt-key"] = devSecret, "--dev"
	}
	if len(c.APIKey) == 0 {
		c.APIKey, from["api-key"] = []string{devSecret}, "--dev"
	}
	if from["drain-window"] == "default" {
		c.DrainWindow, from["drain-window"] = time.Second, "--dev"
	}
	if from["default-audience"] == "default" {
		c.DefaultAudience, from["default-audience"] = nil, "--dev"
	}
	if from["data"] == "default" {
		c.Data, from["data"] = "", "--dev"
	}
	return c.checkValues()
}

func (c *Config) checkValues() error {
	if c.JWTKey != "" && c.JWTKeyFile != "" {
		return fmt.Errorf("jwt-key and jwt-key-file are both set; leave one out")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return fmt.Errorf("tls-cert and tls-key go together; set both or neither")
	}
	if _, err := listen.ParseProxies(c.TrustedProxy); err != nil {
		return fmt.Errorf("trusted-proxy: %w", err)
	}
	for _, d := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"drain-window", c.DrainWindow, 0, 10 * time.Minute},
		{"ping", c.Ping, 100 * time.Millisecond, 4 * time.Minute},
		{"pong", c.Pong, 100 * time.Millisecond, time.Minute},
		{"away-after", c.AwayAfter, time.Second, time.Hour},
		{"grace-gone", c.GraceGone, 0, 2 * time.Minute},
		{"grace-silence", c.GraceSilence, 0, 2 * time.Minute},
		{"grace-drain", c.GraceDrain, 0, 10 * time.Minute},
		{"grace-inactive", c.GraceInactive, 0, 10 * time.Minute},
		{"resume-window", c.ResumeWindow, 0, 15 * time.Minute},
		{"outbox-ttl", c.OutboxTTL, 10 * time.Second, 720 * time.Hour},
		{"events-keep", c.EventsKeep, time.Hour, 720 * time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			return fmt.Errorf("%s: %v is out of range; write a duration from %v to %v", d.name, d.value, d.min, d.max)
		}
	}
	for _, n := range []struct {
		name     string
		value    float64
		min, max float64
	}{
		{"max-conns", float64(c.MaxConns), 1, 1e9},
		{"max-devices", float64(c.MaxDevices), 1, 1000},
		{"max-watches", float64(c.MaxWatches), 1, 50000},
		{"conn-rate", c.ConnRate, 0.1, 1e9},
		{"conn-burst", float64(c.ConnBurst), 1, 1e9},
		{"user-rate", c.UserRate, 0.1, 1e9},
		{"admit-new", c.AdmitNew, 1, 1e9},
		{"admit-resume", c.AdmitResume, 1, 1e9},
		{"gogc", float64(c.GOGC), 10, 1000},
	} {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("%s: %v is out of range; write a number from %v to %v", n.name, n.value, n.min, n.max)
		}
	}
	if err := c.checkSizes(); err != nil {
		return err
	}
	if err := c.checkHooks(); err != nil {
		return err
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("log-format: %q is unknown; write text or json", c.LogFormat)
	}
	_, err := defaultAudience(c.DefaultAudience)
	return err
}

func (c *Config) checkSizes() error {
	for _, n := range []struct {
		name, value string
		min, max    int64
	}{
		{"gomemlimit", c.GOMEMLIMIT, 0, math.MaxInt64},
		{"cache", c.Cache, 8 << 20, math.MaxInt64},
	} {
		size, err := parseBytes(n.name, n.value)
		if err != nil {
			return err
		}
		if size < n.min || size > n.max {
			return fmt.Errorf("%s: %s is out of range; see `muster serve --help`", n.name, n.value)
		}
	}
	return nil
}

func (c *Config) checkHooks() error {
	for _, h := range []string{c.AudienceHook, c.Webhook} {
		if h == "" {
			continue
		}
		if u, err := url.Parse(h); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return fmt.Errorf("webhook, audience-hook: %q is not a URL; write https://app.example/hook", h)
		}
		if len(c.WebhookSecret) == 0 {
			return fmt.Errorf("no secret to sign webhooks with: set --webhook-secret, whsec_ and at least 24 random bytes in base64")
		}
	}
	c.Events = c.Events || c.Webhook != ""
	return nil
}
