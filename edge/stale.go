package edge

import "muster/clients/wire"

// lapsed tells the watchers of users whose shards nobody leads that is heard: what they show cannot be vouched for, or
// is not known any more. Their views come again when the shard has opened.
func (h *hub) lapsed(m *lapsed) {
	told := make(map[uint32][]*wire.Presence) // by socket
	for i, n := range m.shards {
		sh := h.shards[n]
		if sh.open {
			continue
		}
		for j := range sh.entries {
			e := &sh.entries[j]
			if len(e.rows) == 0 {
				continue
			}
			p := &wire.Presence{User: e.key.User, State: wire.State_STATE_UNKNOWN}
			if !m.unknown {
				p.Stale, p.AsOfAt = true, millis(m.asOf[i])
			}
			for k := range e.rows {
				r := &e.rows[k]
				r.set(rowOwed, true)
				told[r.socket()] = append(told[r.socket()], p)
			}
		}
	}
	for i, list := range told {
		s := h.edge.sockets.get(i)
		if s == nil || s.phase() != live {
			continue
		}
		for len(list) > 0 {
			n := min(len(list), lapsedChunk)
			h.edge.count.lapsed.Add(int64(n))
			h.post(s, newCast(&wire.Push{Presence: list[:n]}).frame(s.codec))
			list = list[n:]
		}
	}
}

// lapsedChunk is how many users are marked stale in one frame: with ids of 128 bytes it holds them.
const lapsedChunk = 200
