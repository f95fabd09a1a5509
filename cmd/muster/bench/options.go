package bench

import (
	"io"
	"time"
)

// Scenarios in the order in which they are documented.
var Scenarios = []string{"floor", "idle", "connect", "watch", "churn", "slow", "growth", "send", "offline", "groups", "across", "cluster"}

// Options of one call.
type Options struct {
	Scenario string
	JSON     bool   // one JSON line per run instead of a table
	URL      string // a running server (ws://host:port/v1/ws); "": a child
	API      string // its HTTP API (http://host:port), for /metrics
	Key      string // HS256 key of client tokens
	APIKey   string // bearer key of the API
	Audience string // aud and iss of the tokens, when the server wants them
	Issuer   string
	Conns    int           // sessions; 0: the scenario's own number
	Duration time.Duration // of each measured run; 0: the scenario's own
	Half     bool          // half of the load at which the server is full
	Only     string        // growth: one law
	Cores    int           // across: core processes, 0: 1; cluster: the most of them, 0: 9
	Edges    int           // across: edge processes; 0: 1
	Serve    []string      // more flags for the child
	Out      io.Writer     // results
	Progress io.Writer     // progress and notes
	Terminal bool          // Progress is a terminal
}
