package main

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func explainCommand() *cobra.Command {
	var watcher string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain USER",
		Short: "Tell why a user shows what it shows: sessions, timers, claims, transitions",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := newAPIClient(cmd)
			if err != nil {
				return err
			}
			path := "/v1/explain/" + url.PathEscape(args[0])
			if watcher != "" {
				path += "?watcher=" + url.QueryEscape(watcher)
			}
			doc, err := client.get(cmd.Context(), path)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), string(bytes.TrimSpace(doc)))
				return fault(err)
			}
			return fault(render(cmd.OutOrStdout(), doc, time.Now()))
		},
	}
	addAPIFlags(cmd)
	cmd.Flags().StringVar(&watcher, "watcher", "", "also tell what this user may see, and which rule hides the rest")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the document as it came")
	return cmd
}

// render prints a JSON document as indented lines in its own order. Times (RFC 3339, or
// Unix ms in numbers whose name ends in _at) and durations (_ms) are written out.
func render(w io.Writer, doc []byte, now time.Time) error {
	var node yaml.Node
	if err := yaml.Unmarshal(doc, &node); err != nil {
		return fmt.Errorf("the server's answer is not JSON: %w", err)
	}
	plain(&node, now)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return err
	}
	return enc.Close()
}

func plain(n *yaml.Node, now time.Time) {
	n.Style = 0
	if len(n.Content) == 0 && n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			spell(n.Content[i-1].Value, child, now)
		}
		plain(child, now)
	}
}

// spell writes a time or a duration in words.
func spell(name string, value *yaml.Node, now time.Time) {
	if at, err := time.Parse(time.RFC3339Nano, value.Value); value.Kind == yaml.ScalarNode && err == nil {
		value.SetString(instant(at, now))
		return
	}
	ms, err := strconv.ParseInt(value.Value, 10, 64)
	if value.Kind != yaml.ScalarNode || err != nil {
		return
	}
	switch {
	case strings.HasSuffix(name, "_at") && ms > 0:
		value.SetString(instant(time.UnixMilli(ms), now))
	case strings.HasSuffix(name, "_ms") && ms != 0:
		value.SetString((time.Duration(ms) * time.Millisecond).String())
	}
}

func instant(at, now time.Time) string {
	return at.Local().Format("2006-01-02 15:04:05.000") + ", " + ago(now.Sub(at))
}

// ago is a distance in time in words.
func ago(d time.Duration) string {
	future := d < 0
	d = d.Abs()
	var text string
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		text = fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		text = fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		text = fmt.Sprintf("%d h", int(d.Hours()))
	default:
		text = fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	if future {
		return "in " + text
	}
	return text + " ago"
}
