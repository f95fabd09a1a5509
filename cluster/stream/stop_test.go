package stream

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// idle is a listener to which nobody connects. Its user has noticed that it is closed when the first Close returns.
type idle chan struct{}

func (l idle) Accept() (net.Conn, error) { <-l; return nil, net.ErrClosed }
func (l idle) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (l idle) Close() error {
	select {
	case <-l:
	default:
		close(l)
		time.Sleep(time.Second) // virtual
	}
	return nil
}

// Stopping in good order says nothing.
func TestStopIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		n, err := Listen(Config{Self: Peer{Node: 1, Name: "n1"}, Listener: make(idle), Classes: 1, Logger: slog.New(slog.NewTextHandler(&logs, nil))})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n.Stop()
		if text := logs.String(); strings.Contains(text, "ERROR") {
			t.Errorf("a stop in good order says: %s", text)
		}
	})
}
