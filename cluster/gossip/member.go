package gossip

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/encoding/protowire"
)

// Role says what a node does; a node may do both.
type Role uint8

// The roles.
const (
	Core Role = 1 << iota // holds shards
	Edge                  // holds sockets
)

func (r Role) String() string {
	switch r {
	case Core:
		return "core"
	case Edge:
		return "edge"
	case Core | Edge:
		return "both"
	}
	return "role " + strconv.Itoa(int(r))
}

// Member describes one process of a cluster.
type Member struct {
	Node        uint64 // never 0
	Name        string // 1 to 128 bytes
	Role        Role
	Gossip      string // host:port; of Config.Self it is ignored and filled by Start
	Actor       string // host:port
	Raft        string // host:port; "" on an edge
	Incarnation uint64 // Unix nanoseconds of the process's start, never 0
	Zone        string
	Version     string
	Cluster     string // cluster id, at most 64 bytes; "" until the node belongs to one
	Expect      int    // --expect; 0 if not given
	Draining    bool
	Wire        [2]uint8 // oldest and newest version of envelopes that it speaks; 0, 0: it does not say
}

const (
	maxName    = 128
	maxCluster = 64
	metaFormat = 1
)

func (m *Member) check() error {
	switch {
	case m.Node == 0:
		return errors.New("gossip: node id 0")
	case m.Incarnation == 0:
		return errors.New("gossip: incarnation 0")
	case m.Name == "" || len(m.Name) > maxName:
		return fmt.Errorf("gossip: a node name of %d bytes, want 1 to %d", len(m.Name), maxName)
	case !printable(m.Name):
		return fmt.Errorf("gossip: node name %q holds spaces or characters that do not print", m.Name)
	case m.Role&(Core|Edge) == 0:
		return fmt.Errorf("gossip: node %s has no role", m.Name)
	case len(m.Cluster) > maxCluster:
		return fmt.Errorf("gossip: a cluster id of %d bytes, want at most %d", len(m.Cluster), maxCluster)
	case m.Expect < 0 || m.Expect > math.MaxUint16:
		return fmt.Errorf("gossip: expect %d", m.Expect)
	}
	for what, addr := range map[string]string{"actor": m.Actor, "raft": m.Raft} {
		if addr == "" {
			continue
		}
		if err := checkAddr(addr); err != nil {
			return fmt.Errorf("gossip: %s address of node %s: %w", what, m.Name, err)
		}
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) < 0
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%q is not host:port", addr)
	}
	return nil
}

// memberName is the name memberlist knows the process by.
func (m *Member) memberName() string {
	return m.Name + "." + strconv.FormatUint(m.Incarnation, 36)
}

func splitMemberName(s string) (name string, incarnation uint64, err error) {
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return "", 0, fmt.Errorf("gossip: member %q has no incarnation", s)
	}
	incarnation, err = strconv.ParseUint(s[dot+1:], 36, 64)
	if err != nil {
		return "", 0, fmt.Errorf("gossip: member %q has no incarnation", s)
	}
	return s[:dot], incarnation, nil
}

// Field numbers of the metadata: never used again for something else.
const (
	fieldNode protowire.Number = 1 + iota
	fieldRole
	fieldActor
	fieldRaft
	fieldZone
	fieldVersion
	fieldCluster
	fieldExpect
	fieldDraining
	fieldLeaving
	fieldWire
)

// encodeMeta leaves out what memberlist carries itself: name, incarnation and gossip address.
func encodeMeta(m *Member, leaving bool) ([]byte, error) {
	b := []byte{metaFormat}
	number := func(f protowire.Number, v uint64) {
		if v != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, f, protowire.VarintType), v)
		}
	}
	text := func(f protowire.Number, s string) {
		if s != "" {
			b = protowire.AppendString(protowire.AppendTag(b, f, protowire.BytesType), s)
		}
	}
	b = protowire.AppendFixed64(protowire.AppendTag(b, fieldNode, protowire.Fixed64Type), m.Node)
	number(fieldRole, uint64(m.Role))
	text(fieldActor, m.Actor)
	text(fieldRaft, m.Raft)
	text(fieldZone, m.Zone)
	text(fieldVersion, m.Version)
	text(fieldCluster, m.Cluster)
	number(fieldExpect, uint64(m.Expect))
	number(fieldDraining, protowire.EncodeBool(m.Draining))
	number(fieldLeaving, protowire.EncodeBool(leaving))
	number(fieldWire, uint64(m.Wire[0])<<8|uint64(m.Wire[1]))
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: the description of node %s takes %d bytes, at most %d fit: zone %d, version %d, actor address %d, raft address %d, cluster id %d",
			m.Name, len(b), memberlist.MetaMaxSize, len(m.Zone), len(m.Version), len(m.Actor), len(m.Raft), len(m.Cluster))
	}
	return b, nil
}

func decodeMeta(m *Member, b []byte) (leaving bool, err error) {
	if len(b) == 0 || b[0] != metaFormat {
		return false, fmt.Errorf("gossip: metadata of %s has a format unknown here", m.Name)
	}
	for b = b[1:]; len(b) > 0; {
		f, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false, fmt.Errorf("gossip: metadata of %s: %w", m.Name, protowire.ParseError(n))
		}
		b = b[n:]
		var number uint64
		var text []byte
		switch typ {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(f, typ, b)
		}
		if n < 0 {
			return false, fmt.Errorf("gossip: metadata of %s: %w", m.Name, protowire.ParseError(n))
		}
		b = b[n:]
		leaving = m.set(f, number, string(text)) || leaving
	}
	return leaving, m.check()
}

func (m *Member) set(f protowire.Number, number uint64, text string) (leaving bool) {
	switch f {
	case fieldNode:
		m.Node = number
	case fieldRole:
		m.Role = Role(number) & (Core | Edge)
	case fieldActor:
		m.Actor = text
	case fieldRaft:
		m.Raft = text
	case fieldZone:
		m.Zone = text
	case fieldVersion:
		m.Version = text
	case fieldCluster:
		m.Cluster = text
	case fieldExpect:
		m.Expect = int(uint16(number))
	case fieldDraining:
		m.Draining = number != 0
	case fieldWire:
		m.Wire = [2]uint8{uint8(number >> 8), uint8(number)}
	case fieldLeaving:
		return number != 0
	}
	return false
}

// memberOf reads what memberlist knows of a process.
func memberOf(n *memberlist.Node) (m Member, leaving bool, err error) {
	m.Name, m.Incarnation, err = splitMemberName(n.Name)
	if err != nil {
		return m, false, err
	}
	m.Gossip = n.Address()
	leaving, err = decodeMeta(&m, n.Meta)
	return m, leaving, err
}
