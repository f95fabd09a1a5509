package cluster

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Mesh connects engines of one process, with faults. Messages pass as bytes, through one queue and
// goroutine for each direction; snapshots stream beside them.
type Mesh struct {
	mu      sync.Mutex
	ports   map[uint64]*port
	cut     map[[2]uint64]bool // from, to
	lost    float64
	delay   time.Duration
	breaks  func(m Message, written int64) bool
	running sync.WaitGroup
}

// maxQueue is how many batches wait in one direction; more are lost.
const maxQueue = 1024

var errUnreachable = errors.New("cluster: the node cannot be reached")

// NewMesh connects nobody yet.
func NewMesh() *Mesh {
	return &Mesh{ports: map[uint64]*port{}, cut: map[[2]uint64]bool{}}
}

// Cut loses everything from one node to another, until Heal. The streams stay up: a black hole.
func (m *Mesh) Cut(from, to uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[[2]uint64{from, to}] = true
}

// Isolate cuts a node off from all others, both ways.
func (m *Mesh) Isolate(node uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.ports {
		m.cut[[2]uint64{node, other}], m.cut[[2]uint64{other, node}] = true, true
	}
}

// Heal ends Cut, Isolate, Drop, Delay and Break.
func (m *Mesh) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.cut)
	m.lost, m.delay, m.breaks = 0, 0, nil
}

// Drop loses a part of all batches, 0 to 1.
func (m *Mesh) Drop(part float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = part
}

// Delay makes every batch take so long.
func (m *Mesh) Delay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// Break lets f end snapshot streams: it is asked before each piece, with the bytes that passed.
func (m *Mesh) Break(f func(m Message, written int64) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breaks = f
}

// Crash makes a node's queues vanish; the others see their streams reset.
func (m *Mesh) Crash(node uint64) {
	m.mu.Lock()
	p := m.ports[node]
	m.mu.Unlock()
	if p != nil {
		p.Stop()
	}
}

// Close ends all and waits for the goroutines.
func (m *Mesh) Close() {
	m.mu.Lock()
	ports := m.ports
	m.ports = map[uint64]*port{}
	m.mu.Unlock()
	for _, p := range ports {
		p.close()
	}
	m.running.Wait()
}

// Port is a node's transport. A node that was stopped comes back with a new one.
func (m *Mesh) Port(node uint64) Transport {
	return &port{mesh: m, node: node, links: map[uint64]*meshLink{}, stop: make(chan struct{})}
}

// port is one node in one life.
type port struct {
	mesh *Mesh
	node uint64
	r    Receiver
	stop chan struct{}
	once sync.Once

	mu    sync.Mutex
	links map[uint64]*meshLink
}

// meshLink is one direction.
type meshLink struct {
	to    uint64
	mu    sync.Mutex
	queue []parcel
	wake  chan struct{}
}

type parcel struct {
	at time.Time
	ms []Message
}

func (p *port) Start(r Receiver) {
	p.r = r
	m := p.mesh
	m.mu.Lock()
	old := m.ports[p.node]
	m.ports[p.node] = p
	others := m.others(p.node)
	m.mu.Unlock()
	if old != nil {
		old.close()
	}
	for _, o := range others {
		o.r.Connected(p.node)
	}
}

func (m *Mesh) others(node uint64) (ps []*port) {
	for id, p := range m.ports {
		if id != node {
			ps = append(ps, p)
		}
	}
	return ps
}

// Stop is the end of the process: its sockets close.
func (p *port) Stop() {
	p.close()
	m := p.mesh
	m.mu.Lock()
	if m.ports[p.node] != p {
		m.mu.Unlock()
		return
	}
	delete(m.ports, p.node)
	others := m.others(p.node)
	m.mu.Unlock()
	for _, o := range others {
		o.r.Reset(p.node)
	}
}

func (p *port) close() { p.once.Do(func() { close(p.stop) }) }

func (p *port) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// way says who receives at the other end and how long it takes; nil: lost.
func (m *Mesh) way(from *port, to uint64) (*port, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[[2]uint64{from.node, to}] || m.lost > 0 && rand.Float64() < m.lost {
		return nil, m.delay
	}
	return m.ports[to], m.delay
}

func (p *port) Send(to uint64, ms []Message) {
	if p.stopped() {
		return
	}
	p.mu.Lock()
	l := p.links[to]
	if l == nil {
		l = &meshLink{to: to, wake: make(chan struct{}, 1)}
		p.links[to] = l
		p.mesh.running.Go(func() { p.carry(l) })
	}
	p.mu.Unlock()
	p.mesh.mu.Lock()
	at := time.Now().Add(p.mesh.delay)
	p.mesh.mu.Unlock()
	l.mu.Lock()
	if len(l.queue) < maxQueue {
		l.queue = append(l.queue, parcel{at, ms})
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// carry delivers what one direction holds.
func (p *port) carry(l *meshLink) {
	for {
		select {
		case <-l.wake:
		case <-p.stop:
			return
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, q := range queue {
			if !p.wait(time.Until(q.at)) {
				return
			}
			if o, _ := p.mesh.way(p, l.to); o != nil && !o.stopped() {
				o.r.Receive(p.node, copied(q.ms))
			}
		}
	}
}

func (p *port) wait(d time.Duration) bool {
	if d <= 0 {
		return !p.stopped()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.stop:
		return false
	}
}

// copied is what arrives: encoded and decoded.
func copied(ms []Message) []Message {
	out := make([]Message, 0, len(ms))
	for _, m := range ms {
		b, err := proto.Marshal(m.Raft)
		if err != nil {
			panic(err)
		}
		m.Raft = &raftpb.Message{}
		if err := proto.Unmarshal(b, m.Raft); err != nil {
			panic(err)
		}
		out = append(out, m)
	}
	return out
}

func (p *port) SendSnapshot(msg Message, rows io.WriterTo, done func(error)) {
	p.mesh.running.Go(func() {
		o, delay := p.mesh.way(p, msg.To)
		if o == nil || !p.wait(delay) {
			done(errUnreachable)
			return
		}
		r, w := io.Pipe()
		over := make(chan struct{})
		go func() {
			_, err := rows.WriteTo(&faultyWriter{w: w, from: p, to: o, m: msg})
			_ = w.CloseWithError(err)
			close(over)
		}()
		err := o.r.ReceiveSnapshot(p.node, copied([]Message{msg})[0], r)
		_ = r.CloseWithError(errUnreachable)
		<-over
		done(err)
	})
}

// faultyWriter breaks when either end does.
type faultyWriter struct {
	w        io.Writer
	from, to *port
	m        Message
	written  int64
}

func (f *faultyWriter) Write(b []byte) (int, error) {
	mesh := f.from.mesh
	mesh.mu.Lock()
	breaks := mesh.breaks
	mesh.mu.Unlock()
	o, _ := mesh.way(f.from, f.to.node)
	if o != f.to || f.from.stopped() || f.to.stopped() || breaks != nil && breaks(f.m, f.written) {
		return 0, errUnreachable
	}
	n, err := f.w.Write(b)
	f.written += int64(n)
	return n, err
}
