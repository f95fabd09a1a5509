package cluster

import (
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// run is the engine's goroutine.
func (e *Engine) run() {
	defer close(e.ended)
	defer e.end()
	ticker := time.NewTicker(e.cfg.Tick)
	defer ticker.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	last := time.Now()
	for late := time.Duration(-1); !e.dead; late = -1 {
		if at, ok := e.host.Deadline(); ok {
			timer.Reset(max(0, at-time.Since(e.start)))
		}
		select {
		case <-e.wake:
		case <-timer.C:
		case <-ticker.C:
			late = e.lateness(&last)
		case <-e.stop:
			return
		}
		e.advance(late)
		for !e.dead && (e.take() || e.host.Busy()) {
			e.turn()
			e.advance(e.due(ticker, &last))
		}
		if e.dead {
			return
		}
		for group, s := range e.staged { // raft did not want it
			_ = s.Discard()
			delete(e.staged, group)
		}
	}
}

// due is the lateness of a tick that is due, or -1. Work that never ends must not keep time from passing:
// heartbeats would stop, and leases lapse.
func (e *Engine) due(ticker *time.Ticker, last *time.Time) time.Duration {
	select {
	case <-ticker.C:
		return e.lateness(last)
	default:
		return -1
	}
}

func (e *Engine) lateness(last *time.Time) time.Duration {
	late := max(0, time.Since(*last)-e.cfg.Tick)
	*last = time.Now()
	return late
}

// advance tells the host the time, and if late is not negative that a tick is over.
func (e *Engine) advance(late time.Duration) {
	if e.dead {
		return
	}
	if e.host.Wake(time.Since(e.start)) {
		e.turn()
	}
	if late >= 0 && !e.dead {
		e.tick(late)
	}
}

// tick is one step of Raft's clock. After a stall there is one, not as many as were missed:
// a slow node must not campaign for its own slowness.
func (e *Engine) tick(late time.Duration) {
	if late > stalled {
		e.stalledAt.Store(time.Now().UnixNano())
		e.log.Warn("the Raft loop stalled", "late", late)
	}
	e.host.Tick()
	if e.ticks++; e.ticks%lookEvery == 1 {
		e.lookAtRoom()
		e.lookAtClock()
	}
}

// lookAtClock gives leaderships away while the clock is wrong.
func (e *Engine) lookAtClock() {
	why := e.clocks.judge(time.Since(e.start))
	switch was := e.wrong.Load(); {
	case why == "" && was != nil:
		e.wrong.Store(nil)
		e.log.Info("the clock is right again")
	case why != "":
		if e.wrong.Swap(&why) == nil {
			e.log.Error("the clock is wrong: leaderships are given away", "error", why)
		}
	}
	e.yield()
}

func (e *Engine) lookAtRoom() {
	free, low := e.cfg.Room()
	if refused := e.refusal.Load() != nil; low == refused {
		return
	}
	if !low {
		e.refusal.Store(nil)
		e.host.Refuse("")
		e.log.Info("the disk has room again", "free", free)
		return
	}
	why := fmt.Sprintf("cluster: the disk is too full: %d MiB free", free>>20)
	e.refusal.Store(&why)
	e.host.Refuse(why)
	e.log.Error("the disk is too full: no more writes, leaderships are given away", "free", free)
}

// take runs the inbox; true if there was something.
func (e *Engine) take() bool {
	e.mu.Lock()
	inbox := e.inbox
	e.inbox, e.full = e.spare[:0], 0
	e.mu.Unlock()
	for i, f := range inbox {
		if !e.dead {
			f()
		}
		inbox[i] = nil
	}
	e.spare = inbox
	return len(inbox) > 0
}

// turn does what the host wants, in the order that Turn says.
func (e *Engine) turn() {
	if e.dead || !e.host.Busy() {
		return
	}
	t := e.host.Turn()
	e.tell(t.Closed)
	e.send(t.Before)
	for _, in := range t.Ingests {
		if err := e.ingest(in); err != nil {
			e.fatal(err)
			return
		}
		if e.die(MidSnapshotIngest) {
			return
		}
	}
	if len(t.Updates) > 0 {
		if t.Sync && e.die(BeforeAppend) {
			return
		}
		if err := e.cfg.Store.Write(t.Updates, t.Sync); err != nil {
			e.fatal(err)
			return
		}
		if t.Sync && e.die(AfterAppendBeforeSend) {
			return
		}
	}
	e.host.Wrote(t)
	e.send(t.After)
	if len(t.Events) > 0 && e.die(AfterCommitBeforeAck) {
		return
	}
	e.tell(t.Events)
}

func (e *Engine) die(at Failpoint) bool {
	if e.cfg.Failpoint != nil && e.cfg.Failpoint(at) {
		e.dead = true
	}
	return e.dead
}

func (e *Engine) fatal(err error) {
	e.dead = true
	e.log.Error("the store failed", "error", err)
	e.cfg.Fatal(err)
}

func (e *Engine) ingest(in Ingest) error {
	u := in.Update
	s := e.staged[u.Group]
	delete(e.staged, u.Group)
	if s == nil || s.State.Applied != in.Index || s.State.AppliedTerm != in.Term {
		return fmt.Errorf("cluster: group %d: no received rows for snapshot %d", u.Group, in.Index)
	}
	return e.cfg.Store.Ingest(s, u.Hard.GetTerm(), u.Hard.GetVote(), u.State.Replica)
}

// send gives each node all its messages at once. A MsgSnap goes with the rows as they are now.
func (e *Engine) send(ms []Message) {
	if len(ms) == 0 || e.cfg.Transport == nil {
		return
	}
	byNode := map[uint64][]Message{}
	for _, m := range ms {
		if m.Raft.GetType() == raftpb.MsgSnap {
			e.sendSnapshot(m)
			continue
		}
		byNode[m.To] = append(byNode[m.To], m)
	}
	for node, ms := range byNode {
		e.cfg.Transport.Send(node, ms)
	}
}

func (e *Engine) sendSnapshot(m Message) {
	sent := func(err error) {
		e.post(func() { e.host.SnapshotSent(m.Group, m.To, err == nil) })
	}
	if e.sending >= maxStreams {
		sent(ErrBusy)
		return
	}
	snap, err := e.cfg.Store.Snapshot(m.Group)
	if err != nil {
		e.log.Error("no snapshot", "group", m.Group, "error", err)
		sent(err)
		return
	}
	if index := m.Raft.GetSnapshot().GetMetadata().GetIndex(); snap.State.Applied != index {
		panic(fmt.Sprintf("cluster: I2: group %d: snapshot of %d, rows of %d", m.Group, index, snap.State.Applied))
	}
	e.sending++
	e.streams.Add(1)
	e.cfg.Transport.SendSnapshot(m, snap, func(err error) {
		defer e.streams.Done()
		if cerr := snap.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			e.log.Debug("a snapshot was not delivered; it is sent again", "group", m.Group, "node", m.To, "error", err)
		}
		e.post(func() { e.sending-- })
		sent(err)
	})
}

