package gossip

import (
	"encoding/binary"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

// nodeOf is m as memberlist would bring it.
func nodeOf(t *testing.T, m Member, p *port) *memberlist.Node {
	t.Helper()
	meta, err := encodeMeta(&m, false)
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{Name: m.memberName(), Addr: p.ip, Port: uint16(p.port), Meta: meta}
}

func full() Member {
	host := "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
	return Member{Node: 1<<64 - 1, Name: strings.Repeat("n", 128), Role: Core | Edge, Gossip: host, Actor: host, Raft: host,
		Incarnation: 1<<64 - 1, Zone: strings.Repeat("z", 64), Version: strings.Repeat("v", 64), Cluster: strings.Repeat("c", 64), Expect: 65535, Draining: true}
}

func roundTrip(t *testing.T, m Member, leaving bool) {
	t.Helper()
	meta, err := encodeMeta(&m, leaving)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(m.Gossip)
	n, _ := strconv.ParseUint(port, 10, 16)
	got, left, err := memberOf(&memberlist.Node{Name: m.memberName(), Addr: net.ParseIP(host), Port: uint16(n), Meta: meta})
	if err != nil || got != m || left != leaving {
		t.Errorf("%+v %v %v, want %+v %v", got, left, err, m, leaving)
	}
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, full(), true)
	roundTrip(t, full(), false)
	roundTrip(t, Member{Node: 1, Name: "a.b.c", Role: Edge, Incarnation: 1, Gossip: "10.0.0.1:7946"}, false)
}

func TestSize(t *testing.T) {
	m := full()
	if err := checkSelf(m); err != nil {
		t.Error("the largest reasonable description:", err)
	}
	m.Zone = strings.Repeat("z", 300)
	m.Cluster = ""
	if err := checkSelf(m); err == nil || !strings.Contains(err.Error(), "zone 300") || !strings.Contains(err.Error(), "512") {
		t.Error(err)
	}
	m.Zone = strings.Repeat("z", 512-245)
	if _, err := encodeMeta(&m, true); err != nil {
		t.Error("the example must fit without a cluster id:", err)
	}
	if checkSelf(m) == nil {
		t.Error("no room kept for the cluster id")
	}
}

func TestUnknownFields(t *testing.T) {
	m := full()
	meta, err := encodeMeta(&m, false)
	if err != nil {
		t.Fatal(err)
	}
	meta = append(meta, 0xa0, 0x06, 1, 0xaa, 0x06, 2, 'x', 'y', 0xad, 0x06, 1, 2, 3, 4, 0xb1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8)
	got := Member{Name: m.Name, Incarnation: m.Incarnation, Gossip: m.Gossip}
	if _, err := decodeMeta(&got, meta); err != nil || got != m {
		t.Errorf("%+v %v", got, err)
	}
	meta[0]++
	if _, err := decodeMeta(&got, meta); err == nil {
		t.Error("a later format was read")
	}
}

func TestStartRefuses(t *testing.T) {
	good := Config{Self: member(1, "a"), Bind: "127.0.0.1", Logger: slog.New(slog.DiscardHandler)}
	for want, f := range map[string]func(*Config){
		"node id 0":       func(c *Config) { c.Self.Node = 0 },
		"incarnation 0":   func(c *Config) { c.Self.Incarnation = 0 },
		"name of 0":       func(c *Config) { c.Self.Name = "" },
		"name of 129":     func(c *Config) { c.Self.Name = strings.Repeat("n", 129) },
		"do not print":    func(c *Config) { c.Self.Name = "a b" },
		"no role":         func(c *Config) { c.Self.Role = 0 },
		"id of 65":        func(c *Config) { c.Self.Cluster = strings.Repeat("c", 65) },
		"expect -1":       func(c *Config) { c.Self.Expect = -1 },
		"actor address":   func(c *Config) { c.Self.Actor = "host" },
		"raft address":    func(c *Config) { c.Self.Raft = "host:0" },
		"at most 512":     func(c *Config) { c.Self.Zone = strings.Repeat("z", 600) },
		"at most 255":     func(c *Config) { c.ClusterName = strings.Repeat("n", 256) },
		"key size":        func(c *Config) { c.Keys = [][]byte{{1}} },
		"not an IP":       func(c *Config) { c.Bind = "localhost" },
		"must be given":   func(c *Config) { c.Bind = "::" },
		"port 70000":      func(c *Config) { c.Port = 70000 },
		"nobody can":      func(c *Config) { c.Advertise = "0.0.0.0" },
		"bound to port 0": func(c *Config) { c.Advertise = "10.0.0.1:7946" },
		"listen on":       func(c *Config) { c.Bind = "192.0.2.1" },
	} {
		c := good
		f(&c)
		if g, err := Start(c); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "gossip: ") {
			t.Errorf("want %q: %v", want, err)
			if err == nil {
				g.Close()
			}
		}
	}
}

func TestRole(t *testing.T) {
	for r, want := range map[Role]string{Core: "core", Edge: "edge", Core | Edge: "both", 8: "role 8"} {
		if r.String() != want {
			t.Error(r.String())
		}
	}
}

func FuzzMeta(f *testing.F) {
	m := full()
	meta, _ := encodeMeta(&m, true)
	f.Add("name.1", meta)
	f.Add("name", []byte{1})
	f.Add(".", binary.AppendUvarint([]byte{1}, 1<<63))
	f.Fuzz(func(t *testing.T, name string, meta []byte) {
		m, leaving, err := memberOf(&memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 1), Port: 1, Meta: meta})
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		if _, err := encodeMeta(&m, leaving); err == nil {
			roundTrip(t, m, leaving)
		}
	})
}
