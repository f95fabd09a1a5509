package listen

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener is a listener without a network: it works in virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipe() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// closedAfter reports how long the server keeps a connection on which send writes.
func closedAfter(t *testing.T, l *pipeListener, send func(net.Conn)) time.Duration {
	t.Helper()
	c := l.dial()
	start := time.Now()
	sent := make(chan struct{})
	go func() { send(c); close(sent) }()
	_, _ = io.Copy(io.Discard, c)
	took := time.Since(start)
	_ = c.Close()
	<-sent
	return took
}

func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipe()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		go func() { served <- Serve(ctx, NewServer(read, quiet()), l, nil, time.Second) }()
		drip := func(head, drop string) func(net.Conn) {
			return func(c net.Conn) {
				if _, err := io.WriteString(c, head); err != nil {
					return
				}
				for {
					time.Sleep(time.Second)
					if _, err := io.WriteString(c, drop); err != nil {
						return
					}
				}
			}
		}
		for name, c := range map[string]struct {
			send func(net.Conn)
			most time.Duration
		}{
			"says nothing":        {func(net.Conn) {}, headerTimeout + time.Second},
			"a header per second": {drip("GET / HTTP/1.1\r\nHost: x\r\n", "X-A: b\r\n"), headerTimeout + 2*time.Second},
			"a body per second":   {drip("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", "x"), readTimeout + 2*time.Second},
			"idle afterwards":     {func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") }, idleTimeout + time.Second},
			"huge header":         {func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 64<<10)) }, time.Second},
		} {
			if took := closedAfter(t, l, c.send); took > c.most {
				t.Errorf("%s: held for %s, want at most %s", name, took, c.most)
			}
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// A request that is being answered ends; one that never would is cut off.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipe()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wait := 2 * time.Second
			if r.URL.Path == "/never" {
				wait = 20 * time.Second
			}
			time.Sleep(wait)
			_, _ = io.WriteString(w, "done")
		})
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, NewServer(h, quiet()), l, nil, 5*time.Second) }()
		ask := func(path string) <-chan string {
			got := make(chan string, 1)
			c := l.dial()
			go func() {
				_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
				answer, _ := io.ReadAll(c)
				_ = c.Close()
				got <- string(answer)
			}()
			return got
		}
		soon, never := ask("/soon"), ask("/never")
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(start); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("ended after %s, want 5 s", took)
		}
		if got := <-soon; !strings.Contains(got, "done") {
			t.Errorf("the request in progress got %q", got)
		}
		if got := <-never; strings.Contains(got, "done") {
			t.Errorf("the endless request got %q", got)
		}
		time.Sleep(20 * time.Second) // its handler
	})
}

func TestOpen(t *testing.T) {
	ln, err := Open(t.Context(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if _, ok := ln.(*net.TCPListener); !ok {
		t.Errorf("%T: the edge needs plain TCP connections", ln)
	}
	if _, err := Open(t.Context(), ln.Addr().String(), 0); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the address is taken twice: %v", err)
	}
	err = Serve(t.Context(), NewServer(nil, nil), brokenListener{ln}, nil, time.Second)
	if err == nil {
		t.Error("a listener that fails is not reported")
	}
}

type brokenListener struct{ net.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
