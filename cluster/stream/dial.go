package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	shakeTimeout = 2 * time.Second // TCP, TLS and hello together
	probeTimeout = 100 * time.Millisecond
	backoffFirst = 20 * time.Millisecond
	backoffMost  = time.Second
	streamWindow = 1 << 20 // what a receiver that blocks holds, per stream
	connWindow   = 16 << 20
	socketBuffer = 32 << 10
	service      = "muster.Stream"
	classMethod  = "/" + service + "/Class"
	bulkMethod   = "/" + service + "/Bulk"
	callMethod   = "/" + service + "/Call"
	keyStream    = "m-stream"
	keyEpoch     = "m-epoch"
	keyNode      = "m-node"
	keyPull      = "m-pull"
	keyMethod    = "m-method-bin"
)

// serverOptions: our own pings stand in for keepalive; windows are fixed, so gRPC measures nothing.
func (n *Net) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(n.credentials()), grpc.ForceServerCodecV2(raw{}),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connWindow),
		grpc.WriteBufferSize(socketBuffer), grpc.ReadBufferSize(socketBuffer),
		grpc.ConnectionTimeout(shakeTimeout), grpc.KeepaliveParams(keepalive.ServerParameters{Time: math.MaxInt64}),
		grpc.WaitForHandlers(true),
	}
}

// client is a connection that is dialled when its first stream is opened, and never again.
func (n *Net) client(addr string, dialled func(net.Conn)) (*grpc.ClientConn, error) {
	if n.cfg.Keys == nil && !loopback(addr) {
		return nil, errPlain
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		c = &counted{c, &n.sent}
		dialled(c)
		return c, nil
	}
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(n.credentials()), grpc.WithContextDialer(dial), grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithDisableHealthCheck(), grpc.WithIdleTimeout(0),
		grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithWriteBufferSize(socketBuffer), grpc.WithReadBufferSize(socketBuffer),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: shakeTimeout}), grpc.WithUserAgent("muster"),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
}

var bothWays = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// dial makes an epoch with a peer. Before the caller's Up nothing is received on it.
func (n *Net) dial(p Peer) (*epoch, error) {
	cluster := n.cluster()
	own := n.hello(rand.Uint64(), n.cfg.Wire, n.cfg.Classes)
	e := n.newEpoch(n.ctx, own, n.cfg.Classes)
	conn, err := n.client(p.Addr, e.connected)
	if err != nil {
		return nil, err
	}
	e.conn = conn
	late := time.AfterFunc(shakeTimeout, func() { e.fail(context.DeadlineExceeded) })
	defer late.Stop()
	err = e.shake(own, p, cluster)
	if err != nil {
		if cause := context.Cause(e.ctx); cause != nil {
			err = cause
		}
		e.fail(err)
		e.end()
		return nil, err
	}
	return e, nil
}

// shake says hello on the first stream, checks the answer and opens the others.
func (e *epoch) shake(own hello, p Peer, cluster string) error {
	md := own.metadata()
	md.Set(keyStream, "0")
	first, err := e.conn.NewStream(metadata.NewOutgoingContext(e.ctx, md), bothWays, classMethod)
	if err != nil {
		return err
	}
	header, err := first.Header()
	if err == nil && header == nil {
		err = first.RecvMsg(&message{})
	}
	if err != nil {
		return err
	}
	h, err := parseHello(header)
	if err != nil {
		return err
	}
	if _, err := proven(first.Context(), identity{h.cluster, h.self.Node}); err != nil {
		return err
	}
	if h.self.Node != p.Node {
		return fmt.Errorf("node %x was expected there, node %x answered", p.Node, h.self.Node)
	}
	if h.cluster != cluster || cluster == "" {
		return e.net.foreign(h)
	}
	e.peer, e.version = h.self, h.wire[1]
	e.peer.Wire = e.version
	if v, err := e.net.agree(h); err != nil || v != h.wire[1] {
		return errors.Join(err, fmt.Errorf("it chose version %d", h.wire[1]))
	}
	e.shrink(h.classes)
	streams := []wire{first}
	for i := 1; i < len(e.queues); i++ {
		md := metadata.Pairs(keyStream, strconv.Itoa(i), keyEpoch, strconv.FormatUint(e.id, 16), keyNode, strconv.FormatUint(own.self.Node, 16))
		s, err := e.conn.NewStream(metadata.NewOutgoingContext(e.ctx, md), bothWays, classMethod)
		if err != nil {
			return err
		}
		streams = append(streams, s)
	}
	for i, s := range streams {
		if _, ok := e.join(); !ok {
			return context.Cause(e.ctx)
		}
		e.net.running.Go(func() { e.run(s, i) })
	}
	return nil
}

// probe asks whether a process listens at an address. The kernel closes the files of one that was killed one after the
// other: for a moment its port still takes connections, and drops them. So one that is dropped is not taken for an answer.
func (n *Net) probe(addr string) (refused bool) {
	ctx, cancel := context.WithTimeout(n.ctx, probeTimeout)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", addr)
		if errors.Is(err, syscall.ECONNRESET) {
			continue
		}
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		deadline, _ := ctx.Deadline()
		_ = c.SetReadDeadline(deadline)
		_, err = c.Read(make([]byte, 1)) // the server speaks second
		_ = c.Close()
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return false
		}
	}
}

// plainText is what a failed handshake says, without gRPC's codes.
func plainText(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// pause is the jittered wait before attempt n of a redial; the first comes at once.
func pause(attempt int) time.Duration {
	if attempt == 0 {
		return 0
	}
	d := min(backoffMost, backoffFirst<<min(attempt-1, 10))
	return d/2 + rand.N(d/2+1)
}
