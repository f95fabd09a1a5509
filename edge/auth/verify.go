package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Leeway is how far clocks may differ: it is granted on exp, nbf and iat.
const Leeway = 5 * time.Second

// Config says which tokens are good.
type Config struct {
	Keys     []Key    // tried before the JWK sets
	JWKSURLs []string // https, or http; fetched at start, then every 5 minutes

	Issuer   string // iss must be this; empty: any
	Audience string // aud must name this; empty: tokens that name an audience are refused

	AllowNoExpiry    bool // accept tokens without exp
	AllowShortSecret bool // accept HS256 secrets under 32 bytes (development)

	Now    func() time.Time // default time.Now
	Client *http.Client     // for JWK sets; default: 10 s time-out, no redirects
	Log    *slog.Logger     // default slog.Default
}

// Verifier verifies tokens. Safe for concurrent use.
type Verifier struct {
	cfg    Config
	jwks   *jwks // nil without URLs
	header atomic.Pointer[header]
}

// New checks the configuration and fetches the JWK sets for the first time. A set
// that cannot be fetched is logged and tried again: tokens that need it are refused
// as Unavailable meanwhile. ctx ends the refreshing.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	if len(cfg.Keys) == 0 && len(cfg.JWKSURLs) == 0 {
		return nil, errors.New("auth: no key and no JWKS URL configured")
	}
	for _, k := range cfg.Keys {
		if methods[k.Alg] == nil || k.verify == nil {
			return nil, errors.New("auth: a key is not usable: make keys with ParseKeys or Secret")
		}
		if k.Short() && !cfg.AllowShortSecret {
			return nil, errors.New("auth: an HS256 secret needs at least 32 bytes, for example from: openssl rand -hex 32")
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	v := &Verifier{cfg: cfg}
	if len(cfg.JWKSURLs) > 0 {
		var err error
		if v.jwks, err = newJWKS(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Verify checks a token and returns its claims. The error is an *Error. ctx bounds
// the wait for a JWK set when the token's key is not known yet.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	if len(token) > MaxToken {
		return Claims{}, refuse(TooLarge, "token: %d bytes, at most %d are allowed", len(token), MaxToken)
	}
	if token == "" {
		return Claims{}, refuse(Malformed, "token: missing")
	}
	h, payload, signed, sig, err := v.split(token)
	if err != nil {
		return Claims{}, err
	}
	if err := v.checkSignature(ctx, h, signed, sig); err != nil {
		return Claims{}, err
	}
	c, err := decodeClaims(payload)
	if err != nil {
		return Claims{}, err
	}
	return c, v.check(&c)
}

// header is what is read of a token's first segment.
type header struct {
	raw      string // the segment
	alg, kid string
}

// split takes the three segments apart and decodes them.
func (v *Verifier) split(token string) (h *header, payload []byte, signed string, sig []byte, err error) {
	dots := strings.Count(token, ".")
	if dots == 4 {
		return nil, nil, "", nil, refuse(Malformed, "token: encrypted tokens (JWE) are not supported")
	}
	if dots != 2 {
		return nil, nil, "", nil, refuse(Malformed, "token: want three segments separated by dots")
	}
	last := strings.LastIndexByte(token, '.')
	signed = token[:last]
	first, second, _ := strings.Cut(signed, ".")
	if h, err = v.readHeader(first); err != nil {
		return nil, nil, "", nil, err
	}
	strict := base64.RawURLEncoding.Strict()
	if payload, err = strict.DecodeString(second); err != nil {
		return nil, nil, "", nil, refuse(Malformed, "token: the payload is not base64url")
	}
	if sig, err = strict.DecodeString(token[last+1:]); err != nil {
		return nil, nil, "", nil, refuse(Malformed, "token: the signature is not base64url")
	}
	if len(sig) == 0 {
		return nil, nil, "", nil, refuse(Unsigned, "token: not signed")
	}
	return h, payload, signed, sig, nil
}

// readHeader decodes the first segment. Issuers write the same one into each
// token, so the last is remembered.
func (v *Verifier) readHeader(segment string) (*header, error) {
	if h := v.header.Load(); h != nil && h.raw == segment {
		return h, nil
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, refuse(Malformed, "token: the header is not base64url")
	}
	h := &header{raw: strings.Clone(segment)}
	var alg, kid bool
	err = members(data, func(name string, raw []byte) (err error) {
		switch name {
		case "alg":
			if alg {
				return errors.New("ambiguous: alg is given twice")
			}
			alg = true
			h.alg, err = text(raw)
		case "kid":
			if kid {
				return errors.New("ambiguous: kid is given twice")
			}
			kid = true
			h.kid, err = text(raw)
		case "crit":
			err = errors.New("asking for an extension (crit) that is not supported")
		}
		return err
	})
	if err != nil {
		return nil, refuse(Malformed, "token: the header is %v", err)
	}
	if methods[h.alg] == nil {
		return nil, badAlgorithm(h.alg)
	}
	v.header.Store(h)
	return h, nil
}

func badAlgorithm(alg string) *Error {
	if strings.EqualFold(alg, "none") {
		return refuse(Unsigned, "token: not signed (alg none)")
	}
	if alg == "" {
		return refuse(Malformed, "token: the header names no algorithm")
	}
	return refuse(Algorithm, "token: algorithm %.16q is not accepted here", alg)
}

// checkSignature looks for a key of the token's algorithm and kid that fits.
func (v *Verifier) checkSignature(ctx context.Context, h *header, signed string, sig []byte) error {
	tried, sameAlg := false, false
	try := func(keys []Key) bool {
		for _, k := range keys {
			if k.Alg != h.alg {
				continue
			}
			sameAlg = true
			if k.ID != "" && h.kid != "" && k.ID != h.kid {
				continue
			}
			tried = true
			if methods[k.Alg].Verify(signed, sig, k.verify) == nil {
				return true
			}
		}
		return false
	}
	if try(v.cfg.Keys) {
		return nil
	}
	if v.jwks != nil {
		keys, err := v.jwks.keys(ctx, h)
		if err != nil {
			return err
		}
		if try(keys) {
			return nil
		}
	}
	switch {
	case tried:
		return refuse(Signature, "token: the signature does not fit")
	case sameAlg:
		return refuse(UnknownKey, "token: no key with kid %.64q", h.kid)
	}
	return refuse(Algorithm, "token: no key for algorithm %s is configured", h.alg)
}

// check holds the claims against the clock and the configuration.
func (v *Verifier) check(c *Claims) error {
	now := v.cfg.Now()
	switch {
	case c.Expires.IsZero() && !v.cfg.AllowNoExpiry:
		return refuse(NoExpiry, "token: claim exp is missing")
	case !c.Expires.IsZero() && !now.Before(c.Expires.Add(Leeway)):
		return refuse(Expired, "token: expired at %s", c.Expires.UTC().Format(time.RFC3339))
	case now.Add(Leeway).Before(c.From):
		return refuse(NotYet, "token: not valid before %s (nbf)", c.From.UTC().Format(time.RFC3339))
	case now.Add(Leeway).Before(c.Issued):
		return refuse(NotYet, "token: issued in the future, at %s (iat)", c.Issued.UTC().Format(time.RFC3339))
	case v.cfg.Issuer != "" && c.Issuer != v.cfg.Issuer:
		return refuse(Issuer, "token: issuer %.64q is not accepted", c.Issuer)
	case v.cfg.Audience == "" && len(c.Audience) > 0:
		return refuse(Audience, "token: it is for audience %.64q and this server has none configured", c.Audience[0])
	case v.cfg.Audience != "" && !slices.Contains(c.Audience, v.cfg.Audience):
		return refuse(Audience, "token: it is not for this server's audience")
	}
	return nil
}
