package stream

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy stands before a node's port and breaks what passes.
type proxy struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	conns []*net.TCPConn
	hung  chan struct{} // closed: go on
	shut  bool          // new connections are reset
	wg    sync.WaitGroup
}

func startProxy(t testing.TB, to string) *proxy {
	p := &proxy{l: listen(t), to: to, hung: make(chan struct{})}
	close(p.hung)
	p.wg.Go(func() {
		for {
			in, err := p.l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			p.mu.Lock()
			shut := p.shut
			p.mu.Unlock()
			if err != nil || shut {
				_ = in.(*net.TCPConn).SetLinger(0)
				_ = in.Close()
				if err == nil {
					_ = out.Close()
				}
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in.(*net.TCPConn), out.(*net.TCPConn))
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(in, out) })
			p.wg.Go(func() { p.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = p.l.Close()
		p.resume()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		hung := p.hung
		p.mu.Unlock()
		<-hung
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				_ = to.(*net.TCPConn).SetLinger(0)
			}
			return
		}
	}
}

// hang passes nothing on, both ways, as a stopped process or a black hole.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hung:
	default:
		close(p.hung)
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	p.conns = nil
}

// block resets all connections and new ones, until it is called with false.
func (p *proxy) block(shut bool) {
	p.mu.Lock()
	p.shut = shut
	p.mu.Unlock()
	if shut {
		p.cut()
	}
}
