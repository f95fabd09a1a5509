package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// printConfig writes cfg as YAML that --config would accept, each line with a comment
// that tells where the value came from. Secrets are masked.
func printConfig(w io.Writer, cfg Config, from sources) error {
	v := reflect.ValueOf(cfg)
	for _, s := range settings() {
		value := v.Field(s.index).Interface()
		switch x := value.(type) {
		case time.Duration:
			value = x.String()
		case []string:
			value = strings.Join(x, ",")
		}
		if s.secret && value != "" {
			value = "********"
		}
		text, err := yaml.Marshal(map[string]any{s.name: value})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%-44s # %s\n", strings.TrimSuffix(string(text), "\n"), from[s.name]); err != nil {
			return err
		}
	}
	return nil
}
