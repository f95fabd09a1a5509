package birth

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	tickEvery  = 200 * time.Millisecond
	callTime   = 2 * time.Second
	sayEvery   = 10 * time.Second
	maxMessage = 4096
)

// Config describes this node and how it was started.
type Config struct {
	Dir     string   // the data directory; made if it is not there
	Node    uint64   // node id if the data directory holds one; else 0: the file's, or a new one
	Name    string   // node name
	Cluster string   // the cluster that the data directory holds; "" if it holds none
	Expect  int      // --expect; 0: not given
	Join    []string // --join
	Addr    string   // where others reach this node's gossip; tells whether Join names this node too
	Logger  *slog.Logger
}

// Env is what a birth needs of the world.
type Env interface {
	// Candidates are the nodes that gossip shows; this node may be among them.
	Candidates() []Node
	// Call hands req to the Serve of another node and returns its answer.
	Call(ctx context.Context, to Node, req []byte) ([]byte, error)
}

// Birth is this node's part. It must be open as long as others may ask, that is while the process runs.
type Birth struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File

	mu     sync.Mutex
	m      *machine
	failed error // the disk: nothing is decided or answered any more
}

// Open reads the file in the data directory, or makes it with a new node id. It fails if the flags contradict each other, another
// process has the directory open, or the file cannot be read or written.
func Open(cfg Config) (*Birth, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("birth: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Birth{cfg: cfg, log: cfg.Logger, lock: lock}
	s, err := b.load()
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	self := Node{ID: s.Node, Name: cfg.Name, Expect: cfg.Expect, Cluster: cfg.Cluster}
	b.m = newMachine(time.Now(), self, s, newClusterID, func(d time.Duration) time.Duration { return mathrand.N(d) })
	return b, nil
}

func (b *Birth) load() (state, error) {
	s, found, err := load(b.cfg.Dir)
	switch {
	case err != nil:
		return s, err
	case !found:
		s.Node = b.cfg.Node
		if s.Node == 0 {
			s.Node = newNodeID()
		}
	case b.cfg.Node != 0 && b.cfg.Node != s.Node:
		return s, fmt.Errorf("birth: %s belongs to node %d, the data to node %d", filepath.Join(b.cfg.Dir, fileName), s.Node, b.cfg.Node)
	case b.cfg.Expect > 0 && s.Attempt != nil && len(s.Attempt.Parties) == 1:
		// It was to be born alone, which did not come to pass, or Cluster would say so.
		s.Attempt, s.Pledge = nil, nil
		s.Number++
	default:
		return s, nil
	}
	return s, save(b.cfg.Dir, s)
}

// check refuses what could give birth to two clusters.
func (c *Config) check() error {
	planned := c.planned()
	switch {
	case c.Cluster != "":
		return nil // the flags of a first start no longer count
	case c.Expect < 0:
		return fmt.Errorf("birth: expect %d nodes", c.Expect)
	case c.Expect > 0 && len(c.Join) == 0:
		return errors.New("birth: expect needs a join list: without one a node starts a cluster of its own")
	case c.Expect == 1:
		return errors.New("birth: expect 1: a node that is to start a cluster alone has neither expect nor a join list")
	case c.Expect > 0 && 2*c.Expect <= planned:
		return fmt.Errorf("birth: expect %d of %d planned nodes: without more than half, two parts could each start a cluster", c.Expect, planned)
	}
	return nil
}

// planned is the number of nodes the join list stands for: one more than it names if none of them can be this one.
func (c *Config) planned() int {
	list := slices.Compact(slices.Sorted(slices.Values(c.Join)))
	for _, addr := range list {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		if addr == c.Addr || net.ParseIP(host) == nil {
			return len(list)
		}
	}
	return len(list) + 1
}

// Node is this node's id: made once per data directory, never 0.
func (b *Birth) Node() uint64 { return b.m.self.ID }

// Decide waits until it is decided what this node does. Each decision is on the disk before it is returned; the caller makes a
// bootstrap durable in its own data before anybody can join it. A restart before that decides the same again.
// It fails when ctx ends, when the disk fails, or when a node started alone is still bound to others.
func (b *Birth) Decide(ctx context.Context, env Env) (Decision, error) {
	if b.cfg.Expect == 0 || b.cfg.Cluster != "" {
		return b.decideAlone()
	}
	calls, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	said := ""
	saidAt := time.Time{}
	for {
		sight := env.Candidates()
		e, text, err := b.tick(sight)
		if err != nil {
			return Decision{}, err
		}
		if e.decision != nil {
			return *e.decision, nil
		}
		for _, msg := range e.sends {
			to := sight[slices.IndexFunc(sight, func(n Node) bool { return n.ID == msg.To })]
			all.Go(func() { b.call(calls, env, to, msg) })
		}
		if text != said && time.Since(saidAt) > time.Second || time.Since(saidAt) > sayEvery {
			b.log.Info("birth: waiting: "+text, "file", filepath.Join(b.cfg.Dir, fileName))
			said, saidAt = text, time.Now()
		}
		select {
		case <-ctx.Done():
			return Decision{}, fmt.Errorf("birth: %s: %w", text, ctx.Err())
		case <-ticker.C:
		}
	}
}

// decideAlone is for those that need no pledges: nobody else can give birth with this node, or it never does.
func (b *Birth) decideAlone() (Decision, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m.decided = true
	if b.cfg.Cluster != "" || len(b.cfg.Join) > 0 {
		return Decision{Cluster: b.cfg.Cluster}, nil
	}
	s := &b.m.state
	a, p := s.Attempt, s.Pledge
	if p != nil && (a == nil || len(a.Parties) > 1 && a.BornAt == 0) {
		return Decision{}, fmt.Errorf("birth: this node is pledged to cluster %s of node %s: start it with the same join list and expect again, or remove %s",
			p.Cluster, p.To.Name, filepath.Join(b.cfg.Dir, fileName))
	}
	if a == nil {
		s.Attempt = &attempt{b.m.newID(), []party{b.m.me()}, time.Now().UnixMilli()}
		s.Pledge = &pledge{s.Attempt.Cluster, b.m.me(), s.Number}
		if err := b.save(); err != nil {
			return Decision{}, err
		}
	}
	return Decision{Bootstrap: true, Cluster: s.Attempt.Cluster, BornAt: time.UnixMilli(s.Attempt.BornAt)}, nil
}

func (b *Birth) tick(sight []Node) (e effect, waiting string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return e, "", b.failed
	}
	e = b.m.tick(time.Now(), sight)
	if e.save {
		err = b.save()
	}
	return e, b.m.waiting(sight), err
}

