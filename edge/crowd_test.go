package edge_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
)

// counting is a core that counts attaches and answers none.
type counting struct {
	link.Core
	attached atomic.Int32
}

func (k *counting) Up(m *link.Up) {
	if m.GetAttach() == nil {
		k.Core.Up(m)
	} else if m.GetAttach().Call != 0 {
		k.attached.Add(1)
	}
}

// Connects that are not answered do not keep others out for long, and who hangs up while he waits is not attached.
func TestCrowdOnTheWire(t *testing.T) {
	k := &counting{}
	inCluster(t, 1, faults{core: func(c link.Core) link.Core {
		k.attached.Store(0)
		k.Core = c
		return k
	}}, func(t *testing.T, c *cluster) {
		var clients []*client
		for i := 0; len(clients) < 96; i++ {
			if user := fmt.Sprint("u", i); shardOf(user)%4 == 0 { // of one hub
				a := c.world.dial()
				a.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: user, DeviceId: "d"}}})
				synctest.Wait()
				clients = append(clients, a)
			}
		}
		check := func(want int32) {
			t.Helper()
			synctest.Wait()
			if n := k.attached.Load(); n != want {
				t.Fatalf("%d attached, want %d", n, want)
			}
		}
		check(32)
		if n := c.edge.Stats().Waiting; n != 64 {
			t.Fatalf("%d wait, want 64", n)
		}
		clients[40].ws.CloseNow()
		clients[90].ws.CloseNow()
		time.Sleep(790 * time.Millisecond)
		check(32)
		time.Sleep(11 * time.Millisecond)
		check(64)
		time.Sleep(800 * time.Millisecond)
		check(94)
		if n := c.edge.Stats().Waiting; n != 0 {
			t.Fatalf("%d wait", n)
		}
	})
}
