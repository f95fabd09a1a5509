package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/actors/link"
	"muster/cluster"
	"muster/persistence"
)

// TestUnsafeRecover has one of three nodes go on alone.
func TestUnsafeRecover(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	store, err := persistence.Open(dir, persistence.Options{Ballast: -1, Create: &persistence.Identity{Node: 3, Name: "c"}})
	if err != nil {
		t.Fatal(err)
	}
	members := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3, Node: 3}}
	if err := cluster.Birth(store, link.Shards, members, time.Now()); err != nil {
		t.Fatal(err)
	}
	wrong := func(code int, text string, args ...string) {
		t.Helper()
		_, err := command(append([]string{"unsafe-recover"}, args...)...)
		if exitCode(err) != code || err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want exit code %d and %q", args, err, code, text)
		}
	}
	wrong(1, "STORE_LOCKED", "--data", dir, "--all", "--yes")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	wrong(2, "--data", "--all", "--yes")
	wrong(2, "loses what only the lost replicas had acknowledged", "--data", dir, "--all")
	wrong(2, "--shard", "--data", dir, "--yes")
	wrong(2, "--shard", "--data", dir, "--all", "--shard", "1", "--yes")
	wrong(2, "--shard 64", "--data", dir, "--shard", "64", "--yes")
	wrong(1, "STORE_NOT_BORN", "--data", t.TempDir(), "--all", "--yes")

	out := recovered(t, "--data", dir, "--shard", "5,2", "--yes")
	if !strings.HasPrefix(out, "shard 2: replica 3 of [1 2 3] goes on alone as replica 1048579: generation 2,") || !strings.Contains(out, "\n2 of 2 recovered") {
		t.Errorf("%s", out)
	}
	if got := generations(t, dir); got != "map[1:63 2:2]" {
		t.Errorf("generations %s", got)
	}
	wrong(1, "only voter", "--data", dir, "--shard", "5", "--yes")
	out = recovered(t, "--data", dir, "--all", "--yes")
	if !strings.Contains(out, "\nshard 5: left as it is: ") || !strings.HasPrefix(out, "meta: replica 3") || !strings.Contains(out, "\n63 of 65 recovered") {
		t.Errorf("%s", out)
	}
	if got := generations(t, dir); got != "map[2:65]" {
		t.Errorf("generations %s", got)
	}
	servedData(t, dir, func(api string) { storeFor(t, api, "ann", 3) })
}

func recovered(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(append([]string{"unsafe-recover"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// generations counts the groups of each generation.
func generations(t *testing.T, dir string) string {
	t.Helper()
	store, err := persistence.Inspect(dir, persistence.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	groups, err := store.Groups()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(groups)
	counts := map[uint64]int{}
	for _, g := range groups {
		_, state, _, _, err := store.Load(g)
		if err != nil {
			t.Fatal(err)
		}
		counts[state.Generation]++
	}
	return fmt.Sprint(counts)
}
