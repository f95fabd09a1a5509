//go:build linux

package chaos

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What the writers' process has recorded is what the campaign records.
func TestWritersTell(t *testing.T) {
	theirs := &record{start: time.Now()}
	theirs.sends = []send{{"i", "r1", `{"n":1}`, 1, 2, true, 3}, {id: "j", user: "r2", body: "{}", call: 4, back: 5}}
	theirs.probes = []probe{{7, 8, 9, true}, {shard: 1, call: 2, back: 3}}
	theirs.crashes = []string{"s1 was refused for good"}
	want := record{sends: theirs.sends, probes: theirs.probes, crashes: theirs.crashes}
	var out bytes.Buffer
	told := &teller{record: theirs, out: json.NewEncoder(&out)}
	told.tell(true)
	told.tell(false) // nothing twice

	w, ours := &writers{resting: make(chan struct{})}, &record{}
	if err := w.follow(ours, &out); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.resting:
	default:
		t.Error("that they rest was not heard")
	}
	if !reflect.DeepEqual(ours.sends, want.sends) || !reflect.DeepEqual(ours.probes, want.probes) || !reflect.DeepEqual(ours.crashes, want.crashes) {
		t.Errorf("%+v %+v %q", ours.sends, ours.probes, ours.crashes)
	}
}

func TestWritersRefuse(t *testing.T) {
	for in, want := range map[string]string{
		"":               "no line",
		"{\n":            "what to write",
		"{}\nnonsense\n": `"nonsense"`,
	} {
		if err := Writers(t.Context(), strings.NewReader(in), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// A campaign whose writers have died says so, and waits for none of their words.
func TestWritersDie(t *testing.T) {
	cmd := exec.Command("sh", "-c", "exit 3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w := &writers{in: in, resting: make(chan struct{}), ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.err = wait(cmd)
	close(w.ended)
	w.rest()
	if err := w.end(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the end: %v", err)
	}
}
