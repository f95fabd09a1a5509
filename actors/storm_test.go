package actors

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
)

// An edge with 600 users dies: the guard, fed by counts that the node gathers from its
// gateways, keeps them for a minute and lets them go over the next 20 s. Who comes back
// was never gone.
func TestStorm(t *testing.T) {
	const n = 600
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		for i := range n {
			u := fmt.Sprintf("u%03d", i)
			e.attach(u, "s-"+u, uint64(i+1))
			w.watch("wendy", u)
		}
		synctest.Wait()
		w.mu.Lock()
		w.log = nil
		w.mu.Unlock()
		pass(2 * time.Second) // the counts go round
		c.pipes[0].Close(true)
		pass(2 * time.Second)
		if s := c.countsBy(w); s["storm"] == 0 || s["detached"] != n {
			t.Fatalf("counts %v", s)
		}
		w.attach("u000", "s-u000", 9999)
		pass(55 * time.Second)
		w.saw()
		pass(25 * time.Second)
		w.mu.Lock()
		gone := len(w.log)
		w.log = nil
		w.mu.Unlock()
		if gone != n-1 {
			t.Fatalf("%d of %d are gone", gone, n-1)
		}
		if s := c.countsBy(w); s["storm"] != 0 || s["online"] != 1 {
			t.Fatalf("counts %v", s)
		}
	})
}

// A tick that comes late reads the inbox before any grace runs out.
func TestLateTick(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		g := c.node.gateways[shardOf("ann")]
		e := c.edges[0]
		e.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		e.detach("ann", "a1", 1, link.Cause_GONE)
		e.saw("wendy>ann: online")
		pass(5*time.Second - time.Millisecond)
		g.mailbox.suspend(true)
		time.Sleep(time.Millisecond) // the timer fires into a mailbox that is not read
		e.attach("ann", "a1", 2)
		g.armed = g.armed.Add(-lateness - time.Millisecond) // … for longer than is ordinary
		g.mailbox.PostSystemMessage(&actor.ResumeMailbox{})
		e.saw()
		pass(time.Minute)
		e.saw()
		if n := c.node.Stats().LateTicks.Load(); n != 1 {
			t.Fatalf("%d late ticks", n)
		}
	})
}
