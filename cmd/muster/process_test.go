package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// realTime runs the test of a silent client with the default times (46 s).
var realTime = flag.Bool("real-time", false, "run with the default ping and grace instead of short ones")

// process is this test binary run as muster.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	mu    sync.Mutex
	lines []string
	more  chan struct{}
	ended chan struct{}

	patience time.Duration
}

func spawn(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), more: make(chan struct{}, 1), ended: make(chan struct{}), patience: patience}
	p.cmd.Env = append(os.Environ(), asMuster+"=1")
	out, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
		w.Close()
		<-read
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// line waits for a line of output that contains a text.
func (p *process) line(text string) string {
	p.t.Helper()
	over := time.After(p.patience)
	for {
		p.mu.Lock()
		lines := p.lines
		p.mu.Unlock()
		for _, line := range lines {
			if strings.Contains(line, text) {
				return line
			}
		}
		select {
		case <-p.more:
		case <-p.ended:
			p.t.Fatalf("ended without %q: %q", text, lines)
		case <-over:
			p.t.Fatalf("no line with %q: %q", text, lines)
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	return p.exitWithin(p.patience)
}

func (p *process) exitWithin(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.t.Fatalf("still running: %q", p.lines)
		return -1
	}
}

// serveChild starts a server process and returns it with its addresses.
func serveChild(t *testing.T, args ...string) (p *process, url, api string) {
	t.Helper()
	p = spawn(t, append([]string{"serve", "--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--node-name", "n1"}, args...)...)
	for field := range strings.FieldsSeq(p.line("ready listen=")) {
		if addr, ok := strings.CutPrefix(field, "listen="); ok {
			url = "ws://" + addr + "/v1/ws"
		}
		if addr, ok := strings.CutPrefix(field, "api="); ok {
			api = "http://" + addr
		}
	}
	return p, url, api
}

// A client that is stopped says nothing any more: offline within ping + pong + grace,
// and right again when it goes on.
func TestSilentClient(t *testing.T) {
	bound := 3 * time.Second
	times := []string{"--ping", "1s", "--pong", "400ms", "--grace-silence", "400ms"}
	if *realTime {
		bound, times = 46*time.Second, nil
	}
	s := boot(t, times...)
	w := connect(t, s, "walt", "w", "web", `"watch":["sid"]`)
	client := spawn(t, "watch", "walt", "--as", "sid", "--url", s.url())
	w.expect(`sid online {"bot":"online"}`)
	client.line("walt online")

	client.signal(syscall.SIGSTOP)
	stopped := time.Now()
	var v seen
	w.within(bound, "offline of the silent client", func() bool {
		if len(w.views) == 0 {
			return false
		}
		v, w.views = w.views[0], w.views[1:]
		return true
	})
	if v.String() != "sid offline timeout" {
		t.Errorf("view %q", v)
	}
	t.Logf("offline %v after SIGSTOP", time.Since(stopped).Round(time.Millisecond))

	client.signal(syscall.SIGCONT)
	w.within(25*time.Second, "return", func() bool { return len(w.views) > 0 })
	w.expect(`sid online {"bot":"online"}`)
}

func TestDrainSendsClientsAway(t *testing.T) {
	p, url, _ := serveChild(t, "--drain-window", "2s")
	d, _, err := dial(t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.send(`{"id":1,"connect":{"token":"` + tokenFor(t, "ann") + `","device_id":"d"}}`)
	d.await("session", func() bool { return d.session != "" })
	p.signal(syscall.SIGTERM)
	d.await("reconnect push", func() bool {
		for _, r := range d.replies {
			if r.Push != nil && r.Push.Reconnect != nil && r.Push.Reconnect.Code == 4011 {
				return true
			}
		}
		return false
	})
	d.drop()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	p, url, _ := serveChild(t, "--drain-window", "5m")
	d, _, err := dial(t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.send(`{"id":1,"connect":{"token":"` + tokenFor(t, "ann") + `","device_id":"d"}}`)
	d.await("session", func() bool { return d.session != "" })
	p.signal(syscall.SIGINT)
	p.line("draining")
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestPortInUse(t *testing.T) {
	s := boot(t)
	for _, flag := range []string{"--listen", "--api-listen"} {
		args := []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", flag, s.listen.Addr().String()}
		p := spawn(t, args...)
		p.line("is in use by another program")
		if code := p.exit(); code != 1 {
			t.Errorf("%s: exit code %d", flag, code)
		}
	}
}

func TestDevSaysWhatItMeans(t *testing.T) {
	p, _, api := serveChild(t)
	for _, want := range []string{"this machine only", "demo       http://127.0.0.1:", "muster token alice", "known to everybody", "everyone sees everything", "removed at the end"} {
		p.line(want)
	}
	e := spawn(t, "explain", "ann", "--api", api)
	e.line("ann")
	if code := e.exit(); code != 0 {
		t.Errorf("explain: exit code %d", code)
	}
	_, dir, _ := strings.Cut(p.line("data       "), "data       ")
	dir, _, _ = strings.Cut(dir, ",")
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the temporary directory: %v", err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d: %q", code, p.lines)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}

func TestWatchPrintsOneLinePerChange(t *testing.T) {
	s := boot(t)
	w := spawn(t, "watch", "ann", "bob", "--url", s.url())
	w.line("ann offline")
	w.line("bob offline")
	d := connect(t, s, "ann", "d", "mobile")
	w.line("devices=mobile=online")
	d.send(`{"id":2,"status":{"state":"busy","text":"in a call"}}`)
	w.line(`text="in a call"`)
	w.signal(syscall.SIGINT)
	if code := w.exit(); code != 0 {
		t.Errorf("exit code %d: %q", code, w.lines)
	}
}

// The benchmark runs against this binary's own server, and its lines can be read.
func TestBenchRuns(t *testing.T) {
	cores := map[string]string{"cluster": "4"} // one core joins
	for _, scenario := range []string{"watch", "churn", "send", "groups", "offline", "across", "cluster"} {
		p := spawn(t, "bench", scenario, "--conns", "100", "--duration", "1s", "--json", "--cores", cmp.Or(cores[scenario], "0"))
		if code := p.exitWithin(4 * time.Minute); code != 0 {
			t.Fatalf("%s: exit code %d: %.3000q", scenario, code, p.lines)
		}
		for _, line := range p.lines {
			var r struct {
				Scenario, Error string
				Values          map[string]float64
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Scenario != scenario || r.Error != "" || len(r.Values) == 0 {
				t.Errorf("line %q: %v", line, err)
			}
		}
	}
}
