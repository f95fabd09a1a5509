package edge

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
	"muster/edge/netpoll"
)

// The buffers that the WebSocket library gets: most commands fit in the one, and any control frame in the
// other, so that it is written in one piece.
const (
	readBuffer  = 256
	writeBuffer = 144
)

// Handler accepts WebSockets at wire.Path. It answers 503 with Retry-After when the edge is
// full, draining or asked for too much, 403 for a foreign origin and 400 for an unknown
// subprotocol; bodies are wire.Error.
func (e *Edge) Handler() http.Handler { return http.HandlerFunc(e.accept) }

func (e *Edge) accept(w http.ResponseWriter, r *http.Request) {
	if !e.originAllowed(r) {
		e.reject(w, http.StatusForbidden, wire.CodePermissionDenied.Error("this origin is not allowed", 0))
		return
	}
	if asked := subprotocols(r); len(asked) > 0 && !contains(asked, wire.Subprotocol) {
		e.reject(w, http.StatusBadRequest, wire.CodeNotAvailable.Error("none of the subprotocols asked for is spoken here; "+wire.Subprotocol+" is", 0))
		return
	}
	if e.draining.Load() {
		e.reject(w, http.StatusServiceUnavailable, wire.CodeNotReady.Error("this node is going down", time.Second))
		return
	}
	if wait, ok := e.admit(true); !ok {
		e.reject(w, http.StatusServiceUnavailable, wire.CodeBusy.Error("too many new connections", wait))
		return
	}
	if !e.sockets.reserve(e.cfg.MaxConns) {
		e.reject(w, http.StatusServiceUnavailable, wire.CodeBusy.Error("this node has as many connections as it may", 5*time.Second))
		return
	}
	s := &socket{edge: e, codec: jsonCodec{}, born: e.clock()}
	s.refs.Store(1)
	h := &hijacked{ResponseWriter: w, s: s}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		Subprotocols:       []string{wire.Subprotocol},
		InsecureSkipVerify: true, // checked above, to answer in our own words
	})
	if err != nil {
		e.sockets.count.Add(-1)
		if s.nc.Conn != nil {
			s.nc.Close()
		}
		return
	}
	ws.SetReadLimit(-1) // read minds the bound, to close with its own code
	s.ws = ws
	e.count.accepted.Add(1)
	e.sockets.number(s)
	s.heard.Store(s.born)
	s.nextPing = s.born
	s.nextPing += s.interval()
	// What the client sent along with the handshake no poller will tell of.
	s.polled = !h.early && e.poller != nil
	e.sockets.publish(s)
	if e.stopped.Load() {
		s.shut()
		return
	}
	s.begin()
}

// begin starts to listen to the socket. Nothing of the HTTP server is held after it.
func (s *socket) begin() {
	e := s.edge
	e.wheel.arm(s, s.born+e.cfg.ConnectTimeout.Milliseconds())
	if s.polled {
		if ok, err := e.poller.Add(&s.nc, s); ok && err == nil {
			return
		}
	}
	go s.readAll()
}

// hijacked hands the library small buffers and a conn whose writes go through the socket's sequencer.
type hijacked struct {
	http.ResponseWriter
	s     *socket
	early bool // the client sent more than its request
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hj, ok := h.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("edge: this HTTP server does not let go of connections (HTTP/2?)")
	}
	conn, brw, err := hj.Hijack()
	if err != nil {
		return nil, nil, err
	}
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetWriteBuffer(h.s.edge.cfg.SendBuffer)
	}
	s := h.s
	s.nc = netpoll.Conn{Conn: conn}
	s.out.owner, s.out.raw = s, rawConn(conn)
	// The library takes over what the reader holds and resets it to read from the conn.
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	h.early = len(early) > 0
	s.br = bufio.NewReaderSize(bytes.NewReader(bytes.Clone(early)), max(readBuffer, len(early)))
	s.br.Peek(len(early))
	return (*transport)(s), bufio.NewReadWriter(s.br, bufio.NewWriterSize((*transport)(s), writeBuffer)), nil
}

// transport is the socket as the WebSocket library sees it.
type transport socket

func (t *transport) Read(b []byte) (int, error) { return t.nc.Read(b) }

// Write takes whole control frames; what cannot go at once is copied.
func (t *transport) Write(b []byte) (int, error) {
	s := (*socket)(t)
	s.deliver(b, false)
	return len(b), nil
}

func (t *transport) Close() error                       { return (*socket)(t).disconnect() }
func (t *transport) LocalAddr() net.Addr                { return t.nc.LocalAddr() }
func (t *transport) RemoteAddr() net.Addr               { return t.nc.RemoteAddr() }
func (t *transport) SetDeadline(at time.Time) error     { return t.nc.SetDeadline(at) }
func (t *transport) SetReadDeadline(at time.Time) error { return t.nc.SetReadDeadline(at) }
func (t *transport) SetWriteDeadline(time.Time) error   { return nil }

// reject answers a handshake with an error body.
func (e *Edge) reject(w http.ResponseWriter, status int, why *wire.Error) {
	e.count.rejected.Add(1)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if why.RetryAfterMs > 0 {
		h.Set("Retry-After", strconv.FormatUint((why.RetryAfterMs+999)/1000, 10))
	}
	w.WriteHeader(status)
	w.Write(append(why.AppendJSON(nil), '\n'))
}

// originAllowed lets in requests without an origin (no browser), from the host itself, and from those configured:
// host patterns as of path.Match, with a scheme if they contain "://".
func (e *Edge) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || e.cfg.AnyOrigin {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, p := range e.cfg.Origins {
		target := u.Host
		if strings.Contains(p, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, err := path.Match(strings.ToLower(p), strings.ToLower(target)); ok && err == nil {
			return true
		}
	}
	return false
}

func subprotocols(r *http.Request) (list []string) {
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for _, p := range strings.Split(line, ",") {
			list = append(list, strings.TrimSpace(p))
		}
	}
	return list
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
