package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/actors/link"
	"muster/persistence"
)

// Of four cores none holds all shards; a backup asked of any holds them all. What is made of it is a cluster of its own, with one
// node, that has everything and grows. A webhook's replay, asked of any core, reaches all shards.
func TestBackupOfFourCores(t *testing.T) {
	app := listenForEvents(t)
	f := newFleet(t, "n1", "n2", "n3")
	n4 := f.add("n4", "--data", t.TempDir())
	hook := []string{"--events", "--webhook", app.URL, "--webhook-secret", hookSecret}
	for _, name := range []string{"n1", "n2", "n3"} {
		f.startAs(f.nodes[name], hook...)
	}
	f.nodes["n1"].line("ready listen=")
	f.startAs(n4, hook...)
	n4.line("ready listen=")
	n1 := f.nodes["n1"]
	f.publish(n1, "before the backup")
	f.eventually("n4 holds what others do not", func() string {
		doc, err := f.doc(n1)
		if err != nil {
			return err.Error()
		}
		for _, n := range doc.Nodes {
			if n.State != "active" || n.Holds == 0 || n.Holds == link.Shards {
				return fmt.Sprintf("%+v", n)
			}
		}
		return ""
	})
	first, err := f.doc(n1)
	if err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	for name, m := range f.nodes {
		file := filepath.Join(files, name)
		f.eventually("a backup of "+name, func() string {
			_ = os.Remove(file)
			if _, err := command("backup", file, "--api", m.api, "--api-key", devSecret); err != nil {
				return err.Error()
			}
			return ""
		})
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := persistence.Restore(filepath.Join(files, name+".look"), in, persistence.Options{Ballast: -1, Create: &persistence.Identity{Node: 7}})
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err != nil || sum.Groups != link.Shards+1 {
			t.Errorf("%s: a backup of %d groups, %v", name, sum.Groups, err)
		}
	}
	f.replayed(n4)
	for _, m := range f.nodes {
		m.signal(9)
		<-m.ended
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if out, err := command("restore", filepath.Join(files, "n4"), "--data", dir); err != nil {
		t.Fatal(err, out)
	}
	g := &fleet{t: t, nodes: map[string]*peer{}}
	r1 := g.add("r1", "--data", dir)
	g.join = r1.gossip
	g.start(r1)
	r1.line("ready listen=")
	g.reader(r1, "u7")("before the backup")
	r2 := g.add("r2", "--data", t.TempDir())
	g.start(r2)
	r2.line("ready listen=")
	g.eventually("a cluster of two", func() string {
		doc, err := g.doc(r2)
		if err != nil {
			return err.Error()
		}
		if doc.Cluster == first.Cluster || len(doc.Nodes) != 2 {
			return fmt.Sprintf("%s was %s; %+v", doc.Cluster, first.Cluster, doc.Nodes)
		}
		for _, s := range doc.Shards {
			if s.Leader != "r1" || strings.Join(s.Learners, " ") != "r2" {
				return fmt.Sprintf("%+v", s)
			}
		}
		return ""
	})
	g.publish(r2, "after it has grown")
	for i := range 10 {
		read := g.reader(r2, fmt.Sprint("u", i))
		read("before the backup")
		read("after it has grown")
	}
}

// replayed wants a replay asked of one core to reach all shards.
func (f *fleet) replayed(m *peer) {
	f.t.Helper()
	f.eventually("a replay of all shards", func() string {
		_, text := f.call(m, devSecret, "/v1/events", "")
		_, rest, _ := strings.Cut(text, `"cursor":"`)
		cursor, _, ok := strings.Cut(rest, `"`)
		if !ok {
			return text
		}
		status, text := f.call(m, devSecret, "/v1/events/replay", fmt.Sprintf(`{"cursor":%q}`, cursor))
		if status != 200 || !strings.Contains(text, `"complete":true`) || !strings.Contains(text, `"shards":64`) {
			return fmt.Sprint(status, " ", text)
		}
		return ""
	})
}
