package actors

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// couple is ann and bob, of shards that different cores lead, and the post between them.
type couple struct {
	*party
	ann, bob *process // where they are

	mu    sync.Mutex
	seen  []uint64             // transfers to bob as they were sent, one for each
	held  []func()             // what the post keeps
	trick func(*parcel) action // nil: all comes at once
}

// parcel is a message on its way.
type parcel struct {
	to *core
	m  *link.Up
}

// action is what the post does with a parcel.
type action uint8

const (
	bring  action = iota
	twice         // now, and again when told to
	keep          // until told to
	loseIt        // for good
)

func inCouple(t *testing.T, f func(*couple)) {
	t.Helper()
	inParty(t, 3, 2, Config{}, func(p *party) {
		c := &couple{party: p, ann: p.edges[0], bob: p.edges[1]}
		if p.leader(shardOf("ann")) == p.leader(shardOf("bob")) {
			t.Fatal("one core leads both")
		}
		p.mu.Lock()
		p.post = c.carry
		p.mu.Unlock()
		f(c)
	})
}

func (c *couple) carry(to *core, m *link.Up) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m = proto.CloneOf(m)
	if t := m.GetTransfer(); t.GetUser() == "bob" && !slices.Contains(c.seen, t.Seq) {
		c.seen = append(c.seen, t.Seq)
	}
	what, parcel := bring, &parcel{to, m}
	if c.trick != nil {
		what = c.trick(parcel)
	}
	node := parcel.to.node.Load()
	switch what {
	case bring:
		node.Routed(m)
	case twice:
		node.Routed(proto.CloneOf(m))
		fallthrough
	case keep:
		c.held = append(c.held, func() { node.Routed(m) })
	}
}

func (c *couple) tricks(f func(*parcel) action) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trick = f
}

// release brings what the post has kept, the last first.
func (c *couple) release() (n int) {
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	for _, bring := range slices.Backward(held) {
		bring()
	}
	synctest.Wait()
	return len(held)
}

// move gives a user's shard to the core that leads neither ann's nor bob's.
func (c *couple) move(user string) (from, to *core) {
	from = c.leader(shardOf(user))
	for _, to = range c.cores {
		if to != c.leader(shardOf("ann")) && to != c.leader(shardOf("bob")) {
			break
		}
	}
	c.hand(shardOf(user), to)
	return from, to
}

func (c *couple) act(what any) {
	c.t.Helper()
	a := &link.Act{}
	switch w := what.(type) {
	case presence.ContactAction:
		a.What = &link.Act_Contact{Contact: &link.ContactAct{User: "bob", Action: uint32(w)}}
	case *link.Relations:
		a.What = &link.Act_Relations{Relations: w}
	case *link.NotifyWhen:
		a.What = &link.Act_NotifyWhen{NotifyWhen: w}
	}
	if code := c.ann.code(c.ann.act("ann", a)); code != link.Code_OK {
		c.t.Fatal(code)
	}
}

// owed is how many transfers are open, and how many are stored.
func (c *couple) owed() (n, stored int) {
	synctest.Wait()
	for _, core := range c.cores {
		n += int(core.node.Load().Stats().Transfers.Load())
	}
	r := row.Transfers()
	for shard := range uint32(link.Shards) {
		_ = c.rows[shard].Scan(r.From, r.To, func(_, _ []byte) bool { stored++; return true })
	}
	return n, stored
}

// within fails unless f holds before d has passed.
func (c *couple) within(d time.Duration, what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(d); !f(); pass(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("%s: not within %v", what, d)
		}
	}
}

func (c *couple) settled() bool { n, _ := c.owed(); return n == 0 }

var (
	block   = &link.Relations{Block: []string{"bob"}}
	unblock = &link.Relations{Unblock: []string{"bob"}}
)

// meant is a change of ann that means something for bob, and how it shows, once.
type meant struct {
	name  string
	begin func(*couple)
	do    any
	check func(*couple)
}

var meanings = []meant{
	{"contact", func(c *couple) { c.attach(c.bob, "bob", "s-bob") }, presence.Subscribe, func(c *couple) { c.bob.heard("contact bob→ann +in") }},
	{"block", func(c *couple) {
		c.ann.watch("ann", "bob")
		c.attach(c.bob, "bob", "s-bob")
		c.ann.saw("ann>bob: online")
	}, block, func(c *couple) { c.ann.saw("ann>bob: offline") }},
	{"notify_when", func(c *couple) { c.ann.reads("ann", "s-ann", 1, 0, 0) }, &link.NotifyWhen{User: "bob"}, func(c *couple) {
		for range 2 { // the second time nobody waits
			c.attach(c.bob, "bob", "s-bob")
			pass(5 * time.Second)
			c.leave(c.bob, "bob", "s-bob", link.Cause_BYE)
		}
		if o := c.ann.outbox("ann"); o.Entries != 1 {
			c.t.Errorf("%+v", o)
		}
	}},
}

// first does something with the first transfer to bob, or its first outcome, and nothing with the others.
func first(done bool, what action) func(*parcel) action {
	over := false
	return func(p *parcel) action {
		if hit := p.m.GetTransfer().GetUser() == "bob"; over || done && p.m.GetTransferDone() == nil || !done && !hit {
			return bring
		}
		over = true
		return what
	}
}

