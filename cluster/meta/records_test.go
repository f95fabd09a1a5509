package meta

import (
	"errors"
	"testing"
	"time"
)

// Records are written in the next version when every node that may come back knows it, and then nobody is let in who does not.
func TestRecordsAreRaised(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	old, next, later := Versions{}, Versions{1, 2}, Versions{2, 3}
	state := func(two, three Versions, third NodeState) State {
		s := State{Cluster: Cluster{ID: "c"}, Nodes: map[uint64]Node{}, Groups: []Group{{}}}
		s.Nodes[1] = Node{ID: 1, Name: "n1", State: Active, Records: next}
		s.Nodes[2] = Node{ID: 2, Name: "n2", State: Active, Records: two}
		s.Nodes[3] = Node{ID: 3, Name: "n3", State: third, Records: three}
		return s
	}
	fresh := Reports{}
	for id := uint64(1); id <= 3; id++ {
		fresh[id] = Report{Node: id, Incarnation: 1, Asked: now}
	}
	full := Reports{1: fresh[1], 2: fresh[2], 3: {Node: 3, Incarnation: 1, Asked: now, Replicas: []ReplicaReport{{Group: 0, ID: 1}}}}
	silent := Reports{1: fresh[1], 2: fresh[2], 3: {Node: 3, Asked: now.Add(-time.Second * 5)}}
	for name, c := range map[string]struct {
		s       State
		reports Reports
		want    bool
	}{
		"all know it":             {state(next, next, Active), fresh, true},
		"one is older":            {state(next, old, Active), fresh, false},
		"one that drains is":      {state(next, old, Draining), full, false},
		"one that is down is":     {state(next, old, Down), silent, false},
		"one is silent":           {state(next, next, Active), silent, false},
		"one that is lost is":     {state(next, old, Lost), silent, true},
		"one that left is":        {state(next, old, Left), silent, true},
		"one is newer than that":  {state(next, later, Active), fresh, true},
		"nobody has said a thing": {state(next, next, Active), Reports{}, false},
	} {
		raised := false
		for _, step := range Plan(c.s, c.reports, now) {
			if m, ok := step.(Mark); ok {
				c.s, _, _ = c.s.Apply(m, now)
			}
			if r, ok := step.(Raise); ok && r.Records == 2 {
				raised = true
				after, ops, err := c.s.Apply(r, now)
				if err != nil || after.Cluster.Writes() != 2 || len(ops) != 1 {
					t.Errorf("%s: %v, %+v, %d rows", name, err, after.Cluster, len(ops))
				}
				if _, _, err := after.Apply(r, now); !errors.Is(err, ErrBadRequest) {
					t.Errorf("%s: raised twice: %v", name, err)
				}
			}
		}
		if raised != c.want {
			t.Errorf("%s: raised is %v", name, raised)
		}
	}
	s := state(next, old, Active)
	if _, _, err := s.Apply(Raise{2}, now); !errors.Is(err, ErrBadRequest) {
		t.Errorf("raised although n2 is older: %v", err)
	}
}

// Who cannot write what the cluster writes is refused, and told why in words that survive the way to it.
func TestEnterOfAnotherVersion(t *testing.T) {
	for name, c := range map[string]struct {
		written uint8
		node    Versions
		ok      bool
	}{
		"of the same":            {0, Versions{}, true},
		"one newer":              {1, Versions{1, 2}, true},
		"two newer":              {1, Versions{2, 3}, false},
		"one older, not yet":     {1, Versions{1, 1}, true},
		"one older, all went on": {2, Versions{1, 1}, false},
		"says nothing, all did":  {2, Versions{}, false},
		"of those that went on":  {2, Versions{1, 2}, true},
	} {
		s := State{Cluster: Cluster{ID: "c", Records: c.written}}
		_, _, err := s.Apply(Enter{Node{ID: 9, Name: "n9", Records: c.node}}, time.Unix(1, 0))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			if back := understand(answered(nil, err), new(struct{})); !errors.Is(back, ErrVersion) || back.Error() != err.Error() {
				t.Errorf("%s: arrives as %v", name, back)
			}
		}
	}
}
