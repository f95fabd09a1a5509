package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
	"muster/persistence"
)

// inspection is what a data directory holds.
type inspection struct {
	Identity   persistence.Identity `json:"identity"`
	Groups     []groupState         `json:"groups"`
	Tombstones map[uint32]uint64    `json:"tombstones,omitempty"` // group → smallest replica id it may come back with
	Rows       []rowCount           `json:"rows"`
	User       *userRows            `json:"user,omitempty"`
}

type groupState struct {
	Group      uint32               `json:"group"` // 0 is meta, s+1 is shard s
	Replica    uint64               `json:"replica"`
	Term       uint64               `json:"term"`
	Vote       uint64               `json:"vote"`
	Commit     uint64               `json:"commit"`
	Applied    uint64               `json:"applied"`
	LogFirst   uint64               `json:"log_first"`
	LogLast    uint64               `json:"log_last"`
	At         int64                `json:"at"`
	Generation uint64               `json:"generation"`
	Hash       string               `json:"hash"`
	Members    []persistence.Member `json:"members"`
	Rows       int                  `json:"rows"`
	Bytes      int64                `json:"bytes"` // of keys and values
}

type rowCount struct {
	Kind  string `json:"kind"`
	Rows  int    `json:"rows"`
	Bytes int64  `json:"bytes"`
}

func inspectCommand() *cobra.Command {
	var dir, user, app string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect --data DIR",
		Short: "Read a data directory that no server uses: whose it is, its groups, its rows",
		Long: `Read a data directory that no server uses: whose it is, the Raft groups it holds and how many rows
of each kind. With --user also all rows of one user. Nothing is changed.`,
		Example: "  muster inspect --data /var/lib/muster\n  muster inspect --data /var/lib/muster --user alice --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return fmt.Errorf("--data: name the directory to read")
			}
			store, err := persistence.Inspect(dir, persistence.Options{})
			if err != nil {
				return storageFault(dir, err)
			}
			defer store.Close()
			in, err := inspect(store, app, user)
			if err != nil {
				return storageFault(dir, err)
			}
			if asJSON {
				return fault(json.NewEncoder(cmd.OutOrStdout()).Encode(in))
			}
			in.write(cmd.OutOrStdout(), time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "the data directory")
	cmd.Flags().StringVar(&user, "user", "", "also print all rows of this user")
	cmd.Flags().StringVar(&app, "app", defaultApp, "the application (tenant) of --user")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

const defaultApp = "default"

func inspect(store *persistence.Store, app, user string) (*inspection, error) {
	in := &inspection{Identity: store.Identity()}
	groups, err := store.Groups()
	if err != nil {
		return nil, err
	}
	if in.Tombstones, err = store.Tombstones(); err != nil {
		return nil, err
	}
	counts := map[string]*rowCount{}
	for _, g := range groups {
		state, err := inspectGroup(store, g, counts)
		if err != nil {
			return nil, err
		}
		in.Groups = append(in.Groups, state)
	}
	for _, c := range counts {
		in.Rows = append(in.Rows, *c)
	}
	slices.SortFunc(in.Rows, func(a, b rowCount) int { return strings.Compare(a.Kind, b.Kind) })
	if user != "" {
		in.User, err = inspectUser(store, app, user)
	}
	return in, err
}

func inspectGroup(store *persistence.Store, g uint32, counts map[string]*rowCount) (groupState, error) {
	hard, state, first, last, err := store.Load(g)
	if err != nil {
		return groupState{}, err
	}
	s := groupState{
		Group: g, Replica: state.Replica, Term: hard.GetTerm(), Vote: hard.GetVote(), Commit: hard.GetCommit(), Applied: state.Applied,
		LogFirst: first, LogLast: last, At: state.At, Generation: state.Generation, Hash: fmt.Sprintf("%016x", state.Hash), Members: state.Members,
	}
	err = store.Scan(g-1, nil, nil, func(key, value []byte) bool {
		kind := rowKind(key)
		if g == 0 {
			kind = metaName
		}
		c := counts[kind]
		if c == nil {
			c = &rowCount{Kind: kind}
			counts[kind] = c
		}
		size := int64(len(key) + len(value))
		c.Rows++
		c.Bytes += size
		s.Rows++
		s.Bytes += size
		return true
	})
	return s, err
}

// userRows are all rows of a user as the store has them.
type userRows struct {
	App   string    `json:"app"`
	User  string    `json:"user"`
	Shard uint32    `json:"shard"`
	Rows  []userRow `json:"rows"`
}

type userRow struct {
	Kind  string `json:"kind"`
	Bytes int    `json:"bytes"`
	Text  string `json:"text"` // the record in words
}

func inspectUser(store *persistence.Store, app, user string) (*userRows, error) {
	k := presence.Key{App: app, User: user}
	u := &userRows{App: app, User: user, Shard: link.ShardOf(app, link.KindUser, user)}
	_, state, _, _, err := store.Load(u.Shard + 1)
	if err != nil {
		return nil, err
	}
	all := row.User(k)
	err = store.Scan(u.Shard, all.From, all.To, func(key, value []byte) bool {
		u.Rows = append(u.Rows, userRow{Kind: rowKind(key), Bytes: len(key) + len(value), Text: rowText(k, state.Generation, key, value)})
		return true
	})
	if err != nil {
		return nil, err
	}
	_, online, err := store.Get(u.Shard, row.OnlineKey(k))
	if online {
		u.Rows = append(u.Rows, userRow{Kind: rowKind(row.OnlineKey(k)), Bytes: len(row.OnlineKey(k)), Text: "online when it was written"})
	}
	return u, err
}

// write prints the inspection as tables.
func (in *inspection) write(w io.Writer, now time.Time) {
	id := in.Identity
	fmt.Fprintf(w, "cluster %s\nnode    %s (id %d)\nstore   %s\nborn    %s\nformat  %d\n\n", id.Cluster, id.Name, id.Node, id.Store, instant(time.UnixMilli(id.BornAt), now), id.Format)
	t := newTable(w, "group", "replica", "term", "commit", "applied", "log", "generation", "time", "rows", "bytes")
	for _, g := range in.Groups {
		at := "never"
		if g.At > 0 {
			at = instant(time.UnixMilli(g.At), now)
		}
		t.AppendRow(table.Row{groupName(g.Group), fmt.Sprintf("%d of %d", g.Replica, len(g.Members)), g.Term, g.Commit, g.Applied,
			fmt.Sprintf("%d–%d", g.LogFirst, g.LogLast), g.Generation, at, g.Rows, g.Bytes})
	}
	t.Render()
	for group, id := range in.Tombstones {
		fmt.Fprintf(w, "group %d: replicas below %d are gone for good\n", group, id)
	}
	t = newTable(w, "kind", "rows", "bytes")
	for _, r := range in.Rows {
		t.AppendRow(table.Row{r.Kind, r.Rows, r.Bytes})
	}
	t.Render()
	if in.User == nil {
		return
	}
	fmt.Fprintf(w, "\n%s/%s, shard %d\n", in.User.App, in.User.User, in.User.Shard)
	for _, r := range in.User.Rows {
		fmt.Fprintf(w, "  %s (%d bytes)  %s\n", r.Kind, r.Bytes, r.Text)
	}
}

func newTable(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row(header))
	return t
}
