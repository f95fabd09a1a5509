package publish

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"muster/actors/link"
	"muster/clients/wire"
)

// Draft is an entry as a client or a backend words it; empty fields take the defaults.
type Draft struct {
	Sender   string // user id; "": the application
	ClientID string
	Body     string // JSON
	Class    string // critical, normal (default), presence
	TTLMs    uint64 // 0: the server's
	Collapse string
	AckMode  string // each_device (default), any_device
}

// Fault says what is wrong with a draft.
type Fault struct {
	Code    wire.Code
	Field   string
	Message string
}

func (f *Fault) Error() string { return f.Field + ": " + f.Message }

// Publish is the draft as the core takes it, or what is wrong with it. It never changes d.
func (d *Draft) Publish() (*link.Publish, *Fault) {
	id, ok := ID(d.ClientID)
	class, known := classOf(d.Class)
	bad := func(field, why string) (*link.Publish, *Fault) { return nil, &Fault{wire.CodeBadRequest, field, why} }
	switch {
	case !ok:
		return bad("client_id", "want a UUIDv7 or a ULID")
	case d.Body == "":
		return bad("body", "missing: want a JSON value")
	case len(d.Body) > wire.MaxBody:
		return nil, &Fault{wire.CodeTooLarge, "body", fmt.Sprintf("more than %d bytes", wire.MaxBody)}
	case !json.Valid([]byte(d.Body)):
		return bad("body", "not valid JSON")
	case !known:
		return bad("class", "want critical, normal or presence")
	case !GoodTTL(d.TTLMs):
		return bad("ttl_ms", WantTTL)
	case len(d.Collapse) > wire.MaxCollapseKey:
		return bad("collapse_key", fmt.Sprintf("more than %d bytes", wire.MaxCollapseKey))
	case d.AckMode != "" && d.AckMode != "each_device" && d.AckMode != "any_device":
		return bad("ack_mode", "want each_device or any_device")
	}
	return &link.Publish{
		Sender: d.Sender, Id: id[:], ClientId: d.ClientID, Body: d.Body, Class: class,
		TtlMs: int64(d.TTLMs), Collapse: d.Collapse, AnyDevice: d.AckMode == "any_device",
	}, nil
}

// GoodTTL reports whether a ttl_ms is 0 or within its bounds.
func GoodTTL(ms uint64) bool {
	return ms == 0 || ms >= uint64(wire.MinTTL.Milliseconds()) && ms <= uint64(wire.MaxTTL.Milliseconds())
}

// WantTTL says what GoodTTL takes.
const WantTTL = "want 10000 to 2592000000, or 0"

// ID reads a client id: a UUIDv7 in its usual form, or a ULID. Both begin with the time in ms.
func ID(s string) (id [16]byte, ok bool) {
	switch len(s) {
	case 36:
		u, err := uuid.Parse(s)
		return u, err == nil && u.Version() == 7 && u.Variant() == uuid.RFC4122
	case ulid.EncodedSize:
		u, err := ulid.ParseStrict(s)
		return u, err == nil
	}
	return id, false
}

// Unsettled reports whether after such an answer nobody knows yet if the entry is stored, or it is not but may be
// soon: then the same client id is sent again.
func Unsettled(c link.Code) bool {
	switch c {
	case link.Code_MOVING, link.Code_UNKNOWN_OUTCOME, link.Code_BUSY, link.Code_UNAVAILABLE:
		return true
	}
	return false
}

// Pause is how long to wait before the n-th try, n from 1: at random up to 100 ms, then to twice as much each time,
// 1.6 s at most, and 20 ms at least.
func Pause(n int) time.Duration {
	most := 100 * time.Millisecond << min(max(n-1, 0), 4)
	return 20*time.Millisecond + rand.N(most)
}
