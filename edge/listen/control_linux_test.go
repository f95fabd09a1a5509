package listen

import (
	"net"
	"syscall"
	"testing"
)

// Accepted connections have the listening socket's buffer size.
func TestSendBufferIsInherited(t *testing.T) {
	const size = 32 << 10
	ln, err := Open(t.Context(), "127.0.0.1:0", size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got, keepAlive int
	err = raw.Control(func(fd uintptr) {
		got, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		keepAlive, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	})
	if err != nil || got != 2*size || keepAlive != 0 { // Linux doubles it for its own books
		t.Fatalf("SO_SNDBUF %d, SO_KEEPALIVE %d, %v; want %d and 0", got, keepAlive, err, 2*size)
	}
}
