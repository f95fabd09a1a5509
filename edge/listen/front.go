package listen

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Front accepts the clients' connections. What asks for the WebSocket path it parses
// with net/http's parser but serves by itself: net/http's server would leave 8 KB of
// buffers and a grown stack behind for every connection that is taken over. All else
// goes to an ordinary HTTP server through rest. With TLS there is no front: beside its
// handshake the difference is nothing.
type Front struct {
	ln     net.Listener
	start  string       // of a request for the WebSocket path
	socket http.Handler // of that path
	rest   *passed
	log    *slog.Logger

	work    chan net.Conn // a worker takes it that is done with its last one
	idle    chan struct{} // holds a token for each worker that waits for more work
	done    chan struct{}
	workers sync.WaitGroup

	mu       sync.Mutex
	greeting map[net.Conn]struct{} // closed when the front is
	closed   bool
	failure  error // why no more can be accepted
}

const idleWorkers = 16

// NewFront makes a front of a plain TCP listener. socket answers requests for path; what else
// comes is accepted from Rest.
func NewFront(ln net.Listener, path string, socket http.Handler, log *slog.Logger) *Front {
	f := &Front{
		ln: ln, start: "GET " + path, socket: socket, log: log,
		work: make(chan net.Conn), idle: make(chan struct{}, idleWorkers), done: make(chan struct{}),
		greeting: map[net.Conn]struct{}{}, failure: net.ErrClosed,
	}
	f.rest = &passed{front: f, conns: make(chan net.Conn)}
	return f
}

// Rest is the listener for an ordinary HTTP server. Closing it ends the front.
func (f *Front) Rest() net.Listener { return f.rest }

// Serve accepts until the front is closed, and waits for its workers.
func (f *Front) Serve() {
	defer f.workers.Wait()
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			f.close(err)
			return
		}
		select {
		case f.work <- conn:
		default:
			f.workers.Go(func() { f.worker(conn) })
		}
	}
}

// close ends the front; the first reason stays.
func (f *Front) close(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed, f.failure = true, why
	close(f.done)
	_ = f.ln.Close()
	for conn := range f.greeting {
		_ = conn.Close()
	}
}

// begin remembers a connection until its first request is read; false after close.
func (f *Front) begin(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.greeting[conn] = struct{}{}
	return !f.closed
}

func (f *Front) end(conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.greeting, conn)
}

// worker greets connections one after another, so that its stack grows once.
func (f *Front) worker(conn net.Conn) {
	for {
		f.greet(conn)
		select {
		case f.idle <- struct{}{}:
		default:
			return
		}
		select {
		case conn = <-f.work:
			<-f.idle
		case <-f.done:
			return
		}
	}
}

// head is what is needed to read one request; it is used again.
type head struct {
	buf    [maxHeader]byte
	source bytes.Reader
	reader *bufio.Reader
}

var heads = sync.Pool{New: func() any {
	return &head{reader: bufio.NewReaderSize(nil, 1<<10)}
}}

// greet reads the head of the first request of a connection and decides who serves it.
func (f *Front) greet(conn net.Conn) {
	h := heads.Get().(*head)
	defer heads.Put(h)
	n, end, mine := f.read(conn, h)
	switch {
	case n == 0:
		conn.Close()
		return
	case !mine:
		f.rest.pass(&begun{Conn: conn, read: bytes.Clone(h.buf[:n])})
		return
	}
	h.source.Reset(h.buf[:end])
	h.reader.Reset(&h.source)
	r, err := http.ReadRequest(h.reader)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		conn.Close()
		return
	}
	f.upgrade(conn, r, h.buf[end:n])
}

// read reads until it is known whose the request is: mine with the end of its head, or
// the HTTP server's. n is what was read, 0 if the connection said nothing useful.
func (f *Front) read(conn net.Conn, h *head) (n, end int, mine bool) {
	defer f.end(conn)
	if !f.begin(conn) {
		return 0, 0, false
	}
	_ = conn.SetReadDeadline(time.Now().Add(headerTimeout))
	for {
		got, err := conn.Read(h.buf[n:])
		n += got
		if n > 0 && f.other(h.buf[:n]) || n == len(h.buf) {
			_ = conn.SetReadDeadline(time.Time{})
			return n, 0, false
		}
		if i := bytes.Index(h.buf[:n], []byte("\r\n\r\n")); i >= 0 {
			return n, i + 4, true
		}
		if err != nil {
			return 0, 0, false
		}
	}
}

// other reports whether a request cannot be one for the WebSocket path.
func (f *Front) other(b []byte) bool {
	n := min(len(b), len(f.start))
	if string(b[:n]) != f.start[:n] {
		return true
	}
	return len(b) > n && b[n] != ' ' && b[n] != '?'
}

// upgrade lets the socket handler answer; early is what came after the request.
func (f *Front) upgrade(conn net.Conn, r *http.Request, early []byte) {
	r.RemoteAddr = conn.RemoteAddr().String()
	w := &answer{conn: conn, header: http.Header{}, early: early}
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("panic in a handshake", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			conn.Close()
		} else if !w.taken {
			conn.Close()
		}
	}()
	f.socket.ServeHTTP(w, r)
}

// answer is the ResponseWriter of a handshake. Unless the connection is taken over, it
// is closed after the answer.
type answer struct {
	conn   net.Conn
	header http.Header
	early  []byte
	wrote  bool
	taken  bool
}

func (w *answer) Header() http.Header { return w.header }

// oneLine keeps a value from ending its header.
var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func (w *answer) WriteHeader(code int) {
	if w.wrote {
		return
	}
	w.wrote = true
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	if code != http.StatusSwitchingProtocols {
		w.header.Set("Connection", "close")
	}
	for name, values := range w.header {
		for _, value := range values {
			b.WriteString(name)
			b.WriteString(": ")
			b.WriteString(oneLine.Replace(value))
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\r\n")
	_ = w.conn.SetWriteDeadline(time.Now().Add(headerTimeout))
	_, _ = w.conn.Write(b.Bytes())
}

func (w *answer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.conn.Write(b)
}

// Hijack implements http.Hijacker. As with net/http, no deadline is left.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.taken = true
	_ = w.conn.SetDeadline(time.Time{})
	reader := bufio.NewReaderSize(bytes.NewReader(bytes.Clone(w.early)), max(16, len(w.early)))
	_, _ = reader.Peek(len(w.early))
	return w.conn, bufio.NewReadWriter(reader, bufio.NewWriterSize(w.conn, 16)), nil
}

// passed is the listener of the HTTP server that gets what is not for the front.
type passed struct {
	front *Front
	conns chan net.Conn
}

func (p *passed) pass(conn net.Conn) {
	select {
	case p.conns <- conn:
	case <-p.front.done:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (p *passed) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.front.done:
		p.front.mu.Lock()
		defer p.front.mu.Unlock()
		return nil, p.front.failure
	}
}

// Close implements net.Listener.
func (p *passed) Close() error {
	p.front.close(net.ErrClosed)
	return nil
}

// Addr implements net.Listener.
func (p *passed) Addr() net.Addr { return p.front.ln.Addr() }

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	read []byte
}

func (b *begun) Read(into []byte) (int, error) {
	if len(b.read) == 0 {
		return b.Conn.Read(into)
	}
	n := copy(into, b.read)
	b.read = b.read[n:]
	return n, nil
}
