package gossip

import (
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSockets is the real thing: UDP and TCP on loopback, encrypted.
func TestSockets(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			t.Logf("%s is not to be had here: %v", ip, err)
			continue
		}
		_ = l.Close()
		var all []*Gossip
		for i, name := range []string{"a", "b"} {
			g, err := Start(Config{Self: member(uint64(i+1), name), ClusterName: "test", Bind: ip, Keys: [][]byte{key("k")}, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			all = append(all, g)
		}
		if n, err := all[0].Join([]string{all[1].Self().Gossip}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		for _, g := range all {
			until(t, "both", func() bool { return len(g.Members()) == 2 })
		}
		// Who joined has exchanged the list of members over TCP; the other one sends packets.
		until(t, "counted", func() bool { return all[0].Traffic() > 0 && all[1].Traffic() > 0 })
		all[1].Leave(10 * time.Second)
		until(t, "left", func() bool { return len(all[0].Members()) == 1 })
		if !strings.HasPrefix(all[0].Self().Gossip, net.JoinHostPort(ip, "")) {
			t.Error(all[0].Self().Gossip)
		}
	}
}

// until waits in real time, with a deadline that only a hang reaches.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not %s within a minute", what)
		}
	}
}