// tell passes events on.
func (e *Engine) tell(events []Event) {
	for _, ev := range events {
		switch ev := ev.(type) {
		case Opened:
			e.log.Debug("a shard opens", "shard", ev.Shard, "term", ev.Term)
			e.shown(ev.Shard, ev.Term)
			e.opened[ev.Shard] = ev.Term
			e.leading(ev.Shard).Opened(ev.Shard, ev.Term, ev.Generation, ev.At)
		case Closed:
			e.log.Debug("a shard closes", "shard", ev.Shard, "term", ev.Term)
			e.shown(ev.Shard, 0)
			delete(e.opened, ev.Shard)
			e.leading(ev.Shard).Closed(ev.Shard, ev.Term)
		case Committed:
			e.leading(ev.Shard).Committed(ev.Shard, ev.Term, ev.Seq, ev.Index)
		case ReadReady:
			done := e.reads[ev.ID]
			delete(e.reads, ev.ID)
			done(ev.Err)
		case LeaderChanged:
			e.log.Debug("a group's leader", "group", ev.Group, "term", ev.Term, "node", ev.Node)
			if v := e.view(ev.Group - 1); v != nil {
				v.leader.Store(&ev)
			}
		case Leaving:
			e.farewell(ev)
		case Removed:
			e.shards.Delete(ev.Group - 1)
			e.log.Info("replica removed", "group", ev.Group, "replica", ev.Replica)
		}
	}
}

func (e *Engine) leading(shard uint32) Leading {
	if shard == MetaShard {
		return e.cfg.Meta
	}
	return e.cfg.Leading
}

func (e *Engine) shown(shard uint32, open uint64) {
	if v := e.view(shard); v != nil {
		v.open.Store(open)
	}
}

// end closes what is open. A crash that a test asked for tells nobody.
func (e *Engine) end() {
	if e.cfg.Transport != nil {
		e.cfg.Transport.Stop()
	}
	for id, done := range e.reads {
		delete(e.reads, id)
		done(ErrNotLeader)
	}
	for _, s := range e.staged {
		_ = s.Discard()
	}
	for shard, term := range e.opened {
		e.shown(shard, 0)
		if !e.dead {
			e.leading(shard).Closed(shard, term)
		}
	}
}

// raftLog passes on what raft warns of.
type raftLog struct {
	silent
	log *slog.Logger
}

func (l raftLog) Warning(v ...any)            { l.log.Warn("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Warningf(f string, v ...any) { l.log.Warn("raft: " + fmt.Sprintf(f, v...)) }
func (l raftLog) Error(v ...any)              { l.log.Error("raft: " + fmt.Sprint(v...)) }
func (l raftLog) Errorf(f string, v ...any)   { l.log.Error("raft: " + fmt.Sprintf(f, v...)) }
