package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A cluster's secret is replaced in three rolling restarts: the new one is accepted too, then it is used, then the old one is accepted
// no more. At each step all nodes are linked with each other; in the end a node with the old secret is not let in.
func TestSecretIsReplaced(t *testing.T) {
	const was, is = "the secret of long ago", "the secret of tomorrow"
	f := newFleet(t, "n1", "n2", "n3")
	order := []*peer{f.nodes["n1"], f.nodes["n2"], f.nodes["n3"]}
	for _, m := range order {
		m.secret(was)
		f.start(m)
	}
	for _, m := range order {
		m.line("ready listen=")
	}
	f.eventually("three voters", func() string { return f.whole(order[0], 1) })
	f.publish(order[0], "under the old secret")
	for _, secrets := range []string{was + "," + is, is + "," + was, is} {
		for _, m := range order {
			f.stop(m)
			m.secret(secrets)
			f.start(m)
			m.line("ready listen=")
			f.eventually(m.name+" has "+secrets, func() string { return f.linked(order) })
		}
	}
	f.publish(order[0], "under the new secret")
	f.reader(order[1], "u1")("under the old secret")
	f.reader(order[2], "u1")("under the new secret")

	old := f.add("e1", "--role", "edge")
	old.secret(was)
	f.start(old)
	old.line("no core of a cluster is in sight yet")
	if why := f.linked(order); why != "" {
		t.Error(why)
	}
	old.secret(is)
	old.signal(9)
	<-old.ended
	f.start(old)
	old.line("ready listen=")
}

// secret sets what --cluster-secret says at the next start.
func (m *peer) secret(list string) { m.args[slices.Index(m.args, "--cluster-secret")+1] = list }

// linked says which of these cores is not connected with all others, on both ports, or lacks replicas.
func (f *fleet) linked(cores []*peer) string {
	for _, m := range cores {
		status, text := f.call(m, devSecret, "/metrics", "")
		if status != http.StatusOK {
			return fmt.Sprint(m.name, ": ", text)
		}
		for _, of := range []string{"members", "actor_streams", "raft_streams"} {
			if want := fmt.Sprintf("\nmuster_cluster_%s %d\n", of, len(cores)-1); !strings.Contains(text, want) {
				return fmt.Sprint(m.name, " lacks", want)
			}
		}
	}
	return f.whole(cores[0], 1)
}
