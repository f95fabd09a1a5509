package edge

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"muster/clients/wire"
)

func clientOver(dial func() (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial() },
	}}
}

func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// Many goroutines write frames of all sizes to a socket whose reader is slow: every frame arrives
// whole, and those of one writer in order.
func TestFramesNeverInterleave(t *testing.T) {
	client, server := tcpPair(t)
	server.SetWriteBuffer(4 << 10)
	s := &socket{edge: &Edge{}}
	s.nc.Conn = server
	s.out.owner, s.out.raw = s, rawConn(server)
	const writers, each = 8, 120
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := make([]byte, 8+(i*37+w*11)%3000)
				for j := range b {
					b[j] = byte(w)
				}
				copy(b, fmt.Sprintf("%d:%04d", w, i))
				if i%2 == 0 {
					s.out.write(appendFrame(nil, opText, b), true, 1)
				} else {
					(*transport)(s).writeAndClear(appendFrame(nil, opText, b))
				}
			}
		})
	}
	next := make([]int, writers)
	header := make([]byte, 4)
	for range writers * each {
		if _, err := io.ReadFull(client, header[:2]); err != nil {
			t.Fatal(err)
		}
		n := int(header[1])
		if header[0] != opText {
			t.Fatalf("no frame begins here: %x", header)
		}
		if n == 126 {
			io.ReadFull(client, header[2:4])
			n = int(header[2])<<8 | int(header[3])
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(client, b); err != nil {
			t.Fatal(err)
		}
		var w, i int
		fmt.Sscanf(string(b[:6]), "%d:%d", &w, &i)
		if i != next[w] {
			t.Fatalf("writer %d: frame %d, want %d", w, i, next[w])
		}
		next[w]++
		for _, c := range b[6:] {
			if c != byte(w) {
				t.Fatalf("writer %d, frame %d is mixed up", w, i)
			}
		}
	}
	wg.Wait()
	Eventually(t, "idle", s.out.idle)
}

// writeAndClear writes as the library does: the bytes are its own again afterwards.
func (t *transport) writeAndClear(b []byte) {
	(*socket)(t).out.write(b, false, 1)
	clear(b)
}

// P12: a reader that has stalled costs references, whatever the number of changes, and sees the latest of each
// user when it goes on.
func TestStalledReader(t *testing.T) {
	r := newRig(t, func(c *Config) { c.SendBuffer = 4 << 10 })
	r.narrow = true
	var users []string
	for i := range 200 {
		users = append(users, fmt.Sprint("u", i))
	}
	p := r.peer("w", users...)
	version := uint64(0)
	for range 50 {
		for i, u := range users {
			version++
			r.core.show(u, version, 127, uint32(1+(int(version)+i)%3))
		}
		Eventually(t, "settled", func() bool { return len(r.core.work) == 0 })
	}
	var s *socket
	r.edge.sockets.each(func(x *socket) { s = x })
	Eventually(t, "stalled", func() bool { return !s.out.idle() })
	s.out.mu.Lock()
	held := s.out.bytes
	s.out.mu.Unlock()
	if held > 8<<10 {
		t.Fatalf("%d bytes queued", held)
	}
	deadline, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	newest := map[string]uint64{}
	for current := 0; current < len(users); {
		_, b, err := p.ws.Read(deadline)
		if err != nil {
			t.Fatalf("%v when %d of %d users were up to date", err, current, len(users))
		}
		m := new(wire.Reply)
		if err := wire.Decode(b, m); err != nil {
			t.Fatal(err)
		}
		for _, q := range m.GetPush().GetPresence() {
			if q.Ver[1] <= newest[q.User] {
				t.Fatalf("%s: version %d after %d", q.User, q.Ver[1], newest[q.User])
			}
			if newest[q.User] = q.Ver[1]; q.Ver[1] > version-uint64(len(users)) {
				current++
			}
		}
	}
	if r.edge.Stats().Merged < 1000 {
		t.Fatalf("only %d changes merged", r.edge.Stats().Merged)
	}
}

// A full queue drops typing at a half, refuses nothing, and is given up when it is far over.
func TestQueueBounds(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := &socket{edge: &Edge{}}
	s.nc.Conn = b
	s.out.owner = s
	frame := make([]byte, 1024)
	for i := range maxQueuedBytes/1024 - 1 {
		if i == maxQueuedFrames/2-2 && s.out.busy() {
			t.Fatal("busy below a half")
		}
		if v := s.out.write(frame, true, 1); v != queued {
			t.Fatalf("frame %d: %v", i, v)
		}
	}
	if !s.out.busy() {
		t.Fatal("not busy at a half")
	}
	if v := s.out.write(frame, true, 9); v != full || s.out.fullSince() != 9 {
		t.Fatalf("full: %v since %d", v, s.out.fullSince())
	}
	if s.out.over() {
		t.Fatal("given up at the bound")
	}
	s.out.write(make([]byte, hardQueuedBytes), true, 10)
	if !s.out.over() {
		t.Fatal("not given up far over it")
	}
	// The close frame gets through behind what is on its way, however long the queue.
	s.out.finish(11, closeFrame(wire.CloseSlow))
	if s.out.write(frame, true, 12) != refused {
		t.Fatal("written after the close frame")
	}
	n, tail := 0, []byte(nil)
	a.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 4096)
	for !s.out.idle() || n == 0 {
		k, err := a.Read(buf)
		if err != nil {
			break
		}
		n += k
		tail = append(tail, buf[:k]...)
	}
	if want := closeFrame(wire.CloseSlow); string(tail[max(len(tail)-len(want), 0):]) != string(want) {
		t.Fatalf("%d bytes, no close frame at their end", n)
	}
	if n > writeBatch*1024+100 {
		t.Fatalf("%d bytes of the queue were written before the close frame", n)
	}
}
