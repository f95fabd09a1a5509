package stream

import (
	"context"
	"io"

	_ "google.golang.org/grpc"

	"muster/cluster"
)

// Keys is what a node proves itself with.
type Keys struct{}

// NewKeys derives the keys of a cluster from its secret: at least 16 bytes.
func NewKeys(secret []byte) (*Keys, error) { return nil, nil }

// KeysFromCA takes a CA of one's own: its certificate and private key in PEM. Certificates of nodes are made at start.
func KeysFromCA(cert, key []byte) (*Keys, error) { return nil, nil }

// GossipKey derives the key of the gossip, 32 bytes, from the cluster's secret.
func GossipKey(secret []byte) ([]byte, error) { return nil, nil }

// Net is a node's end of all its connections on one port.
type Net struct{}

// Listen begins to accept connections. Without keys the listener must be on a loopback address.
func Listen(cfg Config) (*Net, error) { return &Net{}, nil }

// SetCluster says which cluster the node belongs to, once.
func (n *Net) SetCluster(id string) {}

// SetPeers says with whom to be connected; those it no longer names are let go. An authenticated node of the
// cluster that connects by itself is taken too.
func (n *Net) SetPeers(peers []Peer) {}

// Send queues a message; it never blocks, and payload must not change any more. ErrDown, ErrFull, ErrTooLarge.
// After nil it arrives, or the epoch ends.
func (n *Net) Send(to uint64, c Class, kind byte, payload []byte) error { return ErrDown }

// SendWait is Send that waits for room in the queue.
func (n *Net) SendWait(ctx context.Context, to uint64, c Class, kind byte, payload []byte) error {
	return ErrDown
}

// Stream sends a body of any length beside the messages and returns what the peer's OnStream did.
func (n *Net) Stream(ctx context.Context, to uint64, kind byte, header []byte, body io.WriterTo) error {
	return ErrDown
}

// Handle answers calls of a method; open: also those of nodes that belong to no cluster yet, or when this one does not.
func (n *Net) Handle(method string, open bool, h Handler) {}

// Call asks a connected node. An error of its handler is a *RemoteError; when ctx has no deadline, 10 s is it.
func (n *Net) Call(ctx context.Context, to uint64, method string, req []byte) ([]byte, error) {
	return nil, ErrDown
}

// CallAddr asks a node that is not a peer yet, on a connection for this call alone.
func (n *Net) CallAddr(ctx context.Context, addr, method string, req []byte) ([]byte, error) {
	return nil, ErrDown
}

// Connected says whether there is an epoch with the node.
func (n *Net) Connected(node uint64) bool { return false }

// Stop ends all epochs and waits for all callbacks. Down is told of each.
func (n *Net) Stop() {}

// Raft carries Raft messages over class 0 and snapshots over streams of kind 0, and takes their callbacks over; the others stay
// the Config's. Call it before SetPeers. A peer that falls silent is dropped at once, so that
// what it sent before cannot arrive after the suspicion. Its Stop leaves the Net to its owner.
func Raft(n *Net) cluster.Transport { return nil }
