package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func (n *Net) service() *grpc.ServiceDesc {
	handler := func(f func(grpc.ServerStream) error) grpc.StreamHandler {
		return func(_ any, s grpc.ServerStream) error { return f(s) }
	}
	return &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Class", Handler: handler(n.acceptClass), ServerStreams: true, ClientStreams: true},
		{StreamName: "Bulk", Handler: handler(n.acceptBulk), ServerStreams: true, ClientStreams: true},
		{StreamName: "Call", Handler: handler(n.acceptCall), ServerStreams: true, ClientStreams: true},
	}}
}

// refuse says why, here and to the peer.
func (n *Net) refuse(h hello, err error) error {
	n.quiet.warn("a node was refused", fmt.Sprint(h.self.Name, err), "node", h.self.Name, "addr", h.self.Addr, "why", err)
	return status.Error(codes.FailedPrecondition, "refused: "+err.Error())
}

// admit checks who speaks, and picks the version; member is false when one of the two has no cluster yet.
func (n *Net) admit(ctx context.Context) (h hello, socket net.Conn, member bool, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if h, err = parseHello(md); err == nil {
		socket, err = proven(ctx, identity{h.cluster, h.self.Node})
	}
	own := n.cluster()
	if err == nil && h.cluster != own && h.cluster != "" && own != "" {
		err = n.foreign(h)
	}
	if err == nil {
		var v uint8
		v, err = n.agree(h)
		h.wire = [2]uint8{v, v}
	}
	if err != nil {
		return h, nil, false, n.refuse(h, err)
	}
	return h, socket, own != "" && h.cluster == own, nil
}

func (n *Net) acceptClass(s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	f := fields{md: md}
	index := int(f.number(keyStream, 10, 8))
	if f.err != nil {
		return n.refuse(hello{}, f.err)
	}
	if index == 0 {
		return n.acceptEpoch(s)
	}
	e, err := n.epochOf(s.Context(), &f)
	if err != nil {
		return n.refuse(hello{}, err)
	}
	if index >= len(e.queues) {
		return status.Error(codes.Unimplemented, "no such class")
	}
	return e.serve(s, index)
}

// epochOf finds the epoch that a further stream names; it must come from the same node.
func (n *Net) epochOf(ctx context.Context, f *fields) (*epoch, error) {
	id, node := f.number(keyEpoch, 16, 64), f.number(keyNode, 16, 64)
	if f.err != nil {
		return nil, f.err
	}
	n.mu.Lock()
	e := n.accepted[id]
	n.mu.Unlock()
	if e == nil || e.peer.Node != node {
		return nil, errors.New("a stream of an unknown epoch")
	}
	socket, err := proven(ctx, identity{n.cluster(), node})
	if err == nil && socket != e.socket() {
		err = errors.New("a stream of another connection's epoch")
	}
	return e, err
}

// acceptEpoch answers hello; when all streams are there the peer's keeper gets the epoch.
func (n *Net) acceptEpoch(s grpc.ServerStream) error {
	h, socket, member, err := n.admit(s.Context())
	if err != nil {
		return err
	}
	if !member {
		return n.refuse(h, n.foreign(h))
	}
	if h.self.Node == n.cfg.Self.Node {
		return n.refuse(h, errors.New("it has this node's id"))
	}
	e := n.newEpoch(n.ctx, h, min(h.classes, n.cfg.Classes))
	e.connected(socket)
	n.mu.Lock()
	ready := n.started && n.accepted[e.id] == nil
	if ready {
		n.accepted[e.id] = e
	}
	n.mu.Unlock()
	if !ready {
		e.cancel(errStopped)
		return status.Error(codes.Unavailable, "not ready yet")
	}
	defer func() {
		n.mu.Lock()
		delete(n.accepted, e.id)
		n.mu.Unlock()
	}()
	late := time.AfterFunc(shakeTimeout, func() {
		if !e.complete() {
			e.fail(context.DeadlineExceeded)
		}
	})
	defer late.Stop()
	answer := n.hello(e.id, h.wire, len(e.queues)-firstClass).metadata()
	if err := s.SendHeader(answer); err != nil {
		e.fail(err)
		return err
	}
	return e.serve(s, 0)
}

// serve is the accepting end of one stream.
func (e *epoch) serve(s grpc.ServerStream, index int) error {
	complete, ok := e.join()
	if !ok {
		return status.Error(codes.Unavailable, "the epoch is over")
	}
	if complete && !e.net.offer(e) {
		e.fail(errStopped)
	}
	e.run(s, index)
	return status.Error(codes.Unavailable, "the epoch is over: "+context.Cause(e.ctx).Error())
}
