package wire

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
	// Path is where the server takes WebSockets, Subprotocol what it speaks there.
	Path        = "/v1/ws"
	Subprotocol = "muster.v1.json"
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
