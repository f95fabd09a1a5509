package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"muster/cluster"
)

const (
	raftClass    = 0
	raftStream   = 0
	raftMessages = 0 // kind: for each message its group and size (uvarints) and raftpb.Message
)

var errMessage = errors.New("stream: not a Raft message")

// raftPort is a Net as cluster.Transport.
type raftPort struct {
	net   *Net
	ctx   context.Context
	end   context.CancelFunc
	limit *rate.Limiter // of all snapshots sent, in bytes

	mu           sync.Mutex // also orders Reset and Connected
	r            cluster.Receiver
	receiving    sync.WaitGroup
	incarnations map[uint64]uint64
}

// Raft carries Raft messages over class 0 and snapshots over streams of kind 0, all together at 32 MB/s at most, and takes their callbacks over; the others stay
// the Config's. Call it before SetPeers. A peer that falls silent is disconnected at once, so that
// what it sent before cannot arrive after the suspicion. Its Stop leaves the Net to its owner.
func Raft(n *Net) cluster.Transport {
	ctx, end := context.WithCancel(n.ctx)
	n.raft = &raftPort{net: n, ctx: ctx, end: end, limit: rate.NewLimiter(snapshotRate, chunkBytes), incarnations: map[uint64]uint64{}}
	return n.raft
}

func (r *raftPort) Start(to cluster.Receiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r = to
}

// Stop waits for what is being received.
func (r *raftPort) Stop() {
	r.mu.Lock()
	r.r = nil
	r.mu.Unlock()
	r.end()
	r.receiving.Wait()
}

// enter gives the receiver, until leave; nil: stopped, or not yet started.
func (r *raftPort) enter() cluster.Receiver {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r != nil {
		r.receiving.Add(1)
	}
	return r.r
}

func (r *raftPort) Send(to uint64, ms []cluster.Message) {
	b, err := encode(ms)
	if err != nil {
		panic(err) // raft made it
	}
	_ = r.net.Send(to, raftClass, raftMessages, b) // raft repeats what is lost
}

func encode(ms []cluster.Message) ([]byte, error) {
	size := 0
	for _, m := range ms {
		size += 2*binary.MaxVarintLen32 + proto.Size(m.Raft)
	}
	b, err := make([]byte, 0, size), error(nil)
	for _, m := range ms {
		b = binary.AppendUvarint(b, uint64(m.Group))
		b = binary.AppendUvarint(b, uint64(proto.Size(m.Raft)))
		if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, m.Raft); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func decode(b []byte, from, to uint64) (ms []cluster.Message, err error) {
	for len(b) > 0 {
		group, n := binary.Uvarint(b)
		if n <= 0 || group > 1<<32-1 {
			return nil, errMessage
		}
		size, k := binary.Uvarint(b[n:])
		if k <= 0 || size > uint64(len(b)-n-k) {
			return nil, errMessage
		}
		b = b[n+k:]
		m := cluster.Message{Group: uint32(group), From: from, To: to, Raft: &raftpb.Message{}}
		if err := proto.Unmarshal(b[:size], m.Raft); err != nil {
			return nil, err
		}
		ms, b = append(ms, m), b[size:]
	}
	return ms, nil
}

func (r *raftPort) receive(from Peer, v envelope) {
	if v.kind != raftMessages {
		r.net.skipped.Add(1)
		return
	}
	ms, err := decode(v.payload, from.Node, r.net.cfg.Self.Node)
	if err != nil {
		r.net.quiet.warn("Raft messages cannot be read", from.Name, "from", from.Name, "error", err)
		return
	}
	if to := r.enter(); to != nil {
		defer r.receiving.Done()
		to.Receive(from.Node, ms)
	}
}

func (r *raftPort) SendSnapshot(m cluster.Message, rows io.WriterTo, done func(error)) {
	header, err := encode([]cluster.Message{m})
	if err != nil {
		panic(err)
	}
	body := &paced{r.ctx, r.limit, rows}
	go func() { done(r.net.Stream(r.ctx, m.To, raftStream, header, body)) }()
}

func (r *raftPort) snapshot(from Peer, header []byte, body io.Reader) error {
	ms, err := decode(header, from.Node, r.net.cfg.Self.Node)
	if err != nil {
		return err
	}
	if len(ms) != 1 {
		return errMessage
	}
	to := r.enter()
	if to == nil {
		return ErrDown
	}
	defer r.receiving.Done()
	return to.ReceiveSnapshot(from.Node, ms[0], body)
}

// update tells the receiver what became of a peer: up is an epoch that begins.
func (r *raftPort) update(p *peer, up *epoch, refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.mu.Lock()
	live, silent := p.alive.live, p.alive.silent
	p.mu.Unlock()
	if r.r == nil {
		return
	}
	if up != nil {
		old, known := r.incarnations[p.node]
		r.incarnations[p.node] = up.peer.Incarnation
		if known && old != up.peer.Incarnation {
			r.r.Reset(p.node) // it restarted faster than anybody noticed
		}
	}
	switch {
	case refused:
		r.r.Reset(p.node)
	case silent && !live:
		r.r.Silent(p.node)
	case live && !silent:
		r.r.Connected(p.node)
	}
}
