package edge

import (
	"context"
	"strings"
	"testing"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

// After an announcement the core tells each watcher in a message of its own. What changed while nothing was heard
// reaches all of them, not only the first one; what did not change is not sent again, not even under a newer version: a
// leader that takes over has versions of its own.
func TestRepairReachesEveryWatcher(t *testing.T) {
	r := newRig(t)
	watchers := []string{"b", "c", "d"}
	peers := map[string]*peer{}
	for _, w := range watchers {
		peers[w] = r.peer(w, "a")
	}
	views := func(version uint64, state presence.State) {
		for _, w := range watchers {
			r.core.say(userShard(presence.Key{App: "default", User: "a"}), &link.Down{Body: &link.Down_Views{Views: &link.Views{
				App: "default", Watcher: w, Rows: []*link.Row{{
					User: "a", Mask: uint32(presence.AllFields), Version: version,
					View: &link.View{Mask: uint32(presence.AllFields), State: uint32(state), Since: 1},
				}},
			}}})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	told := func(state string) {
		t.Helper()
		for _, w := range watchers {
			for seen := false; !seen; {
				_, b, err := peers[w].ws.Read(ctx)
				if err != nil {
					t.Fatalf("%s was not told: %v", w, err)
				}
				seen = strings.Contains(string(b), state)
				if !seen && strings.Contains(string(b), `"away"`) {
					t.Errorf("%s was told again: %s", w, b)
				}
			}
		}
	}
	views(5, presence.Away)
	told(`"away"`)
	views(6, presence.Away)
	Eventually(t, "what was told is withheld", func() bool { return r.edge.Stats().Withheld == int64(len(watchers)) })
	views(7, presence.DND)
	told(`"dnd"`)
}
