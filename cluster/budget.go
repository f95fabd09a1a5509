package cluster

import "sync/atomic"

// budget bounds the bytes in flight, of each shard and of all. It may be used by any goroutine.
type budget struct {
	perShard, inAll int64
	all             atomic.Int64
	shards          [256]atomic.Int64
	meta            atomic.Int64
}

func newBudget(perShard, inAll int64) *budget { return &budget{perShard: perShard, inAll: inAll} }

func (b *budget) of(shard uint32) *atomic.Int64 {
	if shard < uint32(len(b.shards)) {
		return &b.shards[shard]
	}
	return &b.meta
}

// take is refused when something is in flight and n more would be too much.
func (b *budget) take(shard uint32, n int64) error {
	s := b.of(shard)
	if v := s.Add(n); v > b.perShard && v > n {
		s.Add(-n)
		return ErrBusy
	}
	if v := b.all.Add(n); v > b.inAll && v > n {
		b.all.Add(-n)
		s.Add(-n)
		return ErrBusy
	}
	return nil
}

func (b *budget) give(shard uint32, n int64) {
	b.of(shard).Add(-n)
	b.all.Add(-n)
}
