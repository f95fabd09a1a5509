//go:build linux

package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// starter starts processes from one thread that lives as long as the campaign: the kernel
// kills them when that thread ends.
type starter struct{ work chan func() }

func newStarter() *starter {
	s := &starter{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // ^C is for the campaign alone
	done := make(chan error)
	s.work <- func() { done <- cmd.Start() }
	return <-done
}

func (s *starter) close() { close(s.work) }

// node is one server of the campaign, over all its processes.
type node struct {
	place
	args     []string
	starter  *starter
	crashed  func(*node, string) // a process ended that nobody ended
	logFile  string
	mayEnd   bool // a fault allows it to end by itself
	mu       sync.Mutex
	cmd      *exec.Cmd
	ended    chan struct{}
	ready    chan struct{} // closed by the ready line
	expected bool          // somebody ends it
	clusters []string      // ids that its starts told
	tail     []string
}

// muster is a command of this program, in a network namespace; "": this one.
func muster(ns string, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	line := append([]string{exe}, args...)
	if ns != "" {
		line = append([]string{"ip", "netns", "exec", ns}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "MUSTER_") })
	return cmd, nil
}

// start runs the server; it returns before it is ready.
func (n *node) start() error {
	cmd, err := muster(n.ns, n.args...)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(n.logFile), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = n.starter.start(cmd)
	}
	if err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	ended, ready := make(chan struct{}), make(chan struct{})
	n.mu.Lock()
	n.cmd, n.ended, n.ready, n.expected, n.tail = cmd, ended, ready, false, nil
	n.mu.Unlock()
	go func() {
		n.follow(stderr, log, ready)
		err := cmd.Wait()
		fmt.Fprintf(log, "--- %v: the process ended: %v\n", time.Now().Format(time.RFC3339Nano), err)
		log.Close()
		n.mu.Lock()
		surprise := !n.expected && !n.mayEnd
		last := strings.Join(n.tail, " | ")
		n.mu.Unlock()
		close(ended)
		if surprise {
			n.crashed(n, fmt.Sprintf("%v: %s", err, last))
		}
	}()
	return nil
}

var clusterOf = regexp.MustCompile(`"data directory open".* cluster=([0-9A-Za-z-]+)`)

// requestLine marks what a server logs about each request to its API: too much to keep.
const requestLine = " level=INFO msg=api "

func (n *node) follow(r io.Reader, log io.Writer, ready chan struct{}) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for told := false; lines.Scan(); {
		line := lines.Text()
		if !strings.Contains(line, requestLine) {
			fmt.Fprintln(log, line)
		}
		if m := clusterOf.FindStringSubmatch(line); m != nil {
			n.belongs(m[1])
		}
		n.mu.Lock()
		if n.tail = append(n.tail, line); len(n.tail) > 5 {
			n.tail = n.tail[1:]
		}
		n.mu.Unlock()
		if !told && strings.HasPrefix(line, "ready ") {
			told = true
			close(ready)
		}
	}
	_, _ = io.Copy(log, r)
}

// belongs notes the id of a cluster that the node says it belongs to.
func (n *node) belongs(cluster string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cluster != "" && !slices.Contains(n.clusters, cluster) {
		n.clusters = append(n.clusters, cluster)
	}
}

// belonged lists the ids of all clusters that the node has said it belongs to.
func (n *node) belonged() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.clusters)
}

func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clusters = nil
}

// running reports whether there is a process.
func (n *node) running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

func (n *node) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// awaitReady waits for the ready line of the present process.
func (n *node) awaitReady(ctx context.Context) error {
	n.mu.Lock()
	ready, ended := n.ready, n.ended
	n.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ended:
		n.mu.Lock()
		defer n.mu.Unlock()
		return fmt.Errorf("%s ended: %s", n.name, strings.Join(n.tail, " | "))
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		return fmt.Errorf("%s is not ready: %w: %s", n.name, ctx.Err(), strings.Join(n.tail, " | "))
	}
}

func (n *node) signal(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(sig)
	}
}

// kill ends the process like a power cut of it alone.
func (n *node) kill() {
	if !n.running() {
		return
	}
	n.mu.Lock()
	n.expected = true
	ended := n.ended
	n.mu.Unlock()
	n.signal(syscall.SIGKILL)
	<-ended
}

// stop asks the process to end and waits; one that does not within the limit is killed.
func (n *node) stop(limit time.Duration) error {
	if !n.running() {
		return nil
	}
	n.mu.Lock()
	n.expected = true
	ended, cmd := n.ended, n.cmd
	n.mu.Unlock()
	n.signal(syscall.SIGTERM)
	select {
	case <-ended:
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("%s ended with code %d after SIGTERM", n.name, code)
		}
		return nil
	case <-time.After(limit):
		n.kill()
		return fmt.Errorf("%s did not stop in %v after SIGTERM", n.name, limit)
	}
}

// allow says whether the process may end by itself.
func (n *node) allow(end bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mayEnd = end
}

// double starts a second process on the same directory; nil if it was refused.
func (n *node) double(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	p := n.place
	args := append(slices.Clone(n.args), "--listen", p.addr(0), "--api-listen", p.addr(0))
	if p.role != single {
		args = append(args, "--gossip-port", fmt.Sprint(p.ports.gossip+100), "--actor-port", fmt.Sprint(p.ports.actor+100), "--raft-port", fmt.Sprint(p.ports.raft+100))
	}
	cmd, err := muster(n.ns, args...)
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := n.starter.start(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) && strings.Contains(said.String(), n.data) {
			return nil
		}
		return fmt.Errorf("a second process on %s's directory ended with %v: %s", n.name, err, said.String())
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-ended
		return fmt.Errorf("a second process on %s's directory was not refused: %s", n.name, said.String())
	}
}
