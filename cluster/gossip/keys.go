package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

var errPlain = errors.New("gossip: started without keys: plain text stays plain text")

// AddKey makes a key of 16, 24 or 32 bytes good for decrypting. Rotation: AddKey on all nodes, UseKey on all, RemoveKey on all.
func (g *Gossip) AddKey(key []byte) error {
	if g.ring == nil {
		return errPlain
	}
	g.update.Lock()
	defer g.update.Unlock()
	return wrap(g.ring.AddKey(slices.Clone(key)))
}

// UseKey makes a key that was added the one that encrypts.
func (g *Gossip) UseKey(key []byte) error {
	if g.ring == nil {
		return errPlain
	}
	g.update.Lock()
	defer g.update.Unlock()
	return wrap(g.ring.UseKey(key))
}

// RemoveKey forgets a key; the one that encrypts cannot be removed.
func (g *Gossip) RemoveKey(key []byte) error {
	if g.ring == nil {
		return errPlain
	}
	g.update.Lock()
	defer g.update.Unlock()
	keys := slices.Clone(g.ring.GetKeys())
	at := slices.IndexFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
	if at < 0 {
		return errors.New("gossip: no such key")
	}
	if at > 0 {
		// memberlist removes in place, under the feet of those who decrypt, unless the key is the last.
		for _, k := range slices.Backward(append(keys[at+1:], keys[0])) {
			_ = g.ring.UseKey(k)
		}
		_ = g.ring.UseKey(keys[0])
	}
	return wrap(g.ring.RemoveKey(key))
}

// Keys are those that decrypt; the first encrypts.
func (g *Gossip) Keys() [][]byte {
	if g.ring == nil {
		return nil
	}
	return slices.Clone(g.ring.GetKeys())
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("gossip: %w", err)
}
