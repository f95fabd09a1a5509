package presence

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)

func TestMasked(t *testing.T) {
	online := View{State: Online, Text: "hi", Emoji: "e", Activity: "{}", Devices: []DeviceRow{{Mobile, Online}}, Since: noon}
	offline := View{State: Offline, Reason: ReasonTimeout, Text: "hi", LastSeen: noon, Since: noon.Add(15 * time.Second)}
	minute := noon.Truncate(time.Minute)
	for _, tt := range []struct {
		name string
		in   View
		mask Mask
		ago  time.Duration
		want View
	}{
		{"all", online, AllFields, 0, online},
		{"nothing looks like a goodbye", online, NoFields, 0, View{Reason: ReasonExplicit}},
		{"no state hides the rest", online, AllFields &^ FieldState, 0, View{Reason: ReasonExplicit}},
		{"state only", online, FieldState, 0, View{State: Online, Since: noon}},
		{"no devices", online, AllFields &^ FieldDevices, 0, View{State: Online, Text: "hi", Emoji: "e", Activity: "{}", Since: noon}},
		{"no status", online, FieldState | FieldActivity, 0, View{State: Online, Activity: "{}", Since: noon}},
		{"last seen to the minute", offline, AllFields, 0, View{Reason: ReasonTimeout, Text: "hi", LastSeen: minute, Since: minute}},
		{"no last seen, no since", offline, FieldState, 0, View{Reason: ReasonTimeout}},
		{"recently", offline, FieldState | FieldBucket, 71 * time.Hour, View{Reason: ReasonTimeout, Bucket: Recently}},
		{"within a week", offline, FieldState | FieldBucket, 73 * time.Hour, View{Reason: ReasonTimeout, Bucket: Week}},
		{"within a month", offline, FieldState | FieldBucket, 8 * 24 * time.Hour, View{Reason: ReasonTimeout, Bucket: Month}},
		{"long ago", offline, FieldState | FieldBucket, 31 * 24 * time.Hour, View{Reason: ReasonTimeout, Bucket: LongAgo}},
		{"a bucket of nothing", View{}, FieldState | FieldBucket, 0, View{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.in.Masked(tt.mask, noon.Add(tt.ago))
			if !got.Equal(&tt.want) || got.Reason != tt.want.Reason {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAudience(t *testing.T) {
	rule := func(f Mask, r Rule, users ...string) FieldRule { return FieldRule{Field: f, Rule: r, Users: users} }
	relations := relations{
		{other: "bad", bits: RelationBlocked | RelationFrom}, {other: "con", bits: RelationFrom}, {other: "ex", bits: RelationFrom | RelationTo},
		{other: "foe", bits: RelationBlockedBy}, {other: "idol", bits: RelationTo | RelationPendingIn},
	}
	rules := []FieldRule{
		rule(FieldLastSeen, Contacts), rule(FieldStatus, ContactsExcept, "ex"), rule(FieldDevices, Only, "pal"), rule(FieldActivity, Nobody),
	}
	grants := []HeldGrant{{To: "pal", Fields: FieldActivity}, {To: "bad", Fields: AllFields}}
	a := DefaultAudience().with(rules, grants, relations, nil)
	open := FieldState | FieldTyping | FieldReceipts
	for _, tt := range []struct {
		who  Watcher
		want Mask
	}{
		{Watcher{}, open},
		{Watcher{User: "any"}, open},
		{Watcher{User: "idol"}, open},
		{Watcher{User: "con"}, open | FieldLastSeen | FieldStatus},
		{Watcher{User: "con", Hidden: FieldLastSeen}, open | FieldStatus},
		{Watcher{User: "con", Hidden: FieldStatus}, open | FieldLastSeen | FieldStatus},
		{Watcher{User: "ex"}, open | FieldLastSeen},
		{Watcher{User: "pal"}, open | FieldDevices | FieldActivity},
		{Watcher{User: "bad"}, NoFields},
		{Watcher{User: "foe"}, NoFields},
	} {
		if got := a.Mask(tt.who, FieldLastSeen); got != tt.want {
			t.Errorf("%+v: mask %07b, want %07b", tt.who, got, tt.want)
		}
	}
	hidden := a.with([]FieldRule{rule(FieldState, Nobody)}, grants, relations, nil)
	if got := hidden.Mask(Watcher{User: "con"}, 0); got != FieldReceipts {
		t.Errorf("without the state: mask %07b", got)
	}
	if got := a.Mask(Watcher{User: "con", Hidden: FieldState}, FieldState); got != FieldReceipts {
		t.Errorf("state is reciprocal: mask %07b", got)
	}
	if a.hidden() != FieldActivity {
		t.Errorf("hidden %07b", a.hidden())
	}
}

func TestAudienceRefuses(t *testing.T) {
	for _, r := range []FieldRule{
		{Field: 0}, {Field: FieldState | FieldTyping}, {Field: FieldBucket}, {Field: FieldState, Rule: 5},
		{Field: FieldState, Rule: Everyone, Users: []string{"x"}}, {Field: FieldState, Rule: Only, Users: []string{""}},
		{Field: FieldState, Rule: Only, Users: make([]string, 1001)},
	} {
		if _, err := NewAudience(r); err == nil {
			t.Errorf("%+v is taken", r.Field)
		}
	}
}

func TestGraces(t *testing.T) {
	cfg := DefaultConfig()
	cfg.GraceSilence = 15 * time.Second
	for _, tt := range []struct {
		class    Class
		inactive bool
		asked    int32
		why      Cause
		want     time.Duration
	}{
		{Web, false, -1, Bye, 0},
		{Web, false, 60000, Kicked, 0},
		{Web, false, 60000, Revoked, 0},
		{Web, false, -1, Gone, 5 * time.Second},
		{Web, false, -1, Silence, 15 * time.Second},
		{Web, false, -1, Expired, 15 * time.Second},
		{Web, false, -1, NodeLost, 15 * time.Second},
		{Web, false, -1, Drain, 60 * time.Second},
		{Web, false, 0, Silence, 0},
		{Web, false, 0, Drain, 60 * time.Second},
		{Web, false, 500000, Silence, 120 * time.Second},
		{Web, true, -1, Silence, 15 * time.Second},
		{Mobile, false, -1, Gone, 5 * time.Second},
		{Mobile, true, -1, Gone, 120 * time.Second},
		{Mobile, true, -1, Drain, 120 * time.Second},
		{Mobile, true, 3000, Silence, 3 * time.Second},
		{Mobile, true, 900000, Silence, 600 * time.Second},
	} {
		s := session{class: tt.class, grace: tt.asked}
		s.set(flagInactive, tt.inactive)
		if got := time.Duration(s.graceOf(&cfg, tt.why)) * time.Millisecond; got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	good := DefaultConfig()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"silence": func(c *Config) { c.GraceSilence = 121 * time.Second },
		"devices": func(c *Config) { c.Devices = 0 },
		"claims":  func(c *Config) { c.Claims = 0 },
		"resume":  func(c *Config) { c.Resumable = -1 },
	} {
		c := DefaultConfig()
		if spoil(&c); c.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
