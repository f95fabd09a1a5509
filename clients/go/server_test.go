package muster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"muster/clients/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is one end of a conversation that a test writes out. It speaks WebSocket over
// pipes, so that tests run in virtual time.
type server struct {
	t       testing.TB
	pipes   chan net.Conn
	accept  chan *peer
	mu      sync.Mutex
	refuse  []int // HTTP statuses for the next handshakes
	down    bool  // refuse to dial
	stall   bool  // read one frame of the next sockets and no more
	refused int
}

// peer is the server's end of one socket.
type peer struct {
	t  testing.TB
	ws *websocket.Conn
	in chan []byte // closed at the end of the socket

	freed chan struct{} // closed to end a peer that has stalled
}

func bubble(t *testing.T, f func(t *testing.T, srv *server)) {
	synctest.Test(t, func(t *testing.T) {
		srv := &server{t: t, pipes: make(chan net.Conn), accept: make(chan *peer, 16)}
		hs := &http.Server{Handler: srv, ErrorLog: nil}
		l := &listener{srv: srv, closed: make(chan struct{})}
		served := make(chan struct{})
		go func() { defer close(served); _ = hs.Serve(l) }()
		f(t, srv)
		_ = hs.Close()
		<-served
		for {
			select {
			case p := <-srv.accept:
				_ = p.ws.CloseNow()
				continue
			default:
			}
			break
		}
	})
}

func (srv *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	srv.mu.Lock()
	if len(srv.refuse) > 0 {
		status := srv.refuse[0]
		srv.refuse = srv.refuse[1:]
		srv.refused++
		srv.mu.Unlock()
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(status)
		return
	}
	srv.mu.Unlock()
	if r.URL.Path != wire.Path {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{wire.Subprotocol}})
	if err != nil {
		return
	}
	ws.SetReadLimit(wire.MaxFrame)
	p := &peer{srv.t, ws, make(chan []byte, 1024), make(chan struct{})}
	srv.accept <- p
	defer close(p.in)
	for {
		_, frame, err := ws.Read(context.Background())
		if err != nil {
			return
		}
		p.in <- frame
		srv.mu.Lock()
		stall := srv.stall
		srv.mu.Unlock()
		if stall {
			<-p.freed
			return
		}
	}
}

func (srv *server) options() Options {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			srv.mu.Lock()
			down := srv.down
			srv.mu.Unlock()
			if down {
				return nil, errors.New("connection refused")
			}
			here, there := net.Pipe()
			select {
			case srv.pipes <- there:
				return here, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
	return Options{Token: "t0", DeviceID: "d1", HTTPClient: &http.Client{Transport: transport}}
}

func (srv *server) setDown(down bool) {
	srv.mu.Lock()
	srv.down = down
	srv.mu.Unlock()
}

// dial starts a client and answers its connect with the fields given.
func (srv *server) dial(o Options, answer string) (*Client, *peer, *wire.Connect) {
	srv.t.Helper()
	var c *Client
	var err error
	dialed := make(chan struct{})
	go func() {
		defer close(dialed)
		c, err = Dial(srv.t.Context(), "ws://muster.test", o)
	}()
	p, connect := srv.next(answer)
	<-dialed
	if err != nil {
		srv.t.Fatal(err)
	}
	return c, p, connect
}

// next takes the client's next socket and answers its connect.
func (srv *server) next(answer string) (*peer, *wire.Connect) {
	srv.t.Helper()
	p := srv.socket()
	cmd := p.read()
	if cmd.GetConnect() == nil {
		srv.t.Fatalf("got %v, want connect", cmd)
	}
	p.send(`{"id":%d,"connect":{"session_id":"s1","user":"me","node":"n1","ping_ms":20000%s}}`, cmd.GetId(), answer)
	return p, cmd.GetConnect()
}

func (srv *server) socket() *peer {
	srv.t.Helper()
	select {
	case p := <-srv.accept:
		return p
	case <-time.After(5 * time.Minute):
		srv.t.Fatal("the client opens no socket")
		return nil
	}
}

// quiet fails if the client opens a socket within d.
func (srv *server) quiet(d time.Duration) {
	srv.t.Helper()
	select {
	case <-srv.accept:
		srv.t.Fatal("the client opened another socket")
	case <-time.After(d):
	}
}

func (p *peer) read() *wire.Command {
	p.t.Helper()
	select {
	case frame, ok := <-p.in:
		cmd := new(wire.Command)
		if err := wire.Decode(frame, cmd); err != nil || !ok {
			p.t.Fatalf("the client's frame: %q: %v", frame, err)
		}
		return cmd
	case <-time.After(5 * time.Minute):
		p.t.Fatal("the client sends nothing")
		return nil
	}
}

// end waits for the client's end of the socket.
func (p *peer) end() {
	p.t.Helper()
	timeout := time.After(5 * time.Minute)
	for {
		select {
		case _, ok := <-p.in:
			if !ok {
				_ = p.ws.CloseNow()
				return
			}
		case <-timeout:
			p.t.Fatal("the client keeps the socket open")
		}
	}
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

func (p *peer) push(format string, args ...any) {
	p.t.Helper()
	p.send(`{"push":{`+format+`}}`, args...)
	synctest.Wait()
}

// close closes the socket with a code; 0 breaks the connection.
func (p *peer) close(code wire.CloseCode) {
	if code == 0 {
		_ = p.ws.CloseNow()
		return
	}
	_ = p.ws.Close(websocket.StatusCode(code), code.Reason())
}

type listener struct {
	srv    *server
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.srv.pipes:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }
