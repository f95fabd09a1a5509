package members

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"muster/actors/presence"
	"muster/cluster/gossip"
	"muster/cluster/meta"
	"muster/cluster/stream"
)

// changed connects with those that gossip has found, and tells the core which edges live.
func (n *Node) changed() {
	if !n.serving.Load() {
		return
	}
	n.looking.Lock() // the newest word is the last one said
	defer n.looking.Unlock()
	members := newest(n.gossip.Members())
	n.actor.SetPeers(n.keep(n.actorPeers(members)))
	if n.raft != nil {
		n.raft.SetPeers(n.raftPeers(members))
	}
	n.tellCore(members)
	n.free(members)
}

// free ends the links with processes that are gone. One that comes back after all gets new ones.
func (n *Node) free(members []gossip.Member) {
	n.mu.Lock()
	var gone []*far
	for _, node := range lost(slices.Collect(maps.Keys(n.fars)), members, n.actor.Connected) {
		gone = append(gone, n.fars[node])
		delete(n.fars, node)
	}
	n.mu.Unlock()
	for _, f := range gone {
		f.Close()
	}
}

// lost are the nodes that neither gossip nor a stream knows.
func lost(nodes []uint64, members []gossip.Member, connected func(node uint64) bool) []uint64 {
	return slices.DeleteFunc(nodes, func(node uint64) bool {
		return connected(node) || slices.ContainsFunc(members, func(m gossip.Member) bool { return m.Node == node })
	})
}

// keep adds those who are connected although gossip does not see them any more: gossip is a hint, and a stream that is up
// knows better. down looks again when it breaks.
func (n *Node) keep(peers []stream.Peer) []stream.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	peers = still(peers, n.peers, n.actor.Connected)
	n.peers = peers
	return peers
}

func still(now, before []stream.Peer, connected func(node uint64) bool) []stream.Peer {
	for _, p := range before {
		listed := slices.ContainsFunc(now, func(q stream.Peer) bool { return q.Node == p.Node })
		if !listed && connected(p.Node) {
			now = append(now, p)
		}
	}
	return now
}

// newest leaves one process of each node.
func newest(members []gossip.Member) (list []gossip.Member) {
	at := map[uint64]int{}
	for _, m := range members {
		i, ok := at[m.Node]
		switch {
		case !ok:
			at[m.Node] = len(list)
			list = append(list, m)
		case m.Incarnation > list[i].Incarnation:
			list[i] = m
		}
	}
	return list
}

func (n *Node) actorPeers(members []gossip.Member) (peers []stream.Peer) {
	for _, m := range members {
		alone := m.Role&gossip.Core == 0 && !n.cfg.Core // two edges have nothing to say
		if m.Node == n.self.Node || alone || !n.ours(m) {
			continue
		}
		p := stream.Peer{Node: m.Node, Name: m.Name, Addr: m.Actor, Incarnation: m.Incarnation}
		switch {
		case !n.cfg.Core:
			p.Dial = stream.Here
		case m.Role&gossip.Core == 0:
			p.Dial = stream.There
		}
		peers = append(peers, p)
	}
	return peers
}

// ours tells whether a member is in this node's cluster.
func (n *Node) ours(m gossip.Member) bool {
	own := n.gossip.Self().Cluster
	return own != "" && m.Cluster == own
}

// raftPeers are the cores that gossip sees, and those that only the meta group knows.
func (n *Node) raftPeers(members []gossip.Member) (peers []stream.Peer) {
	seen := map[uint64]bool{n.self.Node: true}
	for _, m := range members {
		if m.Role&gossip.Core != 0 && n.ours(m) && !seen[m.Node] {
			seen[m.Node] = true
			peers = append(peers, stream.Peer{Node: m.Node, Name: m.Name, Addr: m.Raft, Incarnation: m.Incarnation})
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.table {
		if !seen[m.ID] && m.State != meta.Lost && m.State != meta.Left {
			peers = append(peers, stream.Peer{Node: m.ID, Name: m.Name, Addr: m.Raft, Incarnation: m.Incarnation})
		}
	}
	return peers
}

// cores are the nodes that may know who leads the meta group.
func (n *Node) cores() (ids []uint64) {
	for _, m := range n.gossip.Members() {
		if m.Role&gossip.Core != 0 && n.ours(m) {
			ids = append(ids, m.Node)
		}
	}
	return ids
}

// told takes the meta group's list of cores.
func (n *Node) told(c meta.Cluster, nodes []meta.Node) {
	if n.cfg.Written != nil {
		n.cfg.Written(c.Writes())
	}
	n.mu.Lock()
	n.table = nodes
	n.mu.Unlock()
	n.changed()
}

// tellCore passes on which edges live.
func (n *Node) tellCore(members []gossip.Member) {
	n.mu.Lock()
	core, was := n.core, n.alive
	n.mu.Unlock()
	if core == nil {
		return
	}
	now := map[presence.Edge]bool{}
	for _, m := range members {
		e := presence.Edge{Name: m.Name, Incarnation: m.Incarnation}
		now[e] = true
		if !was[e] {
			core.EdgeAlive(e, true)
		}
	}
	n.mu.Lock()
	n.alive = now
	n.mu.Unlock()
}

// dead passes on that a process is gone, as gossip believes. Should it be a member after all, the next word of
// gossip says so again.
func (n *Node) dead(m gossip.Member, left bool) {
	n.log.Info("node gone", "node", m.Name, "left", left)
	n.looking.Lock()
	defer n.looking.Unlock()
	e := presence.Edge{Name: m.Name, Incarnation: m.Incarnation}
	n.mu.Lock()
	core := n.core
	delete(n.alive, e)
	n.mu.Unlock()
	if core != nil {
		core.EdgeAlive(e, false)
	}
}

// ping answers when the engine's loop does.
func (n *Node) ping(_ uint64, pong func()) {
	if e := n.engine.Load(); e != nil {
		e.Ping(pong)
		return
	}
	pong()
}

// note is what travels with pongs: the storm guard's counts.
func (n *Node) note() []byte {
	n.mu.Lock()
	core := n.core
	n.mu.Unlock()
	if core == nil {
		return nil
	}
	sessions, lost := core.Counts()
	return binary.AppendUvarint(binary.AppendUvarint(nil, sessions), lost)
}

func (n *Node) noted(from stream.Peer, note []byte, clock time.Time, rtt time.Duration) {
	sessions, k := binary.Uvarint(note)
	lost, l := binary.Uvarint(note[max(k, 0):])
	if k > 0 && l > 0 {
		n.mu.Lock()
		n.counts[from.Node] = counts{sessions, lost}
		n.mu.Unlock()
	}
	if e := n.engine.Load(); e != nil {
		e.Clock(from.Node, time.Until(clock)+rtt/2)
	}
}
