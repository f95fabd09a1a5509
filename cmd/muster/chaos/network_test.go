//go:build linux

package chaos

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The main thread cannot end with a goroutine, so no namespace is entered on it.
func init() { runtime.LockOSThread() }

// within runs f on a thread in a namespace; sockets that it makes stay there.
func within(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		fd, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
			fd.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in %s: %v", ns, err)
	}
}

// TestNetwork needs root and namespaces: what is cut is cut, in the direction and on the port that were named, and nothing is left over.
func TestNetwork(t *testing.T) {
	n, err := openNetwork(false)
	if err != nil {
		t.Skip(err)
	}
	defer n.close()
	if !n.namespaces {
		t.Skip(n.lacks)
	}
	a, b := place{name: "ta"}, place{name: "tb"}
	for i, p := range []*place{&a, &b} {
		if err := n.place(p, 101+i); err != nil {
			t.Fatal(err)
		}
	}
	n.tryRules(a, b)
	if !n.able[addresses] || !n.able[portsOnly] {
		t.Skip(n.lacks)
	}
	var heard net.PacketConn
	within(t, b.ns, func() error {
		var err error
		heard, err = net.ListenPacket("udp4", b.addr(b.ports.gossip))
		return err
	})
	defer heard.Close()
	var other net.PacketConn
	within(t, b.ns, func() error {
		var err error
		other, err = net.ListenPacket("udp4", b.addr(b.ports.raft))
		return err
	})
	defer other.Close()
	number := 0
	arrives := func(at net.PacketConn, to int) bool {
		number++
		text := fmt.Sprint(number)
		within(t, a.ns, func() error {
			conn, err := net.Dial("udp4", b.addr(to))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte(text))
			return err
		})
		_ = at.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 16)
		for {
			size, _, err := at.ReadFrom(buf)
			if err != nil {
				return false
			}
			if string(buf[:size]) == text {
				return true
			}
		}
	}
	for _, c := range []struct {
		name         string
		cut          *cut
		gossip, raft bool
	}{
		{"whole", nil, true, true},
		{"all", &cut{from: a, to: b}, false, false},
		{"healed", nil, true, true},
		{"the other direction", &cut{from: b, to: a}, true, true},
		{"gossip", &cut{from: a, to: b, only: "gossip"}, false, true},
		{"raft", &cut{from: a, to: b, only: "raft"}, true, false},
		{"healed again", nil, true, true},
	} {
		n.heal()
		if c.cut != nil {
			if err := n.cut(*c.cut); err != nil {
				t.Fatal(err)
			}
		}
		if g, r := arrives(heard, b.ports.gossip), arrives(other, b.ports.raft); g != c.gossip || r != c.raft {
			t.Errorf("%s: gossip arrives %v, raft %v", c.name, g, r)
		}
	}
	n.close()
	left, _ := exec.Command("ip", "netns", "list").Output()
	if strings.Contains(string(left), mark) || ip("link", "show", mark) == nil {
		t.Errorf("left over: %s", left)
	}
}

func TestADiskOfItsOwn(t *testing.T) {
	n, err := openNetwork(false)
	if err != nil {
		t.Skip(err)
	}
	defer n.close()
	if !n.able[disks] {
		t.Skip(n.lacks)
	}
	dir := t.TempDir()
	if err := n.mount(dir); err != nil {
		t.Fatal(err)
	}
	write := func() error { return os.WriteFile(dir+"/x", make([]byte, 1<<20), 0o600) }
	if err := n.shrink(dir, 100<<10); err != nil {
		t.Fatal(err)
	}
	if err := write(); err == nil {
		t.Error("a full disk took a MiB")
	}
	if err := n.shrink(dir, -1); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("a disk with room again: %v", err)
	}
}
