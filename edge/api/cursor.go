package api

import (
	"encoding/base64"
	"encoding/binary"

	"muster/actors/link"
)

// place is how far a reader has got in the events of one shard. era is the shard's generation and 1; 0: it has read
// nothing yet.
type place struct{ era, seq uint64 }

// places is a cursor over all shards; to clients it is an opaque word.
type places [link.Shards]place

// placesMark is the first byte of a cursor, and its version.
const placesMark = 2

func (p *places) String() string {
	b := []byte{placesMark}
	for _, at := range p {
		b = binary.AppendUvarint(binary.AppendUvarint(b, at.era), at.seq)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxCursor is the most characters of a cursor over all shards.
const maxCursor = (1+2*link.Shards*binary.MaxVarintLen64)*4/3 + 1

func parsePlaces(cursor string) (p places, err error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) == 0 || b[0] != placesMark {
		return p, badCursor()
	}
	b = b[1:]
	for i := range p {
		for _, to := range []*uint64{&p[i].era, &p[i].seq} {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return places{}, badCursor()
			}
			*to, b = v, b[n:]
		}
	}
	if len(b) > 0 {
		return places{}, badCursor()
	}
	return p, nil
}

func badCursor() error { return badRequest("cursor: not one of this call") }