func (b *Birth) save() error {
	b.failed = save(b.cfg.Dir, b.m.state)
	return b.failed
}

// call asks another node. That it does not answer is normal: the machine asks again.
func (b *Birth) call(ctx context.Context, env Env, to Node, msg message) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := json.Marshal(msg)
	if err != nil {
		b.log.Error("birth: a message cannot be written", "error", err)
		return
	}
	resp, err := env.Call(ctx, to, req)
	var r reply
	if err == nil {
		err = json.Unmarshal(resp, &r)
	}
	if err != nil {
		b.log.Debug("birth: no answer", "node", to.Name, "error", err)
		return
	}
	if r.From != to.ID {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m.replied(r)
}

// Serve answers the Call of another node; what it says is on the disk. It fails if req cannot be read or the disk fails. It may be
// called at any time after Open.
func (b *Birth) Serve(req []byte) ([]byte, error) {
	var msg message
	if len(req) > maxMessage {
		return nil, fmt.Errorf("birth: a message of %d bytes, at most %d", len(req), maxMessage)
	}
	if err := json.Unmarshal(req, &msg); err != nil {
		return nil, fmt.Errorf("birth: a message that cannot be read: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return nil, b.failed
	}
	r, dirty := b.m.answer(msg)
	if dirty {
		if err := b.save(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(r)
}

// Close unlocks the directory.
func (b *Birth) Close() error {
	if err := b.lock.Close(); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	return nil
}

func newNodeID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}

// newClusterID is a random UUID.
func newClusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
