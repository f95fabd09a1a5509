package stream

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc/metadata"
)

// The versions of envelopes that this build speaks: its own, and that of the minor version before.
const (
	OldestWire = 1
	NewestWire = 1
)

// hello opens an epoch, both ways, as metadata of the first stream. What a build does not know in it, it ignores.
type hello struct {
	self    Peer
	cluster string
	wire    [2]uint8 // in the answer both are the chosen version
	epoch   uint64
	classes int
}

func (h hello) metadata() metadata.MD {
	hex := func(v uint64) string { return strconv.FormatUint(v, 16) }
	return metadata.MD{
		"m-node": {hex(h.self.Node)}, "m-incarnation": {hex(h.self.Incarnation)}, "m-epoch": {hex(h.epoch)},
		"m-name-bin": {h.self.Name}, "m-addr-bin": {h.self.Addr}, "m-cluster-bin": {h.cluster},
		"m-min": {strconv.Itoa(int(h.wire[0]))}, "m-max": {strconv.Itoa(int(h.wire[1]))}, "m-classes": {strconv.Itoa(h.classes)},
	}
}

// fields reads metadata and keeps the first error.
type fields struct {
	md  metadata.MD
	err error
}

func (f *fields) text(key string) string {
	if v := f.md.Get(key); len(v) == 1 {
		return v[0]
	}
	f.err = fmt.Errorf("the handshake lacks %s", key)
	return ""
}

func (f *fields) number(key string, base, bits int) uint64 {
	s := f.text(key)
	v, err := strconv.ParseUint(s, base, bits)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("the handshake's %s is %q", key, s)
	}
	return v
}

func parseHello(md metadata.MD) (h hello, err error) {
	f := &fields{md: md}
	h.self = Peer{Node: f.number("m-node", 16, 64), Name: f.text("m-name-bin"), Addr: f.text("m-addr-bin"), Incarnation: f.number("m-incarnation", 16, 64)}
	h.cluster, h.epoch = f.text("m-cluster-bin"), f.number("m-epoch", 16, 64)
	h.wire = [2]uint8{uint8(f.number("m-min", 10, 8)), uint8(f.number("m-max", 10, 8))}
	h.classes = int(f.number("m-classes", 10, 8))
	if f.err == nil && h.self.Node == 0 {
		f.err = errors.New("the handshake names node 0")
	}
	return h, f.err
}

// agree picks the highest version that both speak.
func (n *Net) agree(h hello) (uint8, error) {
	own := n.cfg.Wire
	v := min(own[1], h.wire[1])
	if v < max(own[0], h.wire[0]) {
		return 0, fmt.Errorf("node %s speaks versions %d to %d, node %s %d to %d", h.self.Name, h.wire[0], h.wire[1], n.cfg.Self.Name, own[0], own[1])
	}
	return v, nil
}

// foreign says that two nodes are not of one cluster.
func (n *Net) foreign(h hello) error {
	return fmt.Errorf("node %s belongs to cluster %q, node %s to %q", h.self.Name, h.cluster, n.cfg.Self.Name, n.cluster())
}

// hello of this node for an epoch.
func (n *Net) hello(epoch uint64, wire [2]uint8, classes int) hello {
	return hello{self: n.cfg.Self, cluster: n.cluster(), wire: wire, epoch: epoch, classes: classes}
}
