package chaos

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	dialPatience = time.Second // for one server, before another one is tried
	downFor      = time.Second // that a server which did not answer is tried last
)

// balancer gives a connection to the server that has the fewest, as load balancers for WebSockets do.
type balancer struct {
	mu      sync.Mutex
	servers []*backend
}

type backend struct {
	addr   string
	conns  int
	failed time.Time
}

func newBalancer(fronts []place) *balancer {
	b := &balancer{}
	for _, p := range fronts {
		b.servers = append(b.servers, &backend{addr: p.listen()})
	}
	return b
}

// dial connects to the first server that answers.
func (b *balancer) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialPatience}
	last := errors.New("no server takes clients")
	for tried := []*backend(nil); len(tried) < len(b.servers); {
		s := b.take(tried)
		conn, err := dialer.DialContext(ctx, "tcp4", s.addr)
		if err == nil {
			return &balanced{Conn: conn, closed: sync.OnceFunc(func() { b.give(s, nil) })}, nil
		}
		b.give(s, err)
		tried, last = append(tried, s), err
	}
	return nil, last
}

// take counts a connection to the best server that was not tried yet; among equals to any.
func (b *balancer) take(tried []*backend) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	rand.Shuffle(len(b.servers), func(i, j int) { b.servers[i], b.servers[j] = b.servers[j], b.servers[i] })
	load := func(s *backend) int {
		switch {
		case slices.Contains(tried, s):
			return 2 << 30
		case time.Since(s.failed) < downFor:
			return 1<<30 + s.conns
		}
		return s.conns
	}
	s := slices.MinFunc(b.servers, func(x, y *backend) int { return cmp.Compare(load(x), load(y)) })
	s.conns++
	return s
}

// give takes the connection off again, which has ended or did not come about.
func (b *balancer) give(s *backend, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.conns--
	if err != nil {
		s.failed = time.Now()
	}
}

// balanced is a connection that is counted until it is closed.
type balanced struct {
	net.Conn
	closed func()
}

func (c *balanced) Close() error {
	c.closed()
	return c.Conn.Close()
}
