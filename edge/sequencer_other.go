//go:build !unix

package edge

import (
	"net"
	"syscall"
)

// rawConn refuses: on this system all writes block, in a goroutine that lives as long.
func rawConn(net.Conn) syscall.RawConn { return nil }

func writeNow(syscall.RawConn, []byte) (int, error) { return 0, nil }