// What happens to the transfer: begin is before it is sent, then is what comes after.
var mishaps = []struct {
	name  string
	trick func(*parcel) action
	then  func(*couple)
	in    time.Duration // what it must be through in
}{
	{"nothing", nil, func(*couple) {}, 0},
	{"target moves while it is on its way", first(false, keep), func(c *couple) { c.move("bob"); c.release() }, 2 * time.Second},
	{"target moves before it has answered", first(true, keep), func(c *couple) { c.move("bob"); c.release() }, 0},
	{"target moves and its answer is lost", first(true, loseIt), func(c *couple) { c.move("bob") }, 4 * time.Second},
	{"source moves while it is on its way", first(false, keep), func(c *couple) { c.move("ann"); c.release() }, 0},
	{"source moves, and it is lost", first(false, loseIt), func(c *couple) { c.move("ann") }, 0},
	{"source moves before it is answered", first(true, keep), func(c *couple) { c.move("ann"); c.release() }, 0},
	{"both move", first(false, keep), func(c *couple) { c.move("ann"); c.move("bob"); c.release() }, 2 * time.Second},
	{"doubled", first(false, twice), func(c *couple) { c.release() }, 0},
	{"doubled, and the target moves", first(false, twice), func(c *couple) { c.move("bob"); c.release() }, 0},
	{"the answer is doubled", first(true, twice), func(c *couple) { c.release() }, 0},
	{"doubled three minutes later", first(false, twice), func(c *couple) { pass(3 * time.Minute); c.move("bob"); c.release() }, 0},
}

// A transfer counts once, whatever becomes of the messages and whoever leads.
func TestTransfersBetweenNodes(t *testing.T) {
	for _, what := range meanings {
		for _, mishap := range mishaps {
			t.Run(what.name+": "+mishap.name, func(t *testing.T) {
				inCouple(t, func(c *couple) {
					what.begin(c)
					pass(5 * time.Second)
					c.tricks(mishap.trick)
					c.act(what.do)
					mishap.then(c)
					c.within(mishap.in+100*time.Millisecond, "done", c.settled)
					pass(time.Second)
					what.check(c)
					pass(5 * time.Second)
					if n, stored := c.owed(); n+stored != 0 {
						t.Errorf("%d are open, %d stored", n, stored)
					}
				})
			})
		}
	}
}

// What goes to a node that does not lead, for minutes, comes to the one that does within two seconds of the
// time at which it is known.
func TestTransferToWhoDoesNotLead(t *testing.T) {
	for _, deposed := range []bool{false, true} {
		t.Run(fmt.Sprint("deposed ", deposed), func(t *testing.T) {
			inCouple(t, func(c *couple) {
				c.attach(c.bob, "bob", "s-bob")
				pass(5 * time.Second)
				shard := shardOf("bob")
				old := c.leader(shard)
				if deposed { // it takes them, and cannot keep them
					term := c.term[shard]
					c.cores[(slices.Index(c.cores, old)+1)%3].lead(shard)
					c.later(3*time.Minute, func() { old.node.Load().Closed(shard, term) })
				} else {
					c.move("bob")
				}
				c.tricks(func(p *parcel) action {
					if p.m.Shard == shard {
						p.to = old
					}
					return bring
				})
				c.act(presence.Subscribe)
				pass(3*time.Minute - time.Second)
				c.bob.heard()
				c.tricks(nil)
				if deposed {
					pass(time.Second)
				}
				c.within(2100*time.Millisecond, "done", c.settled)
				c.bob.heard("contact bob→ann +in")
			})
		})
	}
}

// Transfers from one user to another keep their order while shards move and messages are lost, late and double.
func TestTransferOrder(t *testing.T) {
	inCouple(t, func(c *couple) {
		c.ann.watch("ann", "bob")
		c.attach(c.bob, "bob", "s-bob")
		pass(5 * time.Second)
		n, late := 0, 0
		c.tricks(func(p *parcel) action {
			if seq := p.m.GetTransfer().GetSeq(); p.m.GetTransfer().GetUser() == "bob" {
				if seq < c.seen[len(c.seen)-1] {
					late++
				}
				n++
				return []action{keep, loseIt, twice, bring, twice}[n%5]
			}
			return bring
		})
		for i := range 20 {
			c.act([]any{presence.Subscribe, block, unblock, presence.Unsubscribe}[i%4])
			switch i % 6 {
			case 2:
				c.move("bob")
			case 4:
				c.move("ann")
			case 5:
				c.release()
			}
			pass(700 * time.Millisecond)
		}
		c.act(presence.Subscribe)
		c.within(5*time.Minute, "done", c.settled)
		c.release()
		pass(5 * time.Second)
		c.tricks(nil)
		if late > 0 || !slices.IsSorted(c.seen) || len(c.seen) < 10 {
			t.Errorf("%d came after a later one, order %v", late, c.seen)
		}
		c.bob.testEdge.mu.Lock()
		told := c.bob.told
		c.bob.testEdge.mu.Unlock()
		if last := told[len(told)-1]; last != "contact bob→ann +in" {
			t.Errorf("%q", told)
		}
		c.ann.testEdge.mu.Lock()
		if is := c.ann.shown["ann>bob"]; is != "online" {
			t.Errorf("bob is shown %s", is)
		}
		c.ann.testEdge.mu.Unlock()
		if n, stored := c.owed(); n+stored != 0 {
			t.Errorf("%d are open, %d stored", n, stored)
		}
	})
}
