package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/edge/auth"
)

// asMuster makes the test binary be muster.
const asMuster = "TEST_BINARY_IS_MUSTER"

func TestMain(m *testing.M) {
	if os.Getenv(asMuster) != "" {
		os.Exit(run(os.Args[1:]))
	}
	environment = func() []string { return nil }
	goleak.VerifyTestMain(m)
}

// command runs one command line and returns what it wrote and its error.
func command(args ...string) (stdout string, err error) {
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err = root.Execute()
	return out.String(), err
}

func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"version":                              0,
		"serve --help":                         0,
		"token alice":                          0,
		"serve --dev --print-config":           0,
		"nonsense":                             2,
		"serve --nonsense":                     2,
		"serve extra":                          2,
		"serve":                                2, // no key
		"token":                                2,
		"token alice --ttl 0s":                 2,
		"token !":                              2,
		"bench nonsense":                       2,
		"serve --dev --webhook x":              2,
		"backup":                               2,
		"backup /nowhere/b --data /nowhere":    1,
		"restore b":                            2,
		"restore /nowhere/b --data x":          1,
		"inspect":                              2,
		"inspect --data /nowhere":              1,
		"explain a --api nonsense":             2,
		"explain a --api http://127.0.0.1:1":   1,
		"watch a --url ws://127.0.0.1:1/v1/ws": 1,
	} {
		if got := quietly(strings.Fields(line)); got != want {
			t.Errorf("muster %s: exit code %d, want %d", line, got, want)
		}
	}
}

func quietly(args []string) int {
	_, err := command(args...)
	return exitCode(err)
}

func TestTokenVerifies(t *testing.T) {
	out, err := command("token", "alice", "--app", "shop", "--device", "d1", "--ttl", "2h", "--issuer", "me", "--audience", "us")
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.New(context.Background(), auth.Config{
		Keys: []auth.Key{auth.Secret(devSecret)}, Issuer: "me", Audience: "us", AllowShortSecret: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(context.Background(), strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	if c.User != "alice" || c.App != "shop" || c.Device != "d1" {
		t.Errorf("claims %+v", c)
	}
	if left := time.Until(c.Expires); left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("expires in %v", left)
	}
}
