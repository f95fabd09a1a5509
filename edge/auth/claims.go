package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"muster/clients/wire"
)

// Bounds of a token and of what it may carry.
const (
	MaxToken = 8 << 10       // bytes of the whole token
	MaxInfo  = wire.MaxInfo  // bytes of the info claim
	MaxWatch = wire.MaxWatch // ids in the watch claim
	MaxRooms = 100           // ids in the rooms claim
	MaxCaps  = 100           // entries in the caps claim
)

// DefaultApp is the tenant of a token without the app claim.
const DefaultApp = "default"

// Claims is what a verified token says. App, User and the ids in Device, Watch and
// Rooms match [A-Za-z0-9._@+=-]{1,128}.
type Claims struct {
	User   string // sub
	App    string // app: the tenant; DefaultApp if the token names none
	Device string // dev: the only device this token is good for; empty: any
	ID     string // jti, for revocation; at most 128 bytes

	Issuer   string    // iss
	Audience []string  // aud
	Issued   time.Time // iat; zero if absent
	From     time.Time // nbf; zero if absent
	Expires  time.Time // exp; zero if absent

	Caps  []string        // caps; nil: all client methods but publish
	Info  json.RawMessage // info: any JSON value of at most MaxInfo bytes, nil if absent
	Watch []string        // watch: users the session watches from the start
	Rooms []string        // rooms: rooms the session enters at the start
}

// Allows reports whether the token's caps permit a client method. A cap is a
// method ("watch", "room.enter") or a family ("room.*"). What a session needs to
// live and to end (connect, refresh, ping, ack, bye) is always allowed; publish, which writes into the
// outboxes of others, only by name.
func (c *Claims) Allows(method string) bool {
	switch method {
	case "connect", "refresh", "ping", "ack", "bye":
		return true
	}
	if c.Caps == nil {
		return method != "publish"
	}
	return slices.ContainsFunc(c.Caps, func(allowed string) bool {
		if family, ok := strings.CutSuffix(allowed, "*"); ok {
			return strings.HasSuffix(family, ".") && strings.HasPrefix(method, family)
		}
		return allowed == method
	})
}

const wantID = "want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"

// The claims that are read; each may come once. Others are ignored.
var known = map[string]uint16{
	"sub": 1 << 0, "app": 1 << 1, "dev": 1 << 2, "jti": 1 << 3, "iss": 1 << 4, "aud": 1 << 5, "iat": 1 << 6,
	"nbf": 1 << 7, "exp": 1 << 8, "caps": 1 << 9, "info": 1 << 10, "watch": 1 << 11, "rooms": 1 << 12,
}

// payload is the claims as golang-jwt reads and validates them.
type payload struct{ Claims }

func (p *payload) UnmarshalJSON(data []byte) error {
	p.Claims = Claims{App: DefaultApp}
	var seen uint16
	err := members(data, func(name string, raw []byte) error {
		bit, ok := known[name]
		if !ok {
			return nil
		}
		if seen&bit != 0 {
			return refuse(BadClaim, "token: claim %s is given twice", name)
		}
		seen |= bit
		if err := p.set(name, raw); err != nil {
			return refuse(BadClaim, "token: claim %s: %v", name, err)
		}
		return nil
	})
	if err == errNotObject {
		return refuse(Malformed, "token: the payload is %v", err)
	}
	return err
}

// Validate is called last, and also for a payload that is null, which is not unmarshalled.
func (p *payload) Validate() error {
	if p.User == "" {
		return refuse(BadClaim, "token: claim sub (the user id) is missing")
	}
	return nil
}

func (p *payload) GetExpirationTime() (*jwt.NumericDate, error) { return numericDate(p.Expires), nil }
func (p *payload) GetIssuedAt() (*jwt.NumericDate, error)       { return numericDate(p.Issued), nil }
func (p *payload) GetNotBefore() (*jwt.NumericDate, error)      { return numericDate(p.From), nil }
func (p *payload) GetIssuer() (string, error)                   { return p.Issuer, nil }
func (p *payload) GetSubject() (string, error)                  { return p.User, nil }
func (p *payload) GetAudience() (jwt.ClaimStrings, error)       { return p.Audience, nil }

func numericDate(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return &jwt.NumericDate{Time: t}
}

func (c *Claims) set(name string, raw []byte) (err error) {
	switch name {
	case "sub":
		c.User, err = id(raw)
	case "app":
		c.App, err = id(raw)
	case "dev":
		c.Device, err = id(raw)
	case "jti":
		if c.ID, err = text(raw); err == nil && (c.ID == "" || len(c.ID) > wire.MaxID) {
			err = fmt.Errorf("want 1 to %d bytes", wire.MaxID)
		}
	case "iss":
		c.Issuer, err = text(raw)
	case "aud":
		c.Audience, err = audience(raw)
	case "iat":
		c.Issued, err = date(raw)
	case "nbf":
		c.From, err = date(raw)
	case "exp":
		c.Expires, err = date(raw)
	case "caps":
		if c.Caps, err = texts(raw); err == nil && len(c.Caps) > MaxCaps {
			err = fmt.Errorf("more than %d entries", MaxCaps)
		}
	case "info":
		if len(raw) > MaxInfo {
			return fmt.Errorf("more than %d bytes", MaxInfo)
		}
		c.Info = slices.Clone(raw)
	case "watch":
		c.Watch, err = ids(raw, MaxWatch)
	case "rooms":
		c.Rooms, err = ids(raw, MaxRooms)
	}
	return err
}

func id(raw []byte) (string, error) {
	s, err := text(raw)
	if err == nil && !wire.ValidID(s) {
		return "", errors.New(wantID)
	}
	return s, err
}

func ids(raw []byte, most int) ([]string, error) {
	list, err := texts(raw)
	if err != nil {
		return nil, err
	}
	if len(list) > most {
		return nil, fmt.Errorf("more than %d ids", most)
	}
	for i, s := range list {
		if !wire.ValidID(s) {
			return nil, fmt.Errorf("entry %d: %s", i, wantID)
		}
	}
	return list, nil
}

func audience(raw []byte) ([]string, error) {
	if raw[0] == '[' {
		return texts(raw)
	}
	s, err := text(raw)
	if err != nil {
		return nil, errors.New("not a string or a list of strings")
	}
	return []string{s}, nil
}

// A date is a number of seconds since 1970, fractions allowed, up to the year 9999.
const maxDate = 253402300799

func date(raw []byte) (time.Time, error) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n >= 0 && n <= maxDate {
		return time.Unix(n, 0), nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(f >= 0 && f <= maxDate) {
		return time.Time{}, errors.New("not a number of seconds since 1970")
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}
