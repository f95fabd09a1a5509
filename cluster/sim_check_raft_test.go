package cluster

import (
	"fmt"
	"hash/fnv"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// loaded is what a replica's disk said before a batch.
type loaded struct {
	hard        *raftpb.HardState
	state       persistence.State
	first, last uint64
}

// before is load for a replica that may not be there yet.
func (c *checker) before(n *vnode, group uint32) loaded {
	groups, err := n.disk.Groups()
	c.s.must(err)
	if !slices.Contains(groups, group) {
		return loaded{}
	}
	return c.load(n, group)
}

func (c *checker) load(n *vnode, group uint32) loaded {
	hard, state, first, last, err := n.disk.Load(group)
	c.s.must(err)
	return loaded{hard, state, first, last}
}

// wrote compares what a batch made of a replica with its past and with the other replicas.
func (c *checker) wrote(n *vnode, u *persistence.Update, was loaded) {
	if u.Destroy != 0 {
		return
	}
	now := c.load(n, u.Group)
	if u.Hard != nil {
		c.hard(n, u.Group, was.hard, u.Hard)
	}
	if u.State == nil {
		return
	}
	r := replicaOf{u.Group, now.state.Replica}
	c.birth(n, r)
	if was.state.Replica == r.replica && was.state.Applied > now.state.Applied {
		c.s.fail("I3 order", "node %d group %d: applied index %d after %d", n.id, u.Group, now.state.Applied, was.state.Applied)
	}
	if was.state.At > now.state.At {
		c.s.fail("I13 shard time", "node %d group %d: %d after %d", n.id, u.Group, now.state.At, was.state.At)
	}
	c.applied(n, u.Group, was.state.Applied, now)
	c.rows(n, u.Group, u.Ops, was.state.Applied, now.state.Applied)
	c.equal(n, u.Group, now.state)
	c.conf(n, u.Group, now.state)
}

// hard: terms rise; within a term the vote is given once; the commit index never falls.
func (c *checker) hard(n *vnode, group uint32, was, now *raftpb.HardState) {
	switch {
	case was == nil:
	case now.GetTerm() < was.GetTerm():
		c.s.fail("I3 vote", "node %d group %d: term %d after %d", n.id, group, now.GetTerm(), was.GetTerm())
	case now.GetTerm() == was.GetTerm() && was.GetVote() != 0 && now.GetVote() != was.GetVote():
		c.s.fail("I3 vote", "node %d group %d term %d: vote for %d after one for %d", n.id, group, now.GetTerm(), now.GetVote(), was.GetVote())
	case now.GetCommit() < was.GetCommit():
		c.s.fail("I3 order", "node %d group %d: commit index %d after %d", n.id, group, now.GetCommit(), was.GetCommit())
	}
}

// birth: a replica id lives on one disk of one node, once.
func (c *checker) birth(n *vnode, r replicaOf) {
	if disk, ok := c.born[r]; ok {
		if disk != n.diskID {
			c.s.fail("I5 replica ids", "group %d: replica %d of disk %d again on disk %d of node %d", r.group, r.replica, disk, n.diskID, n.id)
		}
		return
	}
	c.born[r], c.home[r] = n.diskID, n.id
}

// applied: at one index all replicas apply one command.
func (c *checker) applied(n *vnode, group uint32, from uint64, now loaded) {
	lo := max(from+1, now.first)
	if lo > now.state.Applied {
		return
	}
	es, err := n.disk.Entries(group, lo, now.state.Applied+1, 1<<40)
	if err != nil {
		c.s.fail("I2 canonical log", "node %d group %d applied up to %d, its log has [%d, %d]: %v", n.id, group, now.state.Applied, now.first, now.last, err)
		return
	}
	for _, e := range es {
		h := fnv.New64a()
		fmt.Fprint(h, e.GetTerm(), e.GetType())
		h.Write(e.GetData())
		c.same(c.commands, "I2 canonical log", n, at{group, e.GetIndex()}, h.Sum64())
	}
}

func (c *checker) same(known map[at]uint64, name string, n *vnode, where at, got uint64) {
	if want, ok := known[where]; ok && want != got {
		c.s.fail(name, "node %d group %d index %d: %x, elsewhere %x", n.id, where.group, where.index, got, want)
		return
	}
	known[where] = got
}

// equal: replicas at one applied index are equal in hash, rows and configuration.
func (c *checker) equal(n *vnode, group uint32, st persistence.State) {
	where := at{group, st.Applied}
	c.same(c.hashes, "I2 rolling hash", n, where, st.Hash)
	if sum, ok := c.s.rowSum(n, group); ok {
		c.same(c.sums, "replica equality", n, where, sum)
	}
	conf := fmt.Sprintf("%s members %v shard time %d generation %d", confString(st.Conf), st.Members, st.At, st.Generation)
	if want, ok := c.confs[where]; ok && want != conf {
		c.s.fail("configuration", "node %d group %d index %d: %s, elsewhere %s", n.id, group, st.Applied, conf, want)
	}
	c.confs[where] = conf
}

// conf: each configuration shares a majority with the one before, and nobody comes back.
func (c *checker) conf(n *vnode, group uint32, st persistence.State) {
	past := c.history[group]
	if len(past) > 0 && st.Applied <= past[len(past)-1].index {
		return
	}
	now := st.Conf
	if len(past) == 0 {
		c.history[group] = []confAt{{st.Applied, now, c.s.now}}
		return
	}
	old := past[len(past)-1].conf
	if confString(old) == confString(now) {
		return
	}
	c.history[group] = append(past, confAt{st.Applied, now, c.s.now})
	if !overlap(old, now) {
		c.s.fail("quorum overlap", "group %d index %d: from %s to %s", group, st.Applied, confString(old), confString(now))
	}
	for _, r := range members(old) {
		if !slices.Contains(members(now), r) {
			c.gone[replicaOf{group, r}] = true
		}
	}
	for _, r := range members(now) {
		if c.gone[replicaOf{group, r}] {
			c.s.fail("I5 replica ids", "group %d: replica %d removed and back", group, r)
		}
	}
}

func confString(cs *raftpb.ConfState) string {
	return fmt.Sprintf("voters %v outgoing %v learners %v next %v", sorted(cs.GetVoters()), sorted(cs.GetVotersOutgoing()), sorted(cs.GetLearners()), sorted(cs.GetLearnersNext()))
}

func members(cs *raftpb.ConfState) []uint64 {
	ids := slices.Concat(cs.GetVoters(), cs.GetVotersOutgoing(), cs.GetLearners(), cs.GetLearnersNext())
	slices.Sort(ids)
	return slices.Compact(ids)
}

// overlap: every quorum of one configuration meets every quorum of the next.
func overlap(old, now *raftpb.ConfState) bool {
	joint := len(old.GetVotersOutgoing()) > 0 || len(now.GetVotersOutgoing()) > 0
	switch {
	case len(now.GetVotersOutgoing()) > 0:
		return slices.Equal(sorted(now.GetVotersOutgoing()), sorted(old.GetVoters()))
	case joint:
		return slices.Equal(sorted(now.GetVoters()), sorted(old.GetVoters()))
	}
	changed := 0
	for _, v := range old.GetVoters() {
		if !slices.Contains(now.GetVoters(), v) {
			changed++
		}
	}
	for _, v := range now.GetVoters() {
		if !slices.Contains(old.GetVoters(), v) {
			changed++
		}
	}
	return changed <= 1
}

func sorted(ids []uint64) []uint64 { ids = slices.Clone(ids); slices.Sort(ids); return ids }

// term: a command of one term changes nothing from an entry of another.
func (c *checker) term(n *vnode, group uint32, term, from, to uint64) {
	for i := from + 1; i <= to; i++ {
		t, err := n.disk.Term(group, i)
		if err != nil || t == term {
			return
		}
	}
	c.s.fail("I1 term", "node %d group %d: a command of term %d in entries (%d, %d] of other terms", n.id, group, term, from, to)
}

// promise: what an answer promises is on the platter before the answer leaves.
func (c *checker) promise(n *vnode, group uint32, m *raftpb.Message) {
	if m.GetReject() {
		return
	}
	d, ok := n.disk.(*modelDisk)
	if !ok {
		return
	}
	g := d.safe.groups[group]
	if g == nil {
		return
	}
	switch m.GetType() {
	case raftpb.MsgAppResp:
		// A later term on the platter may have replaced what an answer in an earlier one is about: it is as if it
		// had been late.
		if term := g.hard.GetTerm(); term < m.GetTerm() || term == m.GetTerm() && g.last() < m.GetIndex() {
			c.s.fail("I3 sync", "node %d group %d answers append %d of term %d, synced: %d of term %d", n.id, group, m.GetIndex(), m.GetTerm(), g.last(), g.hard.GetTerm())
		}
	case raftpb.MsgVoteResp:
		if g.hard.GetTerm() < m.GetTerm() || g.hard.GetTerm() == m.GetTerm() && g.hard.GetVote() != m.GetTo() {
			c.s.fail("I3 sync", "node %d group %d votes for %d in term %d, synced: %d in term %d", n.id, group, m.GetTo(), m.GetTerm(), g.hard.GetVote(), g.hard.GetTerm())
		}
		v := voteOf{group, m.GetFrom(), m.GetTerm()}
		if to, ok := c.votes[v]; ok && to != m.GetTo() {
			c.s.fail("I3 vote", "group %d replica %d votes for %d and %d in term %d", group, v.replica, to, m.GetTo(), v.term)
		}
		c.votes[v] = m.GetTo()
	}
}

// opened: one leader per term, with its own empty entry applied and nothing acknowledged missing.
func (c *checker) opened(n *vnode, shard uint32, term uint64) {
	group := shard + 1
	c.leader(group, term, n.id)
	if st := c.load(n, group).state; st.AppliedTerm < term {
		c.s.fail("I4 opening", "node %d opens shard %d at term %d with entries of term %d applied", n.id, shard, term, st.AppliedTerm)
	}
	for _, k := range c.s.ackedOf(shard) {
		row, ok, err := n.disk.Get(shard, dedupeKey(k.stream, k.id))
		c.s.must(err)
		if !ok || number(row, 0) != c.acked[k] {
			c.s.fail("I9 acked set", "node %d opens shard %d at term %d without the acknowledged %v", n.id, shard, term, k)
			return
		}
	}
}

func (c *checker) leader(group uint32, term, node uint64) {
	k := termOf{group, term}
	if old, ok := c.leaders[k]; ok && old != node {
		c.s.fail("one leader per term", "group %d term %d: nodes %d and %d", group, term, old, node)
	}
	c.leaders[k] = node
}

// restarted: a log on a disk is dense, its terms rise, and what is applied is in it.
func (c *checker) restarted(n *vnode) {
	groups, err := n.disk.Groups()
	c.s.must(err)
	for _, g := range groups {
		l := c.load(n, g)
		prev := uint64(0)
		for i := l.first - 1; i <= l.last; i++ {
			t, err := n.disk.Term(g, i)
			if err != nil || t < prev {
				c.s.fail("log on disk", "node %d group %d index %d: term %d after %d (%v)", n.id, g, i, t, prev, err)
				return
			}
			prev = t
		}
		if l.state.Applied > l.last || l.hard.GetCommit() > l.last {
			c.s.fail("log on disk", "node %d group %d: applied %d, commit %d, log ends at %d", n.id, g, l.state.Applied, l.hard.GetCommit(), l.last)
		}
	}
}

// promoted: at the proposal, what is to be a voter has nearly all that is committed, on its platter.
func (c *checker) promoted(n *vnode, group uint32, change Change) {
	for _, r := range change.Promote {
		commit := c.load(n, group).hard.GetCommit()
		if home := c.s.nodes[c.home[replicaOf{group, r}]]; home != nil {
			if l := c.before(home, group); l.state.Replica == r && l.last+maxBehind >= commit && l.state.Applied > 0 {
				continue
			}
		}
		c.s.fail("I6 promotion", "node %d promotes replica %d of group %d, which has not caught up with %d", n.id, r, group, commit)
	}
}
