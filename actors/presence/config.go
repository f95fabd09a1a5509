package presence

import (
	"fmt"
	"time"
)

// Config holds the settings of an application that the cores obey. It is shared by all
// users and gateways and never changed after use. Start from DefaultConfig.
type Config struct {
	// Graces: how long a session whose conn ended still counts as there.
	GraceGone     time.Duration // TCP closed without a goodbye, close code 1001; 5 s
	GraceSilence  time.Duration // no answer, slow, cut off, token expired; 15 s [0–120 s]
	GraceNodeLost time.Duration // the edge died; 15 s
	GraceDrain    time.Duration // the edge is going down in good order; 60 s
	GraceInactive time.Duration // a mobile device in the background, any loss; 120 s
	// Upper limits of what a client may ask for: 120 s, and 600 s when inactive.
	MaxGrace, MaxGraceInactive time.Duration

	Resumable time.Duration // a session is remembered this long after its detach; 120 s [0–900 s]

	Devices       int  // devices with a session, live or in grace; 20 [1–1000]
	RejectDevices bool // refuse one more (counting live ones) instead of evicting the oldest

	Claims      int           // claims per user; 8
	MinClaimTTL time.Duration // 10 s
	MaxClaimTTL time.Duration // 30 days
	DurableTTL  time.Duration // a longer claim belongs to the user, not the session; 5 min
	MaxGrantTTL time.Duration // 24 h
	Listed      int           // users in one rule's list; 1000
	Relations   int           // contacts, and blocks; 5000 each

	OutboxTTL time.Duration // of entries that name none; 7 d [10 s–30 d]
	Events    bool          // make Event records

	Audience   *Audience // of users without rules of their own; nil: DefaultAudience
	Reciprocal Mask      // who hides one of these from everyone cannot see it; last seen
	Buckets    bool      // strangers see a coarse last seen

	// Gateway.
	Unreachable  time.Duration // state of an edge without a link is kept this long; 120 s
	Settle       time.Duration // longest wait for announcements after opening; 3 s
	Presume      time.Duration // grace of presumed sessions, from the opening; 15 s
	PresumeDrain time.Duration // the same when an edge was draining within it; 60 s
	StormFloor   uint64        // sessions lost in 5 s that may be a storm; 500
	StormPercent float64       // and their share of all sessions; 2
	StormGrace   time.Duration // grace during a storm; 60 s
	StormRelease time.Duration // offline events after it are spread over this time; 20 s
}

// DefaultConfig returns the settings of the specification.
func DefaultConfig() Config {
	return Config{
		GraceGone:        5 * time.Second,
		GraceSilence:     15 * time.Second,
		GraceNodeLost:    15 * time.Second,
		GraceDrain:       60 * time.Second,
		GraceInactive:    120 * time.Second,
		MaxGrace:         120 * time.Second,
		MaxGraceInactive: 600 * time.Second,
		Resumable:        120 * time.Second,
		Devices:          20,
		Claims:           8,
		MinClaimTTL:      10 * time.Second,
		MaxClaimTTL:      30 * 24 * time.Hour,
		DurableTTL:       5 * time.Minute,
		MaxGrantTTL:      24 * time.Hour,
		Listed:           1000,
		Relations:        5000,
		OutboxTTL:        7 * 24 * time.Hour,
		Audience:         DefaultAudience(),
		Reciprocal:       FieldLastSeen,
		Unreachable:      120 * time.Second,
		Settle:           3 * time.Second,
		Presume:          15 * time.Second,
		PresumeDrain:     60 * time.Second,
		StormFloor:       500,
		StormPercent:     2,
		StormGrace:       60 * time.Second,
		StormRelease:     20 * time.Second,
	}
}

// Check names the first setting that is out of its range.
func (c *Config) Check() error {
	for _, s := range []struct {
		name     string
		got      time.Duration
		min, max time.Duration
	}{
		{"grace after a lost socket", c.GraceGone, 0, c.MaxGrace},
		{"grace after silence", c.GraceSilence, 0, 120 * time.Second},
		{"grace after a lost node", c.GraceNodeLost, 0, 120 * time.Second},
		{"grace in a drain", c.GraceDrain, 0, 600 * time.Second},
		{"grace of inactive mobiles", c.GraceInactive, 0, 600 * time.Second},
		{"limit of asked graces", c.MaxGrace, 0, 120 * time.Second},
		{"limit of asked graces of inactive mobiles", c.MaxGraceInactive, c.MaxGrace, 600 * time.Second},
		{"resume window", c.Resumable, 0, 900 * time.Second},
		{"settle time", c.Settle, 100 * time.Millisecond, time.Minute},
		{"presumed grace", c.Presume, 0, 120 * time.Second},
		{"unreachable time", c.Unreachable, time.Second, time.Hour},
		{"outbox ttl", c.OutboxTTL, minOutboxTTL, maxOutboxTTL},
		{"storm release", c.StormRelease, 0, 10 * time.Minute},
	} {
		if s.got < s.min || s.got > s.max {
			return fmt.Errorf("presence: %s is %v, must be from %v to %v", s.name, s.got, s.min, s.max)
		}
	}
	if c.Devices < 1 || c.Devices > 1000 {
		return fmt.Errorf("presence: device limit is %d, must be from 1 to 1000", c.Devices)
	}
	if c.Claims < 1 || c.Claims > 64 {
		return fmt.Errorf("presence: claims per user are %d, must be from 1 to 64", c.Claims)
	}
	return nil
}
