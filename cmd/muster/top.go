package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"muster/cmd/muster/durable"
)

// topEvery is how often `muster top` looks.
const topEvery = time.Second

func topCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the nodes do, live; once when piped",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := newAPIClient(cmd)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			out := cmd.OutOrStdout()
			f, ok := out.(*os.File)
			return runTop(ctx, out, client, asJSON, ok && isTerminal(f) && !asJSON)
		},
	}
	addAPIFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what one second brought as a document")
	return cmd
}

// runTop looks twice for rates and prints them, and goes on if live.
func runTop(ctx context.Context, out io.Writer, client *apiClient, asJSON, live bool) error {
	last, err := look(ctx, client)
	if err != nil {
		return err
	}
	tick := time.NewTicker(topEvery)
	defer tick.Stop()
	for lines := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		doc, err := look(ctx, client)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !live:
			return err
		case asJSON:
			return fault(json.NewEncoder(out).Encode(rates(last, doc)))
		}
		var text strings.Builder
		if err != nil {
			fmt.Fprintln(&text, oneLine(err.Error()))
		} else {
			printTop(&text, last, doc)
			last = doc
		}
		if lines > 0 {
			fmt.Fprintf(out, "\x1b[%dA\x1b[J", lines)
		}
		if _, err := io.WriteString(out, text.String()); err != nil || !live {
			return fault(err)
		}
		lines = strings.Count(text.String(), "\n")
	}
}

func look(ctx context.Context, client *apiClient) (doc clusterDoc, err error) {
	text, err := client.get(ctx, clusterPath+"?counters")
	if err != nil {
		return doc, err
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return doc, faultf("the server's answer is not what this version knows: %w", err)
	}
	return doc, nil
}

// topNode is what a node does. A node that tells no counters has Told false.
type topNode struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	State    string   `json:"state"`
	Leads    int      `json:"leads"`
	Holds    int      `json:"holds"`
	Told     bool     `json:"told"`
	Sessions int64    `json:"sessions"`
	Commands float64  `json:"commands_per_s"`
	Sends    float64  `json:"sends_per_s"`
	Writes   float64  `json:"writes_per_s"`
	SyncP99  *float64 `json:"sync_p99_ms"` // null: no sync, or one longer than is told apart
	RSS      int64    `json:"rss"`
}

// rates are what the nodes did between two looks. A process that started between them has none yet.
func rates(was, now clusterDoc) (list []topNode) {
	before := map[string]*countersDoc{}
	for _, n := range was.Nodes {
		before[n.ID] = n.Counters
	}
	for _, n := range now.Nodes {
		t := topNode{Name: n.Name, Role: n.Role, State: n.State, Leads: n.Leads, Holds: n.Holds, Told: n.Counters != nil}
		if c := n.Counters; c != nil {
			t.Sessions, t.RSS = c.Sessions, c.RSS
			if b := before[n.ID]; b != nil && c.At > b.At && c.Commands >= b.Commands && c.Writes >= b.Writes {
				s := float64(c.At-b.At) / 1000
				t.Commands, t.Sends, t.Writes = float64(c.Commands-b.Commands)/s, float64(c.Sends-b.Sends)/s, float64(c.Writes-b.Writes)/s
				t.SyncP99 = syncP99(b.Syncs, c.Syncs)
			}
		}
		list = append(list, t)
	}
	return list
}

// syncP99 is an upper bound, in ms; nil: there was no sync, or the bound is not known.
func syncP99(was, now []uint64) *float64 {
	if len(was) != len(now) || len(now) != len(durable.SyncBuckets)+1 {
		return nil
	}
	took := slices.Clone(now)
	total := uint64(0)
	for i := range took {
		took[i] -= min(was[i], took[i])
		total += took[i]
	}
	sum := uint64(0)
	for i, bound := range durable.SyncBuckets {
		if sum += took[i]; total > 0 && sum*100 >= total*99 {
			ms := bound * 1000
			return &ms
		}
	}
	return nil
}

func printTop(out io.Writer, was, now clusterDoc) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"node", "role", "state", "leads", "holds", "sessions", "commands/s", "sends/s", "writes/s", "sync p99", "RSS"})
	for _, n := range rates(was, now) {
		row := table.Row{n.Name, orNone(n.Role), n.State, n.Leads, n.Holds, "-", "-", "-", "-", "-", "-"}
		if n.Told {
			p99 := "-"
			if n.SyncP99 != nil {
				p99 = fmt.Sprintf("%.3g ms", *n.SyncP99)
			}
			row = append(row[:5], n.Sessions, int(n.Commands), int(n.Sends), int(n.Writes), p99, fmt.Sprintf("%d MiB", n.RSS>>20))
		}
		t.AppendRow(row)
	}
	t.Render()
	printShards(out, now, false)
}
