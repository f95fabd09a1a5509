package stream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"
)

// Dial says which of two nodes dials the other. Both must agree.
type Dial uint8

const (
	BySmaller Dial = iota // the one with the smaller id
	Here                  // this node does, as an edge does with its cores
	There                 // the peer does
)

// Peer is another node, or this one.
type Peer struct {
	Node        uint64 // never 0
	Name        string
	Addr        string // host:port
	Incarnation uint64
	Dial        Dial   // for SetPeers
	Wire        uint8  // of an epoch: the version that both speak
	Via         uint64 // of an epoch: the node that relays; 0: nobody
}

// Class is a stream of its own between each two nodes: 0 to Config.Classes-1.
type Class uint8

// Config is what Listen needs. Zero durations and sizes mean the defaults.
//
// Callbacks about one peer come one after the other, except for Noted, Ping, Silent, OnStream and handlers; Receive of two
// classes may overlap. Between Down and Up of a peer nothing of it is received. None may call Stop.
type Config struct {
	Self     Peer
	Cluster  string       // id; "" until SetCluster: until then only open calls pass
	Listener net.Listener // is closed by Stop
	Keys     *Keys        // nil: plain text, between loopback addresses only
	Classes  int          // 1 to 16

	Receive  func(from Peer, c Class, kind byte, payload []byte)              // payload is the receiver's to keep; blocking is back-pressure
	OnStream func(from Peer, kind byte, header []byte, body io.Reader) error  // what it returns is Stream's answer; nil: refused
	Up       func(p Peer)                                                     // an epoch begins
	Down     func(p Peer, refused bool)                                       // it ended; refused: so was an immediate redial, the process is gone
	Silent   func(p Peer, silent bool)                                        // no answer to pings for Silence; there is one again
	Ping     func(from uint64, pong func())                                   // calls pong when the node's main loop runs; nil: at once
	Note     func() []byte                                                    // travels with pongs, at most 1 KiB
	Noted    func(from Peer, note []byte, clock time.Time, rtt time.Duration) // the peer's, with its clock when it answered

	PingEvery time.Duration // 200 ms
	Silence   time.Duration // 700 ms
	Lost      time.Duration // silence that ends an epoch; 5 s, Silence for Raft
	Queue     int           // most bytes waiting per (peer, class); 4 MiB
	Wire      [2]uint8      // oldest and newest version spoken; those of this build
	Logger    *slog.Logger  // slog.Default()
}

// MaxPayload is the largest message, and the largest request and response of a call, in bytes.
const MaxPayload = 8 << 20

var (
	ErrDown     = errors.New("stream: the node is not connected")
	ErrFull     = errors.New("stream: the queue to the node is full")
	ErrTooLarge = errors.New("stream: a payload holds at most 8 MiB")
	ErrNoMethod = errors.New("stream: the node does not know the method")
	ErrBusy     = errors.New("stream: the node has too many calls in progress")
)

// RemoteError is what a handler of another node returned.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return e.Text }

// Handler answers a call.
type Handler func(ctx context.Context, from Peer, req []byte) ([]byte, error)
