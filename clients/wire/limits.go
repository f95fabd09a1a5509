package wire

import "time"

// Bounds that the server and the SDKs share.
const (
	// MaxFrame is the most bytes of a WebSocket message, both ways.
	MaxFrame = 64 << 10
	// MaxLines is the most commands or replies in one frame.
	MaxLines = 64
	// MaxDepth is how deep the JSON of a line may nest.
	MaxDepth = 32
	// MaxRawDepth is how deep the application's JSON inside a field may nest.
	MaxRawDepth = 16
	// MaxWatch is the most ids in one connect, watch or query.
	MaxWatch = 1000
	// MaxID is the most bytes of the id of a user, device or room.
	MaxID = 128
	// MaxText is the most characters of a status text.
	MaxText = 128
	// MaxEmoji is the most bytes of a status emoji.
	MaxEmoji = 32
	// MaxActivity is the most bytes of a claim's activity.
	MaxActivity = 2 << 10
	// MaxInfo is the most bytes of an occupant's info.
	MaxInfo = 1 << 10
	// MaxClient is the most bytes of connect.client.
	MaxClient = 64
	// MaxBody is the most bytes of the body of a publish.
	MaxBody = 16 << 10
	// MaxCollapseKey is the most bytes of publish.collapse_key.
	MaxCollapseKey = 64
	// MaxBlock is the most ids in one block.
	MaxBlock = 100
	// MaxContactsPage is the most rows of one reply to contacts.
	MaxContactsPage = 500
	// MaxProvider is the most bytes of device.provider, MaxPushToken of device.token.
	MaxProvider  = 32
	MaxPushToken = 4 << 10
	// OutboxWindow is the most entries that a device is given before it acks.
	OutboxWindow = 256
	// AckEvery is how many entries a device may process before it acks.
	AckEvery = 64
	// Path is where the server takes WebSockets, Subprotocol what it speaks there.
	Path        = "/v1/ws"
	Subprotocol = "muster.v1.json"
)

// Times that the server and the SDKs share.
const (
	// MinTTL and MaxTTL bound every ttl_ms that is not 0; OutboxTTL stands for 0 in publish and notify_when.
	MinTTL    = 10 * time.Second
	MaxTTL    = 30 * 24 * time.Hour
	OutboxTTL = 7 * 24 * time.Hour
	// ClientIDAge is how old the time inside a client id may be, ClientIDAhead how far ahead.
	ClientIDAge   = 24 * time.Hour
	ClientIDAhead = 10 * time.Minute
)

var idBytes = func() (t [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@+=-" {
		t[c] = true
	}
	return
}()

// ValidID reports whether s can name a user, device or room: [A-Za-z0-9._@+=-]{1,128}.
func ValidID(s string) bool {
	if len(s) == 0 || len(s) > MaxID {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !idBytes[s[i]] {
			return false
		}
	}
	return true
}
