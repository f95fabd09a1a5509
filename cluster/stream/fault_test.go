package stream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// through makes a and b peers, where a, who dials, reaches b through a proxy.
func through(t testing.TB, a, b *node) *proxy {
	t.Helper()
	p := startProxy(t, b.self.Addr)
	far := b.self
	far.Addr = p.addr()
	b.SetPeers([]Peer{a.self})
	a.SetPeers([]Peer{far})
	connected(t, a, b)
	return p
}

func connected(t testing.TB, a, b *node) {
	t.Helper()
	eventually(t, "connected", func() bool { return a.up(b.self.Node) && b.up(a.self.Node) })
}

func TestReconnects(t *testing.T) {
	a, b := startNode(t, 1), startNode(t, 2)
	p := through(t, a, b)
	for round := range 5 {
		p.cut()
		eventually(t, "a new epoch", func() bool { return a.was("up 2") >= round+2 && b.was("up 1") >= round+2 })
		connected(t, a, b)
		if err := a.Send(2, 0, byte(round), nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "received", func() bool { return len(b.received()) == round+1 })
	}
	for i, told := range a.told {
		if want := []string{"up 2", "down 2"}[i%2]; told != want {
			t.Errorf("the dialling end was told %q", a.told)
			break
		}
	}
}

func TestPeersAreLetGo(t *testing.T) {
	a, b := startNode(t, 1), startNode(t, 2)
	join(t, a, b)
	a.SetPeers(nil)
	eventually(t, "down", func() bool { return a.was("down 2") == 1 && b.was("down 1") == 1 })
	eventually(t, "forgotten", func() bool {
		a.Net.mu.Lock()
		defer a.Net.mu.Unlock()
		return len(a.peers) == 0
	})
	a.SetPeers([]Peer{b.self})
	connected(t, a, b)
}

// TestUninvited: an edge dials a core that has not heard of it.
func TestUninvited(t *testing.T) {
	core, edge := startNode(t, 1), startNode(t, 2)
	core.SetPeers(nil)
	far := core.self
	far.Dial = Here
	edge.SetPeers([]Peer{far})
	connected(t, core, edge)
	edge.Stop()
	eventually(t, "the edge is gone", func() bool { return core.was("refused 2") == 1 })
}

