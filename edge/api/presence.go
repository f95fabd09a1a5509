package api

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"muster/actors/link"
	"muster/actors/presence"
)

// Presence is what a user shows, in the field names of the client protocol.
type Presence struct {
	_ struct{} `json:"-" additionalProperties:"true"`

	User       string   `json:"user"`
	State      string   `json:"state" enum:"online,away,dnd,offline,unknown" doc:"unknown: the user's shard cannot say now, ask again"`
	Ver        []uint64 `json:"ver,omitempty" doc:"[term, version]: the greater is the newer" nullable:"false"`
	SinceAt    int64    `json:"since_at,omitempty" doc:"Unix ms since when the state holds"`
	LastSeenAt int64    `json:"last_seen_at,omitempty" doc:"Unix ms of the last activity"`
	LastSeen   string   `json:"last_seen,omitempty" enum:"recently,week,month,long_ago"`
	Text       string   `json:"text,omitempty"`
	Emoji      string   `json:"emoji,omitempty"`
	Activity   Document `json:"activity,omitempty"`
	Devices    Devices  `json:"devices,omitempty"`
	Reason     string   `json:"reason,omitempty" enum:"explicit,timeout,kicked,node_lost,expired" doc:"Why the user is offline"`
	Error      *Error   `json:"error,omitempty" doc:"Why this item has no answer"`
}

var (
	states  = [...]string{presence.Offline: "offline", presence.Away: "away", presence.DND: "dnd", presence.Online: "online"}
	classes = [...]string{
		presence.NoClass: "unspecified", presence.Desktop: "desktop", presence.Mobile: "mobile",
		presence.Web: "web", presence.TV: "tv", presence.Bot: "bot",
	}
	reasons = [...]string{
		presence.NoReason: "", presence.ReasonExplicit: "explicit", presence.ReasonTimeout: "timeout",
		presence.ReasonKicked: "kicked", presence.ReasonNodeLost: "node_lost", presence.ReasonExpired: "expired",
	}
	buckets = [...]string{
		presence.NoBucket: "", presence.Recently: "recently", presence.Week: "week",
		presence.Month: "month", presence.LongAgo: "long_ago",
	}
)

const unknown = "unknown"

// word is the name of an enum's value; what a newer core sends is "".
func word(names []string, i uint32) string {
	if int(i) < len(names) {
		return names[i]
	}
	return ""
}

// present turns a row of a shard in its term into what the API answers.
func present(term uint64, row *link.Row) Presence {
	p := Presence{User: row.User, State: states[presence.Offline]}
	if row.Pending {
		p.State = unknown
		return p
	}
	if row.Version > 0 {
		p.Ver = []uint64{term, row.Version}
	}
	v := row.View
	if v == nil {
		return p
	}
	if p.State = word(states[:], v.State); p.State == "" {
		p.State = unknown
	}
	p.SinceAt, p.LastSeenAt, p.LastSeen = v.Since, v.LastSeen, word(buckets[:], v.Bucket)
	p.Text, p.Emoji, p.Reason = v.Text, v.Emoji, word(reasons[:], v.Reason)
	p.Activity = Document(v.Activity)
	for _, d := range v.Devices {
		p.Devices = append(p.Devices, DeviceState{Class: word(classes[:], d.Class), State: word(states[:], d.State)})
	}
	return p
}

// DeviceState is the best state of the devices of one class.
type DeviceState struct{ Class, State string }

// Devices is written as an object, {"mobile":"online","web":"away"}, the class
// that was last active first.
type Devices []DeviceState

func (d Devices) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, row := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, row.Class...)
		b = append(b, `":"`...)
		b = append(b, row.State...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

func (Devices) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type:                 "object",
		Description:          "Best state per device class, the class that was last active first",
		AdditionalProperties: &huma.Schema{Type: "string", Enum: []any{"online", "away", "dnd", "offline"}},
	}
}

// Document is any JSON value.
type Document []byte

func (d Document) MarshalJSON() ([]byte, error) {
	if len(d) == 0 {
		return []byte("null"), nil
	}
	return d, nil
}

func (d *Document) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*d = nil
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return err
	}
	*d = slices.Clone(compact.Bytes())
	return nil
}

func (Document) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Any JSON value"}
}
