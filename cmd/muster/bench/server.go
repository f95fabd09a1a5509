//go:build linux

package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// target is the server that is measured: a child, or a running one.
type target struct {
	addr   netip.AddrPort
	path   string
	api    string
	apiKey string
	pid    int // 0: on another machine or unknown; figures come from /metrics
	child  *exec.Cmd
	log    *tail
	ready  chan string      // the line that says so
	more   []*target        // the other processes of its cluster
	edges  []netip.AddrPort // where clients go by turns; empty: addr
}

// usage is what a server has used at one moment.
type usage struct {
	at         time.Time
	cpu        time.Duration
	rss        int64
	slab       int64
	goroutines int
	files      int
	heap       int64
}

// childKey signs tokens and opens the API of a server in --dev.
const childKey = "muster-dev"

// startChild runs this binary with args on the first core and waits until it is ready.
func startChild(p placement, args ...string) (*target, error) {
	t, err := launch(p, args...)
	if err != nil {
		return nil, err
	}
	return t, t.await(15 * time.Second)
}

// launch runs this binary with args on the first core.
func launch(p placement, args ...string) (*target, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = withoutSettings(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.start(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", exe, err)
	}
	t := &target{child: cmd, pid: cmd.Process.Pid, path: "/v1/ws", apiKey: childKey, log: &tail{}, ready: make(chan string, 1)}
	go t.log.follow(stderr, t.ready)
	return t, nil
}

// await waits until a child is ready; one that is not is ended.
func (t *target) await(limit time.Duration) error {
	select {
	case line, ok := <-t.ready:
		if !ok {
			_ = t.child.Wait()
			return fmt.Errorf("the server did not start: %s", t.log.last())
		}
		return t.readyLine(line)
	case <-time.After(limit):
		_ = t.child.Process.Kill()
		_ = t.child.Wait()
		return fmt.Errorf("the server was not ready in %v: %s", limit, t.log.last())
	}
}

func withoutSettings(environ []string) []string {
	var kept []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, "MUSTER_") && !strings.HasPrefix(kv, "GOMAXPROCS=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

func (t *target) readyLine(line string) error {
	for _, field := range strings.Fields(line) {
		if addr, ok := strings.CutPrefix(field, "listen="); ok {
			var err error
			if t.addr, err = netip.ParseAddrPort(addr); err != nil {
				return fmt.Errorf("ready line %q: %w", line, err)
			}
		}
		if addr, ok := strings.CutPrefix(field, "api="); ok {
			t.api = "http://" + addr
		}
	}
	if !t.addr.IsValid() {
		return fmt.Errorf("ready line %q has no address", line)
	}
	return nil
}

// running is a server that somebody else started.
func running(o Options) (*target, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "ws" || u.Host == "" {
		return nil, fmt.Errorf("--url: %q is not a ws:// URL (TLS is not measured)", o.URL)
	}
	addr, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return nil, fmt.Errorf("--url: write the address in numbers, such as ws://127.0.0.1:8000/v1/ws")
	}
	path := u.Path
	if path == "" || path == "/" {
		path = "/v1/ws"
	}
	t := &target{addr: addr, path: path, api: o.API, apiKey: o.APIKey}
	if o.API == "" {
		return nil, errors.New("--api is needed with --url: the server's use is read from its /metrics")
	}
	_, err = t.usage()
	return t, err
}

// stop ends a child, with the others of its cluster, and waits for it.
func (t *target) stop() error {
	if t == nil || t.child == nil {
		return nil
	}
	for _, o := range append([]*target{t}, t.more...) {
		_ = o.child.Process.Signal(syscall.SIGTERM)
		_ = o.child.Process.Signal(syscall.SIGINT) // the second signal: at once
	}
	var problems []error
	for _, o := range append([]*target{t}, t.more...) {
		problems = append(problems, o.ended(10*time.Second))
	}
	return errors.Join(problems...)
}

// ended waits for the end of a child.
func (t *target) ended(limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- t.child.Wait() }()
	select {
	case <-done:
		return nil
	case <-time.After(limit):
		_ = t.child.Process.Kill()
		<-done
		return fmt.Errorf("the server did not stop in %v", limit)
	}
}

