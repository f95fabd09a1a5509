package row

import (
	"encoding/binary"
	"fmt"

	"muster/actors/presence"
)

// parser takes a key apart. After a fault everything it gives is empty.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) take(n int) []byte {
	if n > len(p.rest) {
		p.bad, p.rest = true, nil
		return make([]byte, min(n, 8))
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte  { return p.take(1)[0] }
func (p *parser) num() uint64 { return binary.BigEndian.Uint64(p.take(8)) }
func (p *parser) str() string { return string(p.take(int(p.byte()))) }
func (p *parser) kind(k byte) { p.bad = p.byte() != k || p.bad }
func (p *parser) key() presence.Key {
	return presence.Key{App: p.str(), User: p.str()}
}

// end is the verdict: all was there and nothing is left.
func (p *parser) end(what string, key []byte) error {
	if p.bad || len(p.rest) > 0 {
		return fmt.Errorf("row: %q is not the key of %s", key, what)
	}
	return nil
}

// ParseOnline takes the key of a row of the online index apart.
func ParseOnline(key []byte) (presence.Key, error) {
	p := parser{rest: key}
	p.kind(kindOnline)
	k := p.key()
	return k, p.end("an online user", key)
}

// ParseSeq takes the key of a transfer, an event or a letter apart.
func ParseSeq(key []byte) (uint64, error) {
	p := parser{rest: key}
	k := p.byte()
	p.bad = p.bad || k != kindTransfer && k != kindEvent && k != kindLetter
	n := p.num()
	return n, p.end("a numbered row", key)
}

// ParseFloor takes the key of a floor apart.
func ParseFloor(key []byte) (uint32, error) {
	p := parser{rest: key}
	p.kind(kindFloor)
	n := p.num()
	p.bad = p.bad || n > 1<<32-1
	return uint32(n), p.end("a floor", key)
}

// ParseExpiry takes the key of an expiry row apart.
func ParseExpiry(key []byte) (at int64, k presence.Key, err error) {
	p := parser{rest: key}
	p.kind(kindExpiry)
	at = int64(p.num())
	k = p.key()
	return at, k, p.end("an expiry", key)
}

// ParseID takes the client id from the key of a dedupe row.
func ParseID(key []byte) (id [16]byte, err error) {
	p := parser{rest: key}
	p.kind(kindDedupe)
	p.num()
	p.key()
	p.str()
	copy(id[:], p.take(16))
	return id, p.end("a client id", key)
}
