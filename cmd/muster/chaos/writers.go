//go:build linux

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// The durable sends and the probes are made by a process of their own. Thousands of clients that connect again at once keep the
// campaign's process busy for seconds, and what is late there must not count as a server's pause.

// writersSpec is the first line that the process reads.
type writersSpec struct {
	Start  time.Time // of the campaign
	Seed   uint64
	Sends  int
	Fronts []front
}

type front struct {
	Name, IP    string
	Listen, API int
}

// written is a line that it writes.
type written struct {
	Sends   []sentLine  `json:",omitempty"`
	Probes  []probeLine `json:",omitempty"`
	Wrong   []string    `json:",omitempty"`
	Resting bool        `json:",omitempty"` // there are no sends any more, only probes
}

type sentLine struct {
	ID, User, Body string
	Call, Back     time.Duration
	Acked          bool
	Offset         uint64
}

type probeLine struct {
	Shard      uint32
	Call, Back time.Duration
	OK         bool
}

const (
	restWord = "rest" // a line that it reads: no more sends
	tellEach = 50 * time.Millisecond
)

// Writers is the process: it reads what to do from in until its end, and tells out what it did.
func Writers(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	var spec writersSpec
	if !lines.Scan() {
		return errors.Join(errors.New("no line that says what to write"), lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &spec); err != nil {
		return fmt.Errorf("what to write: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &record{start: time.Now().Add(-time.Since(spec.Start))}
	l := newLoad(ctx, r, spec.places(), Options{Seed: spec.Seed, Sends: spec.Sends})
	defer l.http.CloseIdleConnections()
	t := &teller{record: r, out: json.NewEncoder(out)}
	defer t.every(tellEach)()

	probing, stopProbes := context.WithCancel(ctx)
	defer stopProbes()
	l.probe(probing)
	l.fine(probing)
	work, stop := context.WithCancel(ctx)
	defer stop()
	sending := l.send(work, max(1, spec.Sends-probes))
	for lines.Scan() {
		if lines.Text() != restWord {
			return fmt.Errorf("%q is no word of a campaign", lines.Text())
		}
		stop()
		sending.Wait()
		t.tell(true)
	}
	stop()
	stopProbes()
	sending.Wait()
	l.running.Wait()
	return lines.Err()
}

func (s writersSpec) places() (list []place) {
	for _, f := range s.Fronts {
		list = append(list, place{name: f.Name, ip: f.IP, ports: ports{listen: f.Listen, api: f.API}})
	}
	return list
}

// teller hands on what the record gathers.
type teller struct {
	*record
	mu  sync.Mutex
	out *json.Encoder
}

func (t *teller) tell(resting bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := written{Resting: resting}
	t.note(func() {
		for _, s := range t.sends {
			w.Sends = append(w.Sends, sentLine{s.id, s.user, s.body, s.call, s.back, s.acked, s.offset})
		}
		for _, p := range t.probes {
			w.Probes = append(w.Probes, probeLine{p.shard, p.call, p.back, p.ok})
		}
		w.Wrong = t.crashes
		t.sends, t.probes, t.crashes = nil, nil, nil
	})
	_ = t.out.Encode(w) // a campaign that does not listen has ended, and then so does in
}

// every tells now and then, and a last time when end is called.
func (t *teller) every(d time.Duration) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for pause(ctx, d) {
			t.tell(false)
		}
	})
	return func() {
		cancel()
		all.Wait()
		t.tell(false)
	}
}

// take records what the process tells.
func (r *record) take(w written) {
	r.note(func() {
		for _, s := range w.Sends {
			r.sends = append(r.sends, send{s.ID, s.User, s.Body, s.Call, s.Back, s.Acked, s.Offset})
		}
		for _, p := range w.Probes {
			r.probes = append(r.probes, probe{p.Shard, p.Call, p.Back, p.OK})
		}
		r.crashes = append(r.crashes, w.Wrong...)
	})
}

// writers is the process as the campaign sees it.
type writers struct {
	in      io.WriteCloser
	resting chan struct{} // closed by its word
	ended   chan struct{}
	err     error // of its end
}

// write starts the process. It ends by end, or when ctx does.
func (c *campaign) write(ctx context.Context, fronts []place) (*writers, error) {
	spec := writersSpec{Start: c.start, Seed: c.opt.Seed, Sends: c.opt.Sends}
	for _, p := range fronts {
		spec.Fronts = append(spec.Fronts, front{p.name, p.ip, p.ports.listen, p.ports.api})
	}
	cmd, err := muster("", "chaos-writers")
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.starter.start(cmd); err != nil {
		return nil, fmt.Errorf("start the writers: %w", err)
	}
	w := &writers{in: in, resting: make(chan struct{}), ended: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	go func() {
		defer close(w.ended)
		defer stop()
		w.err = errors.Join(w.follow(c.record, out), wait(cmd))
	}()
	line, err := json.Marshal(spec)
	if err == nil {
		_, err = in.Write(append(line, '\n'))
	}
	return w, err
}

func wait(cmd *exec.Cmd) error {
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the writers ended: %w", err)
	}
	return nil
}

// follow takes what the process tells until it ends.
func (w *writers) follow(r *record, out io.Reader) error {
	rested := sync.OnceFunc(func() { close(w.resting) })
	for lines := json.NewDecoder(out); ; {
		var got written
		switch err := lines.Decode(&got); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("what the writers tell: %w", err)
		}
		r.take(got)
		if got.Resting {
			rested()
		}
	}
}

// rest ends the sends; what is under way is sent to its end. The probes go on.
func (w *writers) rest() {
	_, _ = io.WriteString(w.in, restWord+"\n") // a process that does not read has ended
	select {
	case <-w.resting:
	case <-w.ended:
	}
}

// end ends the probes as well, and the process.
func (w *writers) end() error {
	_ = w.in.Close()
	<-w.ended
	return w.err
}
