package edge

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/actors/presence"
	"muster/clients/wire"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// P11, the edge's part: at most 40 B for a watch, all in: rows, the sockets' lists, and the entries of
// the watched users, each of whom 20 watch.
func TestBytesPerWatch(t *testing.T) {
	const sockets, each = 4000, 20
	e := &Edge{hubs: make([]*hub, 1)}
	h := &hub{edge: e, pend: map[uint32]*pending{}}
	for i := range h.shards {
		h.shards[i] = newShard()
	}
	list := make([]*socket, sockets)
	names := make([]presence.Key, sockets)
	for i := range list {
		e.sockets.reserve(sockets)
		s := &socket{edge: e, who: &local{}}
		e.sockets.number(s)
		e.sockets.publish(s)
		list[i], names[i] = s, presence.Key{App: "default", User: fmt.Sprint("user", i)}
	}
	before := heap()
	for i, s := range list {
		for j := range each {
			k := names[(i*7+j*101)%sockets]
			h.addRow(s, h.enter(userShard(k), k))
		}
	}
	per := float64(heap()-before) / (sockets * each)
	t.Logf("%.1f B per watch", per)
	if per > 40 {
		t.Errorf("%.1f B per watch, want at most 40", per)
	}
	for _, s := range list {
		for len(s.watches) > 0 {
			h.dropRow(s, s.watches[0])
		}
	}
	if n := e.count.watches.Load(); n != 0 {
		t.Fatalf("%d rows left", n)
	}
	runtime.KeepAlive(h)
}

// BytesPerIdleSocket measures heap and stacks of authenticated sockets that do nothing, the
// client's end of the conn (a bare net.Conn) included.
func BenchmarkBytesPerIdleSocket(b *testing.B) {
	r := newRig(b)
	const n = 2000
	most := 0.0
	for b.Loop() {
		before := heap()
		var conns []net.Conn
		for i := range n {
			conns = append(conns, bareConnect(b, r.srv.Listener.Addr().String(), fmt.Sprint("u", i)))
		}
		most = max(most, float64(int64(heap()-before))/n) // later rounds begin among what is not collected yet
		for _, c := range conns {
			c.Close()
		}
		Eventually(b, "closed", func() bool { return r.edge.Stats().Conns == 0 })
	}
	b.ReportMetric(most, "B/socket")
}

// bareConnect is a client of nothing but a conn.
func bareConnect(t testing.TB, addr, user string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	fmt.Fprintf(c, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "101") {
		t.Fatalf("%s, %v", buf[:n], err)
	}
	payload := fmt.Sprintf(`{"id":1,"connect":{"token":%q,"device_id":"d"}}`, user)
	c.Write(append([]byte{opText, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...))
	if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), `"done":true`) {
		t.Fatalf("%s, %v", buf[:n], err)
	}
	return c
}

// FanOut is one change to 50 watchers over loopback sockets, each change of another user. The CPU
// time includes the readers.
func BenchmarkFanOut(b *testing.B) {
	const watchers, users = 50, 1000
	r := newRig(b)
	var names []string
	for i := range users {
		names = append(names, fmt.Sprint("u", i))
	}
	for i := range watchers {
		p := r.peer(fmt.Sprint("w", i), names...)
		go io.Copy(io.Discard, p.Conn)
	}
	start, began := cpu(), time.Now()
	sent := r.edge.Stats().Deliveries
	n := 0
	for b.Loop() {
		n++
		r.core.show(names[n%users], uint64(n), 127, uint32(1+n%3))
		if n%64 == 0 {
			Eventually(b, "sent", func() bool { return r.edge.Stats().Deliveries+r.edge.Stats().Merged >= sent+int64(n*watchers) })
		}
	}
	done := float64(r.edge.Stats().Deliveries - sent)
	b.ReportMetric(done/time.Since(began).Seconds(), "deliveries/s")
	b.ReportMetric((cpu()-start).Seconds()*1e6/done, "cpu-µs/delivery")
	b.ReportMetric(done/float64(max(r.edge.Stats().Frames, 1)), "deliveries/frame")
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TLS conns have no descriptor to write to: they are read and written by goroutines, to the same effect.
func TestTLS(t *testing.T) {
	r := newRig(t)
	srv := httptest.NewTLSServer(r.edge.Handler())
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}}
	ws, _, err := websocket.Dial(t.Context(), "wss"+strings.TrimPrefix(srv.URL, "https"), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ws.Write(t.Context(), websocket.MessageText, []byte(`{"id":1,"connect":{"token":"u","device_id":"d","watch":["x"]}}`))
	if _, b, err := ws.Read(t.Context()); err != nil || !strings.Contains(string(b), `"done":true`) {
		t.Fatalf("%s, %v", b, err)
	}
	for i := range 20 {
		r.core.show("x", uint64(i+1), 127, uint32(1+i%3))
	}
	for last := uint64(0); last < 20; {
		_, b, err := ws.Read(t.Context())
		m := new(wire.Reply)
		if err != nil || wire.Decode(b, m) != nil {
			t.Fatalf("%s, %v", b, err)
		}
		last = m.GetPush().GetPresence()[0].Ver[1]
	}
	ws.Close(websocket.StatusNormalClosure, "")
	Eventually(t, "closed", func() bool { return r.edge.Stats().Conns == 0 })
}
