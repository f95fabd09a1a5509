package gossip

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Traffic counts the bytes of packets that this node sent, and of exchanges over TCP that it began, both ways: summed over
// the nodes it is what gossip carries. 0 with a transport of the caller's.
func (g *Gossip) Traffic() uint64 { return g.traffic.Load() }

// sockets is memberlist's own transport, which counts.
type sockets struct {
	*memberlist.NetTransport
	bytes *atomic.Uint64
}

var _ memberlist.NodeAwareTransport = sockets{}

// listen opens the sockets that memberlist would. Of port 0 another try may find a port that is free for UDP and TCP.
func (g *Gossip) listen(conf *memberlist.Config) (memberlist.Transport, error) {
	nc := &memberlist.NetTransportConfig{BindAddrs: []string{conf.BindAddr}, BindPort: conf.BindPort, Logger: conf.Logger}
	t, err := memberlist.NewNetTransport(nc)
	for range 10 {
		if err == nil || conf.BindPort != 0 || !strings.Contains(err.Error(), "address already in use") {
			break
		}
		t, err = memberlist.NewNetTransport(nc)
	}
	if err != nil {
		return nil, fmt.Errorf("could not set up network transport: %w", err)
	}
	if conf.BindPort == 0 {
		conf.BindPort = t.GetAutoBindPort()
		conf.AdvertisePort = conf.BindPort
	}
	return sockets{t, &g.traffic}, nil
}

func (s sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	s.bytes.Add(uint64(len(b)))
	return s.NetTransport.WriteTo(b, addr)
}

func (s sockets) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	s.bytes.Add(uint64(len(b)))
	return s.NetTransport.WriteToAddress(b, addr)
}

func (s sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.counted(s.NetTransport.DialTimeout(addr, timeout))
}

func (s sockets) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return s.counted(s.NetTransport.DialAddressTimeout(addr, timeout))
}

func (s sockets) counted(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return exchange{c, s.bytes}, nil
}

// exchange is a connection that this node dialled.
type exchange struct {
	net.Conn
	bytes *atomic.Uint64
}

func (e exchange) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	e.bytes.Add(uint64(max(n, 0)))
	return n, err
}

func (e exchange) Write(b []byte) (int, error) {
	n, err := e.Conn.Write(b)
	e.bytes.Add(uint64(max(n, 0)))
	return n, err
}
