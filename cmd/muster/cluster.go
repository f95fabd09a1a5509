package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/cluster/gossip"
	"muster/cluster/meta"
)

const clusterPath = "/v1/cluster"

// clusterDoc is what GET /v1/cluster answers; with ?counters also what each process counts.
type clusterDoc struct {
	Cluster string     `json:"cluster"`
	BornAt  int64      `json:"born_at"`        // Unix ms
	Meta    string     `json:"meta,omitempty"` // node that leads the meta group
	Records uint8      `json:"records"`        // version in which records are written
	Nodes   []nodeDoc  `json:"nodes"`          // by name
	Shards  []shardDoc `json:"shards"`         // by number
}

type nodeDoc struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Role    string `json:"role"` // core, edge, both; empty: gossip does not see it
	State   string `json:"state"`
	SinceAt int64  `json:"since_at,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Version string `json:"version,omitempty"`
	Address string `json:"address,omitempty"` // of its gossip
	Leads   int    `json:"leads"`             // shards
	Holds   int    `json:"holds"`             // voters
	Meta    bool   `json:"meta,omitempty"`    // it votes in the meta group

	Counters *countersDoc `json:"counters,omitempty"` // with ?counters, of nodes that tell
}

type shardDoc struct {
	Shard    int      `json:"shard"`
	Leader   string   `json:"leader,omitempty"`
	Term     uint64   `json:"term"`
	Voters   []string `json:"voters"`
	Learners []string `json:"learners"`
	Lag      uint64   `json:"lag"` // entries that the slowest voter lacks
	Moving   bool     `json:"moving,omitempty"`
}

func (s *server) sendCluster(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.durable == nil:
		refuse(w, wire.CodeNotAvailable, "an edge does not know: ask a core")
	case s.members == nil:
		s.answerCluster(w, r, s.aloneDoc())
	default:
		ctx, cancel := context.WithTimeout(r.Context(), orderTime)
		defer cancel()
		view, err := s.members.Meta().View(ctx)
		if err != nil {
			refuse(w, wire.CodeNotReady, err.Error())
			return
		}
		s.answerCluster(w, r, viewDoc(view, s.members.Members()))
	}
}

func (s *server) answerCluster(w http.ResponseWriter, r *http.Request, doc clusterDoc) {
	if r.URL.Query().Has("counters") {
		s.count(r.Context(), &doc)
	}
	answer(w, http.StatusOK, doc)
}

// aloneDoc is the cluster of one node.
func (s *server) aloneDoc() clusterDoc {
	id, name := s.durable.Store.Identity(), s.cfg.NodeName
	doc := clusterDoc{Cluster: id.Cluster, BornAt: id.BornAt, Meta: name, Records: uint8(s.writes.Load())}
	node := nodeDoc{ID: nodeID(id.Node), Name: name, Role: s.cfg.Role, State: "active", Version: versionString(), Holds: link.Shards}
	for shard := range uint32(link.Shards) {
		leader, term := s.engine().Leader(shard)
		d := shardDoc{Shard: int(shard), Term: term, Voters: []string{name}, Learners: []string{}}
		if leader == id.Node {
			d.Leader = name
			node.Leads++
		}
		doc.Shards = append(doc.Shards, d)
	}
	doc.Nodes = []nodeDoc{node}
	return doc
}

func nodeID(id uint64) string { return fmt.Sprintf("%016x", id) }

// viewDoc joins what the meta group knows of cores with what gossip sees.
func viewDoc(v meta.View, seen []gossip.Member) clusterDoc {
	doc := clusterDoc{Cluster: v.Cluster.ID, BornAt: v.Cluster.Born.UnixMilli(), Records: v.Cluster.Writes()}
	at, names := map[uint64]int{}, map[uint64]string{}
	for _, n := range v.Nodes {
		at[n.ID], names[n.ID] = len(doc.Nodes), n.Name
		doc.Nodes = append(doc.Nodes, nodeDoc{
			ID: nodeID(n.ID), Name: n.Name, State: n.State.String(), SinceAt: n.Since, Zone: n.Zone, Version: n.Version, Address: n.Gossip,
		})
	}
	for _, m := range seen {
		if i, ok := at[m.Node]; ok {
			doc.Nodes[i].Role = roleName(m.Role)
		} else if m.Role == gossip.Edge {
			doc.Nodes = append(doc.Nodes, nodeDoc{
				ID: nodeID(m.Node), Name: m.Name, Role: "edge", State: edgeWord(m), Zone: m.Zone, Version: m.Version, Address: m.Gossip,
			})
		}
	}
	doc.Meta = names[v.Leader]
	for _, sh := range v.Shards {
		if sh.Shard < 0 {
			for _, n := range sh.Voters {
				if i, ok := at[n]; ok {
					doc.Nodes[i].Meta = true
				}
			}
			continue
		}
		d := shardDoc{Shard: sh.Shard, Leader: names[sh.Leader], Term: sh.Term, Voters: []string{}, Learners: []string{}, Lag: sh.Lag, Moving: sh.Move != nil}
		for _, n := range sh.Voters {
			d.Voters = append(d.Voters, names[n])
			doc.Nodes[at[n]].Holds++
		}
		for _, n := range sh.Learners {
			d.Learners = append(d.Learners, names[n])
		}
		if i, ok := at[sh.Leader]; ok && sh.Leader != 0 {
			doc.Nodes[i].Leads++
		}
		doc.Shards = append(doc.Shards, d)
	}
	slices.SortFunc(doc.Nodes, func(a, b nodeDoc) int { return strings.Compare(a.Name, b.Name) })
	return doc
}

func edgeWord(m gossip.Member) string {
	if m.Draining {
		return "draining"
	}
	return "active"
}

func roleName(r gossip.Role) string {
	switch r {
	case gossip.Core:
		return "core"
	case gossip.Edge:
		return "edge"
	}
	return "both"
}

func clusterCommand() *cobra.Command {
	var asJSON, shards bool
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Show the nodes of the cluster and who holds and leads how many shards",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := newAPIClient(cmd)
			if err != nil {
				return err
			}
			text, err := client.get(cmd.Context(), clusterPath)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = cmd.OutOrStdout().Write(text)
				return fault(err)
			}
			var doc clusterDoc
			if err := json.Unmarshal(text, &doc); err != nil {
				return faultf("the server's answer is not what this version knows: %w", err)
			}
			printCluster(cmd.OutOrStdout(), doc, shards, time.Now())
			return nil
		},
	}
	addAPIFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the document as it came")
	cmd.Flags().BoolVar(&shards, "shards", false, "also list each shard")
	return cmd
}

func printCluster(out io.Writer, doc clusterDoc, shards bool, now time.Time) {
	fmt.Fprintf(out, "cluster %s, born %s, meta group led by %s, records of version %d\n\n",
		doc.Cluster, time.UnixMilli(doc.BornAt).UTC().Format(time.DateTime), orNone(doc.Meta), doc.Records)
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"node", "role", "state", "for", "zone", "leads", "holds", "address", "version"})
	for _, n := range doc.Nodes {
		since := ""
		if n.SinceAt > 0 {
			since = now.Sub(time.UnixMilli(n.SinceAt)).Round(time.Second).String()
		}
		t.AppendRow(table.Row{n.Name, orNone(n.Role), n.State, since, n.Zone, n.Leads, n.Holds, n.Address, n.Version})
	}
	t.Render()
	printShards(out, doc, shards)
}

// printShards lists all shards, or those with something to say.
func printShards(out io.Writer, doc clusterDoc, all bool) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"shard", "leader", "term", "voters", "learners", "lag", ""})
	unled, few, moving := 0, 0, 0
	for _, s := range doc.Shards {
		note := ""
		if s.Moving {
			moving++
			note = "moving"
		}
		if s.Leader == "" {
			unled++
			note = "no leader"
		}
		if len(s.Voters) < 3 {
			few++
		}
		if all || note != "" && len(doc.Shards) > 0 && t.Length() < 10 {
			t.AppendRow(table.Row{s.Shard, orNone(s.Leader), s.Term, strings.Join(s.Voters, " "), strings.Join(s.Learners, " "), s.Lag, note})
		}
	}
	fmt.Fprintf(out, "\n%d shards: %d without a leader, %d moving, %d with fewer than 3 voters\n", len(doc.Shards), unled, moving, few)
	if t.Length() > 0 {
		t.Render()
	}
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func drainCommand() *cobra.Command {
	var undo, reduce bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move all shards away from a node, so that it can be switched off for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := newAPIClient(cmd)
			if err != nil {
				return err
			}
			verb := "drain"
			if undo {
				verb = "undrain"
			} else if reduce {
				verb = "drain?reduce"
			}
			if err := client.post(cmd.Context(), "/v1/nodes/"+url.PathEscape(args[0])+"/"+verb); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ordered; `muster cluster` shows how far it is\n", args[0])
			return fault(err)
		},
	}
	addAPIFlags(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "end a drain")
	cmd.Flags().BoolVar(&reduce, "reduce", false, "even if shards then have fewer voters")
	return cmd
}

func removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Say that a node that is down is lost for good, so that its shards move at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := newAPIClient(cmd)
			if err != nil {
				return err
			}
			if err := client.post(cmd.Context(), "/v1/nodes/"+url.PathEscape(args[0])+"/remove"); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: removed; its shards move to others\n", args[0])
			return fault(err)
		},
	}
	addAPIFlags(cmd)
	return cmd
}
