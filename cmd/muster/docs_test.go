package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const configurationHead = `# Configuration

Every setting of ` + "`muster serve`" + `, rendered from the code. A setting has one name: as a flag with two dashes in front, as a key of the YAML
file given with ` + "`--config`" + `, and as an environment variable in upper case with ` + "`MUSTER_`" + ` in front and underscores for dashes. A flag wins
over the environment, the environment over the file. A name that does not exist is an error, wherever it stands.

` + "`muster serve --print-config`" + ` prints all settings as YAML with where each came from; secrets are masked. Durations are written ` + "`20s`" + ` or
` + "`5m`" + `, lists with commas, in YAML also as lists.

` + "```yaml" + `
listen: 0.0.0.0:8000
jwt-key-file: /etc/muster/jwt.pem
audience: chat
origin: [https://app.example]
` + "```" + `

| setting | default | meaning |
|---|---|---|
`

// TestConfigurationDocs keeps docs/configuration.md the same as the code.
func TestConfigurationDocs(t *testing.T) {
	const file = "../../docs/configuration.md"
	var b strings.Builder
	b.WriteString(configurationHead)
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Tag.Get("hidden") == "true" {
			continue
		}
		def := f.Tag.Get("default")
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Tag.Get("koanf"), def, strings.ReplaceAll(f.Tag.Get("help"), "|", "\\|"))
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != b.String() {
		t.Fatalf("%s is not what the code says: go test ./cmd/muster -run ConfigurationDocs -update (%v)", file, err)
	}
}
