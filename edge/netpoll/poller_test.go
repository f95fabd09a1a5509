package netpoll_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/edge/netpoll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socket collects what arrives, reading only when told.
type socket struct {
	conn   *netpoll.Conn
	source netpoll.Source

	mu   sync.Mutex
	got  []byte
	err  error
	more chan struct{}
}

func (s *socket) Readable(ended bool) {
	if ended {
		s.conn.End()
	}
	s.source.Signal(s.conn, s.read)
}

func (s *socket) read() {
	var buf [16]byte
	for {
		n, err := s.conn.Read(buf[:])
		s.mu.Lock()
		s.got = append(s.got, buf[:n]...)
		s.err = err
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil || s.conn.Drained() {
			return
		}
	}
}

func (s *socket) await(t *testing.T, what string, ok func(got []byte, err error) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		done := ok(s.got, s.err)
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("no %s in 10 s", what)
		}
	}
}

func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func newPoller(t *testing.T) *netpoll.Poller {
	t.Helper()
	p, err := netpoll.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func add(t *testing.T, p *netpoll.Poller, c net.Conn) *socket {
	t.Helper()
	s := &socket{conn: &netpoll.Conn{Conn: c}, more: make(chan struct{}, 1)}
	if ok, err := p.Add(s.conn, s); !ok || err != nil {
		t.Fatalf("Add: %v, %v", ok, err)
	}
	return s
}

// Every byte arrives, whatever the sizes of the writes: less than a read, exactly one,
// several, and data that was there before Add.
func TestEveryByteArrives(t *testing.T) {
	p := newPoller(t)
	client, server := pair(t)
	var want []byte
	send := func(n int) {
		b := bytes.Repeat([]byte{byte('a' + len(want)%26)}, n)
		want = append(want, b...)
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(5)
	s := add(t, p, server)
	for _, n := range []int{1, 16, 15, 32, 17, 4096, 16, 1, 100_000} {
		send(n)
		s.await(t, "bytes", func(got []byte, _ error) bool { return len(got) == len(want) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(s.got, want) {
		t.Fatal("bytes differ")
	}
}

func TestHangupIsTold(t *testing.T) {
	p := newPoller(t)
	client, server := pair(t)
	s := add(t, p, server)
	client.Close()
	s.await(t, "end of stream", func(_ []byte, err error) bool { return err == io.EOF })
}

// The end that comes together with data raises no event of its own.
func TestEndWithData(t *testing.T) {
	p := newPoller(t)
	for range 50 {
		client, server := pair(t)
		client.Write([]byte("last"))
		client.Close()
		s := add(t, p, server)
		s.await(t, "data and the end", func(got []byte, err error) bool { return string(got) == "last" && err == io.EOF })
		p.Remove(s.conn)
	}
}

// Many sockets written to at once, each must hear; and none after Remove.
func TestManySockets(t *testing.T) {
	p := newPoller(t)
	const n = 300
	var clients []net.Conn
	var sockets []*socket
	for range n {
		c, s := pair(t)
		clients = append(clients, c)
		sockets = append(sockets, add(t, p, s))
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for range 50 {
				c.Write([]byte("hello"))
			}
		})
	}
	wg.Wait()
	for _, s := range sockets {
		s.await(t, "250 bytes", func(got []byte, _ error) bool { return len(got) == 250 })
	}
	p.Remove(sockets[0].conn)
	clients[0].Write([]byte("x"))
	clients[1].Write([]byte("x"))
	sockets[1].await(t, "one more byte", func(got []byte, _ error) bool { return len(got) == 251 })
	sockets[0].mu.Lock()
	defer sockets[0].mu.Unlock()
	if len(sockets[0].got) != 250 {
		t.Fatal("a removed socket was read")
	}
}

func TestNoDescriptor(t *testing.T) {
	p := newPoller(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if ok, err := p.Add(a, nil); ok || err != nil {
		t.Fatalf("Add(pipe) = %v, %v", ok, err)
	}
}
