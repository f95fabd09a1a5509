package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/clients/go"
)

// TestReadmeExample builds the program whose body the README shows, and sees it see.
func TestReadmeExample(t *testing.T) {
	program, err := os.ReadFile("testdata/readme/main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(program), "MUSTER_TOKEN\")\n\n")
	body = strings.ReplaceAll(strings.TrimSuffix(body, "}\n"), "\n\t", "\n")
	if !strings.Contains(string(readme), strings.TrimSpace(body)) {
		t.Fatalf("README.md does not show the body of testdata/readme/main.go:\n%s", body)
	}

	bin := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", bin, "./testdata/readme").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, url, _ := serveChild(t)
	token, err := command("token", "me")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "MUSTER_URL="+url, "MUSTER_TOKEN="+strings.TrimSpace(token))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	expire := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer expire.Stop()

	ann, err := command("token", "ann")
	if err != nil {
		t.Fatal(err)
	}
	client, err := muster.Dial(t.Context(), url, muster.Options{Token: strings.TrimSpace(ann)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "ann online") {
			return
		}
	}
	t.Fatal("the example ended without seeing ann come online")
}
