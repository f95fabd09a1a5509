package persistence

import (
	"context"
	"encoding/binary"
	"hash/crc64"
)

var polynomial = crc64.MakeTable(crc64.ECMA)

// Digest is a hash (CRC-64) of a group's rows at State.Applied, and their number. Replicas that applied the same entries have the
// same one. What is each replica's own, such as its log, is not part of it. It reads all rows, one after the other.
func (p *Snapshot) Digest(ctx context.Context) (hash uint64, rows int64, err error) {
	h := crc64.New(polynomial)
	from, _ := partSpan(p.Group, partRow)
	for ok := p.it.SeekGE(from); ok; ok = p.it.Next() {
		if rows%1024 == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		value, err := p.it.ValueAndErr()
		if err != nil {
			return 0, 0, p.s.read(err)
		}
		var sizes [16]byte
		inner := p.it.Key()[len(from):]
		binary.BigEndian.PutUint64(sizes[:8], uint64(len(inner)))
		binary.BigEndian.PutUint64(sizes[8:], uint64(len(value)))
		_, _ = h.Write(sizes[:])
		_, _ = h.Write(inner)
		_, _ = h.Write(value)
		rows++
	}
	return h.Sum64(), rows, p.s.read(p.it.Error())
}
