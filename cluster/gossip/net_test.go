package gossip

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is a network in memory whose links can be cut; it works in virtual time.
type wire struct {
	mu    sync.Mutex
	ports int
	at    map[string]*port
	cut   func(from, to string) bool // nil: all connected; called with addresses
	bytes int
}

func newWire() *wire { return &wire{at: map[string]*port{}} }

func (w *wire) partition(cut func(from, to string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// port is a transport on the wire.
type port struct {
	w       *wire
	ip      net.IP
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
	down    chan struct{}
	once    sync.Once
}

func (w *wire) plug(ip string) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports++
	return w.add(&port{w: w, ip: net.ParseIP(ip), port: 1000 + w.ports})
}

// replug is a new process at an address that one had before.
func (w *wire) replug(old *port) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.add(&port{w: w, ip: old.ip, port: old.port})
}

func (w *wire) add(p *port) *port {
	p.packets, p.streams, p.down = make(chan *memberlist.Packet, 1024), make(chan net.Conn), make(chan struct{})
	w.at[p.addr()] = p
	return p
}

func (p *port) addr() string { return net.JoinHostPort(p.ip.String(), strconv.Itoa(p.port)) }

// to is the open port at addr that p reaches.
func (p *port) to(addr string) *port {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.w.cut != nil && p.w.cut(p.addr(), addr) {
		return nil
	}
	return p.w.at[addr]
}

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return p.ip, p.port, nil }

func (p *port) WriteTo(b []byte, addr string) (time.Time, error) {
	if to := p.to(addr); to != nil {
		from, _ := net.ResolveUDPAddr("udp", p.addr())
		select {
		case to.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: time.Now()}:
		default:
		}
	}
	p.w.mu.Lock()
	p.w.bytes += len(b)
	p.w.mu.Unlock()
	return time.Now(), nil
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *port) StreamCh() <-chan net.Conn           { return p.streams }

func (p *port) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	to := p.to(addr)
	if to == nil {
		<-timer.C
		return nil, fmt.Errorf("dial %s: i/o timeout", addr)
	}
	here, there := net.Pipe()
	select {
	case to.streams <- there:
		return here, nil
	case <-to.down:
		return nil, errors.New("connection refused")
	case <-timer.C:
		return nil, fmt.Errorf("dial %s: i/o timeout", addr)
	}
}

func (p *port) Shutdown() error {
	p.once.Do(func() { close(p.down) })
	return nil
}

var _ memberlist.Transport = (*port)(nil)
