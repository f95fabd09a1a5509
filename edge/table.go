package edge

import (
	"sync"
	"sync/atomic"

	"muster/actors/presence"
)

// Sockets are named by small numbers in rows and wheels: 4 bytes instead of 8, and
// nothing for the garbage collector to follow.
const (
	chunkBits  = 10
	chunkSize  = 1 << chunkBits
	maxChunks  = 1 << 12
	maxSockets = chunkSize * maxChunks
)

// table finds a socket by its number without a lock.
type table struct {
	mu     sync.Mutex
	chunks [maxChunks]atomic.Pointer[[chunkSize]atomic.Pointer[socket]]
	free   []uint32
	next   uint32
	serial uint64
	count  atomic.Int64
}

func (t *table) get(i uint32) *socket {
	c := t.chunks[i>>chunkBits].Load()
	if c == nil {
		return nil
	}
	return c[i&(chunkSize-1)].Load()
}

// byConn finds a conn by the id that the core knows it by.
func (t *table) byConn(conn uint64) *socket {
	if s := t.get(uint32(conn) % maxSockets); s != nil && s.conn == conn {
		return s
	}
	return nil
}

// reserve makes room for a socket; false if there are as many as there may be.
func (t *table) reserve(most int) bool {
	if t.count.Add(1) > int64(min(most, maxSockets-1)) {
		t.count.Add(-1)
		return false
	}
	return true
}

// number gives s, for which there is room, its number and its conn id, which is never used again.
func (t *table) number(s *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = t.next
		t.next++
	}
	c := &t.chunks[i>>chunkBits]
	if c.Load() == nil {
		c.Store(new([chunkSize]atomic.Pointer[socket]))
	}
	t.serial++
	s.idx, s.conn = i, t.serial<<22|uint64(i)
}

// publish lets s be found.
func (t *table) publish(s *socket) {
	t.chunks[s.idx>>chunkBits].Load()[s.idx&(chunkSize-1)].Store(s)
}

func (t *table) remove(s *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chunks[s.idx>>chunkBits].Load()[s.idx&(chunkSize-1)].Store(nil)
	t.free = append(t.free, s.idx)
	t.count.Add(-1)
}

// each calls f for every socket.
func (t *table) each(f func(*socket)) {
	for i := range t.chunks {
		c := t.chunks[i].Load()
		if c == nil {
			return
		}
		for j := range c {
			if s := c[j].Load(); s != nil {
				f(s)
			}
		}
	}
}

// local is a user with sockets on this edge. mu guards sockets and their watch lists.
type local struct {
	key    presence.Key
	shard  uint32
	limit  sharedGCRA
	hidden atomic.Uint32 // reciprocity: fields that the user hides from everyone

	mu      sync.Mutex
	sockets []*socket

	// Of the hub that owns the shard.
	invisible bool
	shown     shown
}

// shown is what everyone may see of a user; it travels to the rooms the user is in.
type shown struct {
	state         uint32
	term, version uint64
}

// locals finds the users with sockets here, per shard.
type locals [shards]struct {
	mu sync.Mutex
	m  map[presence.Key]*local
}

func (l *locals) get(shard uint32, key presence.Key) *local {
	p := &l[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.m[key]
}

// join adds a socket to its user.
func (l *locals) join(key presence.Key, s *socket) *local {
	shard := userShard(key)
	p := &l[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.m[key]
	if u == nil {
		if p.m == nil {
			p.m = make(map[presence.Key]*local)
		}
		u = &local{key: key, shard: shard}
		p.m[key] = u
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sockets = append(u.sockets, s)
	return u
}

// part removes a socket, and its user with the last one.
func (l *locals) part(u *local, s *socket) {
	p := &l[u.shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, other := range u.sockets {
		if other == s {
			u.sockets = append(u.sockets[:i:i], u.sockets[i+1:]...)
			break
		}
	}
	if len(u.sockets) == 0 && p.m[u.key] == u {
		delete(p.m, u.key)
	}
}

// all lists the users of a shard.
func (l *locals) all(shard uint32) []*local {
	p := &l[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*local, 0, len(p.m))
	for _, u := range p.m {
		list = append(list, u)
	}
	return list
}

// conns lists the user's sockets.
func (u *local) conns() []*socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sockets[:len(u.sockets):len(u.sockets)]
}
