package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// load reads a configuration from a YAML text, an environment and flags.
func load(t *testing.T, file string, environ []string, args ...string) (Config, sources, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "muster.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return loadConfig(flags, environ)
}

func TestTheLaterLayerWins(t *testing.T) {
	cfg, from, err := load(t,
		"listen: 127.0.0.1:1\napi-listen: 127.0.0.1:1\nnode-name: file\nmax-devices: 3\norigin: [https://a.example, https://b.example]\ndrain-window: 7s\n",
		[]string{"MUSTER_API_LISTEN=127.0.0.1:2", "MUSTER_NODE_NAME=env", "MUSTER_PING=2s", "PATH=/bin"},
		"--node-name", "flag", "--dev")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:1" || cfg.APIListen != "127.0.0.1:2" || cfg.NodeName != "flag" || !cfg.Dev {
		t.Errorf("wrong layer: %+v", cfg)
	}
	if cfg.MaxDevices != 3 || cfg.DrainWindow != 7*time.Second || cfg.Ping != 2*time.Second || cfg.Pong != 10*time.Second {
		t.Errorf("wrong values: %+v", cfg)
	}
	if strings.Join(cfg.Origin, " ") != "https://a.example https://b.example" {
		t.Errorf("origin %q", cfg.Origin)
	}
	for name, want := range map[string]string{"node-name": "--node-name", "api-listen": "MUSTER_API_LISTEN", "pong": "default"} {
		if from[name] != want {
			t.Errorf("%s comes from %q, want %q", name, from[name], want)
		}
	}
	if !strings.HasSuffix(from["listen"], "muster.yaml: listen") {
		t.Errorf("listen comes from %q", from["listen"])
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		environ []string
		args    []string
		want    string
	}{
		"unknown in file":        {file: "listn: x\n", want: "muster.yaml: listn: no such setting"},
		"nested in file":         {file: "listen:\n  port: 1\n", want: "listen.port: no such setting"},
		"unknown in environment": {environ: []string{"MUSTER_LISTN=x"}, want: "MUSTER_LISTN: no such setting"},
		"a bare duration":        {file: "ping: 20\n", want: `ping: "20" is not a valid value: write a duration such as 20s`},
		"duration in words":      {environ: []string{"MUSTER_PING=soon"}, want: `MUSTER_PING: "soon" is not a valid value: write a duration`},
		"a number in words":      {environ: []string{"MUSTER_MAX_DEVICES=many"}, want: "write a number"},
		"a fraction":             {environ: []string{"MUSTER_MAX_DEVICES=1.5"}, want: "write a whole number"},
		"yes is not true":        {environ: []string{"MUSTER_DEV=yes"}, want: "write true or false"},
		"broken file":            {file: "a: [\n", want: "cannot read --config"},
		"no file":                {args: []string{"--config", "/nowhere/muster.yaml"}, want: "cannot read --config /nowhere/muster.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, c.file, c.environ, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	key := []string{"--jwt-key", strings.Repeat("k", 32), "--api-key", strings.Repeat("a", 16)}
	for name, c := range map[string]struct {
		args []string
		want string // "" is fine
	}{
		"keys are enough":     {key, ""},
		"dev is enough":       {[]string{"--dev"}, ""},
		"no key":              {nil, "set --jwt-key"},
		"no API key":          {key[:2], "set --api-key"},
		"dev beyond host":     {[]string{"--dev", "--listen", "0.0.0.0:1"}, "binds to loopback only"},
		"dev api beyond":      {[]string{"--dev", "--api-listen", ":1"}, "binds to loopback only"},
		"dev on localhost":    {[]string{"--dev", "--listen", "localhost:0"}, ""},
		"dev on IPv6":         {[]string{"--dev", "--listen", "[::1]:0"}, ""},
		"address":             {[]string{"--dev", "--listen", "8000"}, "write host:port"},
		"one of two":          {append(key, "--tls-cert", "x"), "set both or neither"},
		"two keys":            {append(key, "--jwt-key-file", "x"), "leave one out"},
		"proxy":               {append(key, "--trusted-proxy", "10.0.0"), "want a network like 10.0.0.0/8"},
		"drain":               {append(key, "--drain-window", "11m"), "drain-window: 11m0s is out of range"},
		"devices":             {append(key, "--max-devices", "0"), "max-devices: 0 is out of range"},
		"level":               {append(key, "--log-level", "loud"), "write debug, info, warn or error"},
		"format":              {append(key, "--log-format", "xml"), "write text or json"},
		"memory":              {append(key, "--gomemlimit", "2GB"), "write it as 512MiB or 2GiB"},
		"memory is fine":      {append(key, "--gomemlimit", "2GiB"), ""},
		"no directory":        {append(key, "--data="), "data: no directory"},
		"cache":               {append(key, "--cache", "1MiB"), "cache: 1MiB is out of range"},
		"outbox ttl":          {append(key, "--outbox-ttl", "1s"), "outbox-ttl: 1s is out of range"},
		"events":              {append(key, "--events-keep", "1m"), "events-keep: 1m0s is out of range"},
		"webhook":             {append(key, "--webhook", "app.example"), "is not a URL"},
		"webhook secret":      {append(key, "--webhook", "https://app.example"), "no secret to sign webhooks"},
		"webhook is fine":     {append(key, "--webhook", "https://app.example", "--webhook-secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"), ""},
		"audience field":      {append(key, "--default-audience", "mood=nobody"), "fields are state"},
		"audience rule":       {append(key, "--default-audience", "state=friends"), "write everyone, contacts or nobody"},
		"audience for nobody": {append(key, "--default-audience", "last_seen=nobody"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, from, err := load(t, "", nil, c.args...)
			if err == nil {
				err = cfg.check(from)
			}
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestDevKeepsWhatWasSet(t *testing.T) {
	cfg, from, err := load(t, "", nil, "--dev", "--api-key", "mine", "--drain-window", "9s")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.check(from); err != nil {
		t.Fatal(err)
	}
	if cfg.APIKey[0] != "mine" || cfg.DrainWindow != 9*time.Second || cfg.JWTKey != devSecret || len(cfg.DefaultAudience) != 0 {
		t.Errorf("%+v", cfg)
	}
}

// What is printed can be read again, secrets aside.
func TestPrintedConfigIsAConfig(t *testing.T) {
	cfg, from, err := load(t, "", nil, "--dev", "--jwt-key", "top secret", "--origin", "https://a,https://b", "--node-name", "n # 1")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.check(from); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := printConfig(&b, cfg, from); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.Contains(text, "top secret") || strings.Contains(text, devSecret) {
		t.Errorf("a secret is printed:\n%s", text)
	}
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc) != len(settings()) {
		t.Errorf("%d settings printed, there are %d", len(doc), len(settings()))
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if !strings.Contains(line, " # ") {
			t.Errorf("no source in %q", line)
		}
	}
	again, _, err := load(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.JWTKey, again.APIKey = cfg.JWTKey, cfg.APIKey
	if len(again.DefaultAudience) == 0 {
		again.DefaultAudience = cfg.DefaultAudience
	}
	if got, want := again.NodeName, cfg.NodeName; got != want {
		t.Errorf("node-name %q, want %q", got, want)
	}
	if got, want := strings.Join(again.Origin, ","), "https://a,https://b"; got != want {
		t.Errorf("origin %q, want %q", got, want)
	}
	if again.Ping != cfg.Ping || again.ConnRate != cfg.ConnRate {
		t.Errorf("%+v\nis not\n%+v", again, cfg)
	}
}

// Every setting has the three names and a help text.
func TestSettingsAreDeclaredInFull(t *testing.T) {
	for _, s := range settings() {
		if s.name == "" || s.help == "" || strings.ToLower(s.name) != s.name || strings.Contains(s.name, "_") {
			t.Errorf("setting %+v", s)
		}
	}
	cfg, _, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.GraceGone != 5*time.Second || cfg.GraceSilence != 15*time.Second || cfg.GraceDrain != time.Minute ||
		cfg.GraceInactive != 2*time.Minute || cfg.ResumeWindow != 2*time.Minute || cfg.DrainWindow != 20*time.Second ||
		cfg.Ping != 20*time.Second || cfg.Pong != 10*time.Second || cfg.AwayAfter != 5*time.Minute {
		t.Errorf("defaults differ from the specification: %+v", cfg)
	}
	if cfg.MaxDevices != 20 || cfg.MaxWatches != 5000 || cfg.ConnRate != 20 || cfg.ConnBurst != 50 || cfg.UserRate != 50 {
		t.Errorf("limits differ from the specification: %+v", cfg)
	}
}
