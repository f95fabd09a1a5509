package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/cmd/muster/chaos"
)

// TestChaos runs a short campaign against one server on loopback. It needs no root.
func TestChaos(t *testing.T) {
	t.Setenv(asMuster, "1") // the servers are this binary
	dir := t.TempDir()
	var out, progress bytes.Buffer
	err := chaos.Run(t.Context(), chaos.Options{
		Scenarios: []string{"kill-core"}, Seed: 1, Length: 2 * time.Second, Cores: 1, Sessions: 12, Watches: 8, Changes: 4, Sends: 50,
		Settle: 2 * time.Minute, Loopback: true, Report: dir, Out: &out, Progress: &progress,
		Serve: []string{"--grace-gone=500ms", "--grace-silence=500ms"},
	})
	if err != nil {
		t.Fatalf("%v\n%s%s", err, progress.String(), out.String())
	}
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report chaos.Report
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if len(r.Faults) == 0 || r.Counts["acknowledged"] == 0 {
			t.Errorf("%s shows nothing: %v", r.Scenario, r.Counts)
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil || !bytes.Contains(page, []byte("<svg")) || strings.Contains(string(page), "http://") || strings.Contains(string(page), "https://") {
		t.Errorf("the page has no picture or needs the network (%v, %d bytes)", err, len(page))
	}
}

// TestChaosSaysWhatItCannot: a scenario that was asked for and cannot run is a failure.
func TestChaosSaysWhatItCannot(t *testing.T) {
	out, err := command("chaos", "partition", "--cores", "1", "--edges", "0", "--loopback", "--report", t.TempDir())
	if exitCode(err) != 1 || !strings.Contains(out, "partition: not on this machine") {
		t.Errorf("%v: %s", err, out)
	}
	for _, line := range []string{"chaos nonsense", "chaos --cores 0", "chaos --minutes -1"} {
		if code := quietly(strings.Fields(line)); code != 2 {
			t.Errorf("muster %s: exit code %d", line, code)
		}
	}
}
