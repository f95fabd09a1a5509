package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/clients/wire"
)

// raw opens a TCP connection to the clients' port.
func raw(t *testing.T, s *server) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.listen.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func upgradeHead(path string, more ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: bXVzdGVyIGJlbmNoISEhIQ==\r\nSec-WebSocket-Protocol: " + wire.Subprotocol + "\r\n" + strings.Join(more, "") + "\r\n"
}

func TestFrontAnswersRequests(t *testing.T) {
	s := boot(t)
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"upgrade":              {upgradeHead(wire.Path), 101},
		"upgrade with a query": {upgradeHead(wire.Path + "?x=1"), 101},
		"a longer path":        {upgradeHead(wire.Path + "x"), 404},
		"no upgrade":           {"GET " + wire.Path + " HTTP/1.1\r\nHost: x\r\n\r\n", 426},
		"foreign origin":       {upgradeHead(wire.Path, "Origin: https://evil.example\r\n"), 403},
		"broken head":          {"GET " + wire.Path + " HTTP/1.1\r\nnonsense\r\n\r\n", 400},
		"another method":       {"POST " + wire.Path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 426},
		"another page":         {"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		"not HTTP":             {"nonsense\r\n\r\n", 400},
		"a head without end":   {upgradeHead(wire.Path, "X: "+strings.Repeat("x", 40<<10)+"\r\n"), 431},
	} {
		t.Run(name, func(t *testing.T) {
			conn := raw(t, s)
			go func() { _, _ = io.WriteString(conn, c.request) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
		})
	}
}

// A head may come in pieces, and the first frame right behind it.
func TestFrontTakesPiecesAndEarlyFrames(t *testing.T) {
	s := boot(t)
	conn := raw(t, s)
	command := fmt.Sprintf(`{"id":1,"connect":{"token":%q,"device_id":"d"}}`, tokenFor(t, "ann"))
	frame := append([]byte{0x81, 0x80 | 126, byte(len(command) >> 8), byte(len(command)), 0, 0, 0, 0}, command...)
	head := upgradeHead(wire.Path)
	for i := range len(head) - 1 {
		if _, err := conn.Write([]byte{head[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(append([]byte{'\n'}, frame...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	answer := make([]byte, 40)
	if _, err := io.ReadFull(r, answer); err != nil || !strings.Contains(string(answer), `"connect"`) {
		t.Errorf("%q %v", answer, err)
	}
}

// Whoever says nothing, or half of something, does not keep the server from stopping.
func TestFrontStopsWithUnfinishedRequests(t *testing.T) {
	s := boot(t)
	silent, half := raw(t, s), raw(t, s)
	if _, err := io.WriteString(half, "GET /v1/ws HT"); err != nil {
		t.Fatal(err)
	}
	connect(t, s, "ann", "d", "desktop") // those before were accepted
	begin := time.Now()
	s.close()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("close took %v", took)
	}
	for _, conn := range []net.Conn{silent, half} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is still open")
		}
	}
}
