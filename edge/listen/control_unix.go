//go:build unix

package listen

import "syscall"

func control(sendBuffer int) func(network, address string, c syscall.RawConn) error {
	if sendBuffer <= 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
		}); cerr != nil {
			return cerr
		}
		return err
	}
}
