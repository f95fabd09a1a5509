package actors

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// disk is a Store that commits when it is told to, refuses what it is told to refuse, and
// loses terms with what they had in flight. It lives through restarts of the node.
type disk struct {
	mu     sync.Mutex
	node   *Node
	shards [link.Shards]diskShard
	held   bool // nothing is committed
	delay  time.Duration
	fail   error         // what Propose returns
	lost   uint64        // how often history was lost
	asked  []func(error) // of Confirm, while silent
	silent bool
}

type diskShard struct {
	rows   actorstest.Rows
	term   uint64
	flying []proposed
	index  uint64
	at     int64
	seq    uint64 // of the term
}

type proposed struct {
	seq    uint64
	writes []Write
}

func (d *disk) Propose(shard uint32, term, seq uint64, at int64, writes []Write) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.shards[shard]
	switch {
	case s.term != term:
		return ErrNotLeader
	case d.fail != nil:
		return d.fail
	case seq != s.seq+1 || at < s.at || len(writes) == 0:
		panic("a proposal out of order, before its time or of nothing")
	}
	s.seq, s.at = seq, at
	s.flying = append(s.flying, proposed{seq, writes})
	switch {
	case d.held:
	case d.delay > 0:
		time.AfterFunc(d.delay, func() { d.commit(shard, term, seq) })
	default:
		d.commitLocked(shard, seq)
	}
	return nil
}

// commit commits what a shard has in flight up to seq.
func (d *disk) commit(shard uint32, term, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shards[shard].term == term && !d.held {
		d.commitLocked(shard, seq)
	}
}

func (d *disk) commitLocked(shard uint32, seq uint64) {
	s := &d.shards[shard]
	last := uint64(0)
	for len(s.flying) > 0 && s.flying[0].seq <= seq {
		s.rows.Write(s.flying[0].writes...)
		last = s.flying[0].seq
		s.flying = s.flying[1:]
		s.index++
	}
	if last > 0 {
		d.node.Committed(shard, s.term, last, s.index)
	}
}

// hold keeps everything in flight until it is let go.
func (d *disk) hold(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held = on; on {
		return
	}
	for shard := range d.shards {
		d.commitLocked(uint32(shard), 1<<62)
	}
}

func (d *disk) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// open opens a shard under the next term. What the last one had in flight is lost.
func (d *disk) open(shard uint32) {
	d.mu.Lock()
	s := &d.shards[shard]
	s.term, s.flying, s.seq = s.term+1, nil, 0
	term, at := s.term, s.at
	d.mu.Unlock()
	d.node.Opened(shard, term, 1+d.lost, at)
}

// lose ends the term of a shard here; with reopen it begins the next one.
func (d *disk) lose(shard uint32, reopen bool) {
	d.mu.Lock()
	term := d.shards[shard].term
	d.shards[shard].term++
	d.shards[shard].flying = nil
	d.mu.Unlock()
	d.node.Closed(shard, term)
	if reopen {
		d.open(shard)
	}
}

func (d *disk) openAll() {
	for shard := range d.shards {
		d.open(uint32(shard))
	}
}

func (d *disk) Get(shard uint32, key []byte) ([]byte, bool, error) {
	return d.shards[shard].rows.Get(key)
}

func (d *disk) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return d.shards[shard].rows.Scan(from, to, visit)
}

func (d *disk) Confirm(_ uint32, done func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent {
		d.asked = append(d.asked, done)
		return
	}
	done(nil)
}

// hush keeps the answers of Confirm back; what was kept back before is returned.
func (d *disk) hush(on bool) (asked []func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked, d.asked, d.silent = d.asked, nil, on
	return asked
}

// put changes a row behind the shard's back.
func (d *disk) put(shard uint32, w Write) { d.shards[shard].rows.Write(w) }

// jump moves the latest time committed.
func (d *disk) jump(shard uint32, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shards[shard].at = at.UnixMilli()
}

// count is the number of rows in a range, over all shards.
func (d *disk) count(r row.Range) (n int) {
	for shard := range uint32(link.Shards) {
		_ = d.Scan(shard, r.From, r.To, func(_, _ []byte) bool { n++; return true })
	}
	return n
}

// onDisk runs f in virtual time with a node on a disk whose shards are open.
func onDisk(t *testing.T, edges int, cfg Config, f func(*cluster, *disk)) {
	t.Helper()
	d := &disk{}
	cfg.Store = d
	inBubble(t, edges, cfg, func(c *cluster) {
		d.node = c.node
		d.openAll()
		synctest.Wait()
		f(c, d)
	})
}

// crash makes the next step of a user panic, if it is resident.
func (c *cluster) crash(user string) {
	c.node.post(shardOf(user), &request{done: func(error) {}, do: func(g *gateway, _ time.Time) {
		if a := g.users[presence.Key{App: app, User: user}]; a != nil {
			*a.user = presence.User{}
		}
	}})
}
