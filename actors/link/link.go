package link

import "github.com/cespare/xxhash/v2"

// Shards is the number of shards of a cluster; it is fixed at birth.
const Shards = 64

// Kinds of actors that a shard holds.
const (
	KindUser = "user"
	KindRoom = "room"
)

// ShardOf places an actor. The hash runs over the length-prefixed components, the
// application first, so that no two identities share an encoding.
func ShardOf(app, kind, id string) uint32 {
	var buf [3 + 3*128]byte
	b := buf[:0]
	for _, s := range [...]string{app, kind, id} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return uint32(xxhash.Sum64(b) % Shards)
}