// entry is where the i-th client goes.
func (t *target) entry(i int) netip.AddrPort {
	if len(t.edges) == 0 {
		return t.addr
	}
	return t.edges[i%len(t.edges)]
}

// usage reads the kernel's figures of a child, or /metrics of another server.
func (t *target) usage() (usage, error) {
	u := usage{at: time.Now(), goroutines: -1, files: -1}
	if t.api != "" {
		m, err := t.metrics()
		if err != nil {
			return u, err
		}
		u.cpu = time.Duration(m["process_cpu_seconds_total"] * float64(time.Second))
		u.rss = int64(m["process_resident_memory_bytes"])
		u.files = int(m["process_open_fds"])
		u.goroutines = int(m["go_goroutines"])
		u.heap = int64(m["go_memstats_heap_alloc_bytes"])
	}
	if t.pid == 0 {
		return u, nil
	}
	var err error
	if u.rss, err = residentBytes(t.pid); err != nil {
		return u, err
	}
	u.slab = socketBytes()
	u.files = openFiles(t.pid)
	u.cpu, err = cpuTime(t.pid)
	u.at = time.Now()
	return u, err
}

// cpu is only the CPU time, that of all processes of a cluster; it costs the server nothing.
func (t *target) cpu() (sum time.Duration) {
	if t.pid != 0 {
		for _, o := range append([]*target{t}, t.more...) {
			d, _ := cpuTime(o.pid)
			sum += d
		}
		return sum
	}
	u, _ := t.usage()
	return u.cpu
}

func (t *target) get(path string) (io.ReadCloser, error) {
	return t.ask(http.MethodGet, path, "")
}

func (t *target) ask(method, path, body string) (io.ReadCloser, error) {
	req, err := http.NewRequest(method, t.api+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+t.apiKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s%s: %s", method, t.api, path, resp.Status)
	}
	return resp.Body, nil
}

// addContacts gives a user contacts.
func (t *target) addContacts(user int, contacts []int) error {
	for len(contacts) > 0 {
		part := contacts[:min(len(contacts), 1000)]
		contacts = contacts[len(part):]
		names := make([]string, len(part))
		for i, u := range part {
			names[i] = strconv.Quote(userName(u))
		}
		body, err := t.ask(http.MethodPost, "/v1/users/"+userName(user)+"/contacts", `{"add":[`+strings.Join(names, ",")+`]}`)
		if err != nil {
			return err
		}
		body.Close()
	}
	return nil
}

// metrics reads /metrics; labelled series are summed under their name.
func (t *target) metrics() (map[string]float64, error) {
	body, err := t.get("/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	sums := map[string]float64{}
	for lines := bufio.NewScanner(body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(line[:i], "{")
		sums[name] += value
		sums[line[:i]] = value
	}
	return sums, nil
}

// collect makes the server collect its garbage, so that memory can be compared.
func (t *target) collect() {
	for range 2 {
		if body, err := t.get("/debug/pprof/heap?gc=1"); err == nil {
			_, _ = io.Copy(io.Discard, body)
			body.Close()
		}
	}
}

// tail keeps the last lines that a child wrote.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (l *tail) follow(r io.Reader, ready chan<- string) {
	told := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		if !told && strings.HasPrefix(line, "ready ") {
			told = true
			ready <- line
		}
		l.mu.Lock()
		l.lines = append(l.lines, line)
		if len(l.lines) > 20 {
			l.lines = l.lines[1:]
		}
		l.mu.Unlock()
	}
	if !told {
		close(ready)
	}
}

func (l *tail) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, " | ")
}
