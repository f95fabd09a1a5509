package auth

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
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
	Client *http.Client     // for JWK sets; whatever it is: 10 s, 1 MiB, no redirects
	Log    *slog.Logger     // default slog.Default
}

// Verifier verifies tokens. Safe for concurrent use.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	jwks   *jwks                  // nil without URLs
	header atomic.Pointer[string] // the last good header, as it stands in a token
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
	options := []jwt.ParserOption{
		jwt.WithValidMethods(slices.Collect(maps.Keys(methods))), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(cfg.Now), jwt.WithLeeway(Leeway), jwt.WithIssuedAt(), jwt.WithIssuer(cfg.Issuer),
	}
	if !cfg.AllowNoExpiry {
		options = append(options, jwt.WithExpirationRequired())
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	v := &Verifier{cfg: cfg, parser: jwt.NewParser(options...)}
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
	c, refused := v.parse(token, func(alg, kid string) (jwt.VerificationKeySet, error) {
		return pick(v.cfg.Keys, alg, kid)
	})
	if v.jwks != nil && refused.wantsKey() {
		first := refused
		c, refused = v.parse(token, func(alg, kid string) (jwt.VerificationKeySet, error) {
			return v.jwks.pick(ctx, alg, kid)
		})
		if refused != nil && refused.Reason == Algorithm {
			refused = first // the sets have no key to try: the configured ones say more
		}
	}
	if refused != nil {
		return Claims{}, refused
	}
	return c, nil
}

// parse checks a token by the keys that the algorithm and the kid of its header pick.
func (v *Verifier) parse(token string, keys func(alg, kid string) (jwt.VerificationKeySet, error)) (Claims, *Error) {
	var p payload
	t, err := v.parser.ParseWithClaims(token, &p, func(t *jwt.Token) (any, error) {
		kid, err := v.checkHeader(t)
		if err != nil {
			return nil, err
		}
		return keys(t.Method.Alg(), kid)
	})
	if err != nil {
		return Claims{}, v.explain(err, t, &p.Claims)
	}
	if v.cfg.Audience == "" && len(p.Audience) > 0 {
		return Claims{}, refuse(Audience, "token: it is for audience %.64q and this server has none configured", p.Audience[0])
	}
	return p.Claims, nil
}

// checkHeader refuses what golang-jwt lets pass, and returns the kid. Issuers write
// the same header into each token, so the last good one is remembered.
func (v *Verifier) checkHeader(t *jwt.Token) (kid string, err error) {
	if len(t.Signature) == 0 {
		return "", refuse(Unsigned, "token: not signed")
	}
	if given, ok := t.Header["kid"]; ok {
		if kid, ok = given.(string); !ok {
			return "", refuse(Malformed, "token: the kid of the header is not a string")
		}
	}
	segment, _, _ := strings.Cut(t.Raw, ".")
	if last := v.header.Load(); last != nil && *last == segment {
		return kid, nil
	}
	if _, ok := t.Header["crit"]; ok {
		return "", refuse(Malformed, "token: the header asks for an extension (crit) that is not supported")
	}
	n := 0
	data, err := v.parser.DecodeSegment(segment)
	if err == nil {
		err = members(data, func(string, []byte) error { n++; return nil })
	}
	if err != nil {
		return "", refuse(Malformed, "token: the header is %v", err)
	}
	if n != len(t.Header) {
		return "", refuse(Malformed, "token: the header is ambiguous: a name is given twice")
	}
	segment = strings.Clone(segment)
	v.header.Store(&segment)
	return kid, nil
}

// pick returns the keys that may have signed a token.
func pick(keys []Key, alg, kid string) (set jwt.VerificationKeySet, err error) {
	sameAlg := false
	for _, k := range keys {
		if k.Alg != alg {
			continue
		}
		sameAlg = true
		if k.ID == "" || kid == "" || k.ID == kid {
			set.Keys = append(set.Keys, k.verify)
		}
	}
	switch {
	case len(set.Keys) > 0:
		return set, nil
	case sameAlg:
		return set, refuse(UnknownKey, "token: no key with kid %.64q", kid)
	}
	return set, refuse(Algorithm, "token: no key for algorithm %s is configured", alg)
}

// explain turns an error of the parser into the reason. t and c are as far as it came.
func (v *Verifier) explain(err error, t *jwt.Token, c *Claims) *Error {
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return refused
	case t == nil:
		return refuse(Malformed, "token: want three segments separated by dots")
	case t.Claims == nil:
		return refuse(Malformed, "token: the header is not a JSON object in base64url")
	case errors.Is(err, jwt.ErrTokenMalformed) && t.Method == nil:
		return refuse(Malformed, "token: the payload is not a JSON object in base64url")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(Malformed, "token: the signature is not base64url")
	case t.Method == nil || methods[t.Method.Alg()] == nil:
		alg, _ := t.Header["alg"].(string)
		return badAlgorithm(alg)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(Signature, "token: the signature does not fit")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refuse(Expired, "token: expired at %s", c.Expires.UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing) && c.Expires.IsZero() && !v.cfg.AllowNoExpiry:
		return refuse(NoExpiry, "token: claim exp is missing")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refuse(NotYet, "token: not valid before %s (nbf)", c.From.UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refuse(NotYet, "token: issued in the future, at %s (iat)", c.Issued.UTC().Format(time.RFC3339))
	case c.Issuer != v.cfg.Issuer && v.cfg.Issuer != "":
		return refuse(Issuer, "token: issuer %.64q is not accepted", c.Issuer)
	}
	return refuse(Audience, "token: it is not for this server's audience")
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