func TestRefusals(t *testing.T) {
	other, err := NewKeys([]byte("the secret of another cluster"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change      func(*Config)
		forge       bool
		logA, logB  string
		wrongNodeID bool
	}{
		"another cluster": {change: func(cfg *Config) { cfg.Cluster = "d" },
			logA: `node n1 belongs to cluster \"d\", node n2 to \"c\"`, logB: `node n1 belongs to cluster \"d\", node n2 to \"c\"`},
		"another secret": {change: func(cfg *Config) { cfg.Keys = other }, logA: "unknown authority", logB: "a connection was refused"},
		"plain text":     {change: plain, logA: "no connection", logB: "a connection was refused"},
		"no cluster yet": {change: func(cfg *Config) { cfg.Cluster = "" }},
		"a forged id":    {forge: true, logA: "its certificate is for node 9", logB: "its certificate is for node 9"},
		"another node":   {wrongNodeID: true, logA: "node 3 was expected there, node 2 answered"},
		"newer versions": {change: func(cfg *Config) { cfg.Wire = [2]uint8{2, 3} }, logA: "node n1 speaks versions 2 to 3, node n2 1 to 1", logB: "node n1 speaks versions 2 to 3, node n2 1 to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			change := c.change
			if change == nil {
				change = func(*Config) {}
			}
			a, b := startNode(t, 1, change), startNode(t, 2)
			if c.forge {
				cert, err := testKeys(t).certificate(identity{"c", 9}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				a.prover.cert, a.prover.of, a.prover.at = cert, identity{"c", 1}, time.Now()
			}
			far := b.self
			if c.wrongNodeID {
				far.Node = 3
			}
			b.SetPeers([]Peer{a.self})
			a.SetPeers([]Peer{far})
			if c.logA == "" { // it does not even dial
				if a.Connected(2) {
					t.Error("connected")
				}
				a.SetCluster("c")
				connected(t, a, b)
				return
			}
			eventually(t, "said why", func() bool { return a.logged(c.logA) && (c.logB == "" || b.logged(c.logB)) })
			if a.Connected(2) || b.Connected(1) || len(a.told)+len(b.told) > 0 {
				t.Error("connected", a.told, b.told)
			}
		})
	}
}

func TestListenRefuses(t *testing.T) {
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	local := listen(t)
	defer local.Close()
	for name, cfg := range map[string]Config{
		"plain beyond loopback": {Self: Peer{Node: 1}, Listener: open, Classes: 1},
		"no node":               {Listener: local, Classes: 1},
		"no listener":           {Self: Peer{Node: 1}, Classes: 1},
		"no class":              {Self: Peer{Node: 1}, Listener: local},
		"many classes":          {Self: Peer{Node: 1}, Listener: local, Classes: 17},
	} {
		if n, err := Listen(cfg); err == nil {
			n.Stop()
			t.Error(name)
		}
	}
	n := startNode(t, 1, plain)
	if _, err := n.CallAddr(t.Context(), "192.0.2.1:1", "m", nil); !errors.Is(err, errPlain) {
		t.Error("plain text to a machine elsewhere:", err)
	}
}

// While a secret is replaced, nodes of two neighbouring steps believe each other, and those that are further apart do not.
func TestKeysOfTwoSecrets(t *testing.T) {
	was, is := []byte("the secret of long ago"), []byte("the secret of tomorrow")
	keys := func(secret []byte, others ...[]byte) *Keys {
		k, err := NewKeys(secret, others...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	steps := []*Keys{keys(was), keys(was, is), keys(is, was), keys(is)}
	believes := func(k, other *Keys) bool {
		cert, err := other.certificate(identity{"c", 7}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return k.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}) == nil
	}
	for i, one := range steps {
		for j, two := range steps {
			if both, want := believes(one, two) && believes(two, one), max(i-j, j-i) <= 1; both != want {
				t.Errorf("step %d and step %d: %v", i, j, both)
			}
		}
	}
	if _, err := NewKeys(was, []byte("short")); err == nil {
		t.Error("a short second secret")
	}
}

func TestKeys(t *testing.T) {
	if _, err := NewKeys([]byte("short")); err == nil {
		t.Error("a short secret")
	}
	one, two := testKeys(t), testKeys(t)
	if !one.ca.Equal(two.ca) {
		t.Error("two nodes derive two CAs")
	}
	key, err := GossipKey(secret)
	if err != nil || len(key) != 32 {
		t.Error(key, err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secretKey := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	own, err := KeysFromCA(cert, secretKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := KeysFromCA(secretKey, cert); err == nil {
		t.Error("a key as a certificate")
	}
	use := func(cfg *Config) { cfg.Keys = own }
	join(t, startNode(t, 1, use), startNode(t, 2, use))
}

// TestNewerBuild speaks a version more, has a class more, and sends what nobody knows yet.
func TestNewerBuild(t *testing.T) {
	for _, newer := range []uint64{1, 2} {
		t.Run(fmt.Sprint("node ", newer), func(t *testing.T) {
			var nodes []*node
			for id := uint64(1); id <= 2; id++ {
				nodes = append(nodes, startNode(t, id, func(cfg *Config) {
					if id == newer {
						cfg.Wire, cfg.Classes = [2]uint8{1, 2}, 3
					}
				}))
			}
			join(t, nodes...)
			n, o := nodes[newer-1], nodes[2-newer]
			e := n.epoch(o.self.Node)
			if e.version != 1 || n.ups[0].Wire != 1 || o.ups[0].Wire != 1 {
				t.Errorf("version %d was chosen", e.version)
			}
			for i, q := range e.queues {
				if err := q.put(envelope{form: 200, kind: 1, payload: []byte("?")}); err != nil {
					t.Fatal(err)
				}
				if i < firstClass {
					if err := q.put(envelope{kind: 200, payload: []byte("12345678")}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := n.Send(o.self.Node, 2, 0, []byte("to a class that the other lacks")); err != nil {
				t.Error(err)
			}
			for c := range Class(2) {
				if err := n.Send(o.self.Node, c, 0, []byte("after")); err != nil {
					t.Error(err)
				}
			}
			eventually(t, "the rest arrives", func() bool { return len(o.received()) == 2 && o.Skipped() == 6 })
			if n.Skipped() != 1 {
				t.Error("skipped at the sender:", n.Skipped())
			}
			o.Handle("m", false, func(context.Context, Peer, []byte) ([]byte, error) { return nil, nil })
			if _, err := n.Call(t.Context(), o.self.Node, "m", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	short := func(cfg *Config) { cfg.Silence = 700 * time.Millisecond }
	a, b := startNode(t, 1, short), startNode(t, 2, short)
	p := through(t, a, b)
	p.hang()
	eventually(t, "both notice", func() bool { return a.was("silent 2") > 0 && b.was("silent 1") > 0 })
	if !a.Connected(2) || a.was("down 2") > 0 {
		t.Error("silence alone ended the epoch")
	}
	p.resume()
	eventually(t, "both hear again", func() bool { return a.was("heard 2") > 0 && b.was("heard 1") > 0 })
}

func TestLongSilenceEndsTheEpoch(t *testing.T) {
	a := startNode(t, 1, func(cfg *Config) { cfg.Silence, cfg.Lost = 500*time.Millisecond, time.Second })
	b := startNode(t, 2)
	p := through(t, a, b)
	p.hang()
	eventually(t, "down", func() bool { return a.was("down 2") > 0 })
	p.resume()
	eventually(t, "up again", func() bool { return a.was("up 2") > 1 && a.was("heard 2") > 0 })
}

// TestHungLoop: the process lives, but what answers pings does not.
func TestHungLoop(t *testing.T) {
	var hung atomic.Bool
	a := startNode(t, 1, func(cfg *Config) { cfg.Silence = 700 * time.Millisecond })
	b := startNode(t, 2, func(cfg *Config) {
		cfg.Ping = func(_ uint64, pong func()) {
			if !hung.Load() {
				pong()
			}
		}
		cfg.Note = func() []byte { return []byte("a note") }
	})
	join(t, a, b)
	hung.Store(true)
	eventually(t, "silent", func() bool { return a.was("silent 2") > 0 })
	hung.Store(false)
	eventually(t, "heard", func() bool { return a.was("heard 2") > 0 })
}

func TestNotesAndClocks(t *testing.T) {
	type noted struct {
		from  uint64
		note  string
		clock time.Time
		rtt   time.Duration
	}
	heard := make(chan noted, 100)
	a := startNode(t, 1, func(cfg *Config) {
		cfg.Noted = func(from Peer, note []byte, clock time.Time, rtt time.Duration) {
			select {
			case heard <- noted{from.Node, string(note), clock, rtt}:
			default:
			}
		}
	})
	b := startNode(t, 2, func(cfg *Config) { cfg.Note = func() []byte { return make([]byte, maxNote+1) } })
	before := time.Now()
	join(t, a, b)
	n := <-heard
	if n.from != 2 || len(n.note) != maxNote || n.clock.Before(before.Add(-time.Millisecond)) || n.clock.After(time.Now()) || n.rtt <= 0 {
		t.Errorf("from %d, %d bytes, %v, %v", n.from, len(n.note), n.clock, n.rtt)
	}
}

// TestOwnStall: what looks like silence while our own pings did not run is none.
func TestOwnStall(t *testing.T) {
	n := startNode(t, 1, func(cfg *Config) { cfg.Silence = 700 * time.Millisecond })
	now := time.Now()
	p := &peer{net: n.Net, node: 2, alive: alive{known: true, pong: now}}
	p.ping(now.Add(3*time.Second), 2800*time.Millisecond)
	if p.alive.silent {
		t.Error("our own stall counts as its silence")
	}
	p.ping(now.Add(4*time.Second), 0)
	if !p.alive.silent || n.was("silent 0") != 1 {
		t.Error("silence was not noticed", n.told)
	}
}

// TestSlowReceiver: its class fills up and refuses, the other class passes, and memory stays bounded.
func TestSlowReceiver(t *testing.T) {
	release := make(chan struct{})
	var others atomic.Int64
	a := startNode(t, 1)
	b := startNode(t, 2, func(cfg *Config) {
		cfg.Receive = func(_ Peer, c Class, _ byte, _ []byte) {
			if c == 0 {
				<-release
			} else {
				others.Add(1)
			}
		}
	})
	join(t, a, b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sent := int64(0)
	fill := func() (full int) {
		for range 100_000 {
			if err := a.Send(2, 0, 0, make([]byte, 1024)); err != nil {
				if !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				return 1
			}
			sent++
		}
		t.Fatal("100 MB were queued")
		return 0
	}
	full := 0
	for full < 20 { // the windows fill as well
		full += fill()
		if err := a.SendWait(t.Context(), 2, 1, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 20<<20 {
		t.Errorf("%d MiB are held for a peer that hangs", grown>>20)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for err := error(nil); err == nil; {
		err = a.SendWait(ctx, 2, 0, 0, make([]byte, 1024))
	}
	eventually(t, "the other class passes", func() bool { return others.Load() == 20 })
	close(release)
	eventually(t, "room again", func() bool { return a.Send(2, 0, 0, nil) == nil })
}

// TestHungPeer stops reading from the socket: what is sent meanwhile is bounded, and Stop does not wait for it.
func TestHungPeer(t *testing.T) {
	a, b := startNode(t, 1), startNode(t, 2)
	p := through(t, a, b)
	p.hang()
	for sent := 0; ; sent++ {
		if sent > 100_000 {
			t.Fatal("100 MB were queued")
		}
		if err := a.Send(2, 0, 0, make([]byte, 1024)); errors.Is(err, ErrFull) {
			break
		}
	}
	a.Stop()
}
