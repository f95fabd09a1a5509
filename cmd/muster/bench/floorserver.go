//go:build linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Kinds of floor: the least that a server must do, and nothing else.
const (
	FloorCoder = "coder" // coder/websocket over net/http, as it comes
	FloorRaw   = "raw"   // TCP, the upgrade answered without looking, writes by hand
)

// floorServer relays each message of connection i to i+1 … i+fan. It answers connect,
// pings every connection once in 20 s and checks nothing.
type floorServer struct {
	mu    sync.Mutex
	conns []floorConn
	fan   int
}

type floorConn interface{ writeText(payload []byte) error }

// FloorServer serves until the process ends. It prints the ready line of a server.
func FloorServer(kind string, conns, fan int) error {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &floorServer{conns: make([]floorConn, conns), fan: fan}
	fmt.Fprintf(os.Stderr, "ready listen=%s node=floor\n", ln.Addr())
	go s.ping(20 * time.Second)
	if kind == FloorCoder {
		return http.Serve(ln, http.HandlerFunc(s.serveCoder))
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go s.serveRaw(c)
	}
}

func (s *floorServer) set(i int, c floorConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= 0 && i < len(s.conns) {
		s.conns[i] = c
	}
}

func (s *floorServer) at(i int) floorConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[i%len(s.conns)]
}

// ping goes round all connections once in the time given, twenty times a second.
func (s *floorServer) ping(round time.Duration) {
	const steps = 400
	for step := 0; ; step = (step + 1) % steps {
		<-time.After(round / steps)
		for i := step * len(s.conns) / steps; i < (step+1)*len(s.conns)/steps; i++ {
			if c := s.at(i); c != nil {
				_ = c.writeText([]byte("{}"))
			}
		}
	}
}

func (s *floorServer) message(i int, c floorConn, payload []byte) {
	switch {
	case len(payload) == 2: // the answer to a ping
	case bytes.Contains(payload, connectKey):
		_ = c.writeText([]byte(`{"id":1,"connect":{"session_id":"f","done":true}}`))
	default:
		for k := 1; k <= s.fan; k++ {
			if to := s.at(i + k); to != nil {
				_ = to.writeText(payload)
			}
		}
	}
}

type coderConn struct{ *websocket.Conn }

func (c coderConn) writeText(payload []byte) error {
	return c.Write(context.Background(), websocket.MessageText, payload)
}

func (s *floorServer) serveCoder(w http.ResponseWriter, r *http.Request) {
	i, _ := strconv.Atoi(r.URL.Query().Get("i"))
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"muster.v1.json"}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	c := coderConn{ws}
	s.set(i, c)
	for {
		_, payload, err := ws.Read(r.Context())
		if err != nil {
			s.set(i, nil)
			return
		}
		s.message(i, c, payload)
	}
}

type rawConn struct{ net.Conn }

func (c rawConn) writeText(payload []byte) error {
	frame := make([]byte, 0, 256)
	if n := len(payload); n < 126 {
		frame = append(frame, 0x81, byte(n))
	} else {
		frame = append(frame, 0x81, 126, byte(n>>8), byte(n))
	}
	_, err := c.Write(append(frame, payload...))
	return err
}

func (s *floorServer) serveRaw(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return
	}
	i := -1
	if at := bytes.Index(buf[:n], []byte("?i=")); at >= 0 {
		i = int(number(buf[at+3 : n]))
	}
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")); err != nil {
		return
	}
	c := rawConn{conn}
	s.set(i, c)
	defer s.set(i, nil)
	for held := 0; ; {
		n, err := conn.Read(buf[held:])
		if err != nil {
			return
		}
		held += n
		for {
			payload, used := clientFrame(buf[:held])
			if used == 0 {
				break
			}
			s.message(i, c, payload)
			held = copy(buf, buf[used:held])
		}
		if held == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// clientFrame splits off a frame whose masking key is zero.
func clientFrame(b []byte) (payload []byte, used int) {
	if len(b) < 6 {
		return nil, 0
	}
	head, size := 6, int(b[1]&0x7F)
	if size == 126 {
		if len(b) < 8 {
			return nil, 0
		}
		head, size = 8, int(b[2])<<8|int(b[3])
	}
	if len(b) < head+size {
		return nil, 0
	}
	return b[head : head+size], head + size
}
