package presence

import "encoding/json"

// Events tell the application what all may see of a user at best.
type (
	onlineEvent struct {
		State string `json:"state"`
		Since int64  `json:"since_at"`
		Text  string `json:"text,omitempty"`
		Emoji string `json:"emoji,omitempty"`
	}
	offlineEvent struct {
		Reason   string `json:"reason"`
		LastSeen int64  `json:"last_seen_at,omitempty"`
	}
)

var reasonNames = [...]string{"", "explicit", "timeout", "kicked", "node_lost", "expired"}

// String returns the reason's name on the wire.
func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// event tells of a change of state or status text.
func (u *User) event(now int64, was *View, out *Output) {
	v := u.view
	kind, data := "user.state", any(onlineEvent{v.State.String(), milli(v.Since), v.Text, v.Emoji})
	switch {
	case v.State == Offline && was.State == Offline:
		return
	case v.State == Offline:
		kind, data = "user.offline", offlineEvent{v.Reason.String(), milli(v.LastSeen)}
	case was.State == Offline:
		kind = "user.online"
	case v.State == was.State && v.Text == was.Text && v.Emoji == was.Emoji:
		return
	}
	body, _ := json.Marshal(data)
	out.Records = append(out.Records, Event{kind, instant(now), string(body)})
}
