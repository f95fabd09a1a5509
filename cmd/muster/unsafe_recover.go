package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"muster/actors/link"
	"muster/cluster"
	"muster/persistence"
)

const metaName = "meta"

func unsafeRecoverCommand() *cobra.Command {
	var dir string
	var shards []string
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "unsafe-recover --data DIR {--shard N,… | --all} --yes",
		Short: "Make shards go on with the one replica in DIR, when a majority of their replicas is lost for good",
		Long: `Make shards go on with the one replica in DIR, when a majority of their replicas is lost for good. No server
may use DIR. What only the lost replicas had acknowledged is lost: outboxes get new epochs, so devices are told to fetch
their state again, and each shard keeps a record of it. The lost nodes must never be started again with their old
directories. Of several survivors, use the one that applied most of the shard (muster inspect says), and only that one.`,
		Example: "  muster unsafe-recover --data /var/lib/muster --all --yes\n  muster unsafe-recover --data /var/lib/muster --shard 12,40,meta --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return fmt.Errorf("--data: name the directory of the survivor")
			}
			groups, err := groupsOf(shards)
			switch {
			case err != nil:
				return err
			case all == (len(groups) > 0):
				return fmt.Errorf("name shards with --shard, or all that are in the directory with --all")
			case !yes:
				return fmt.Errorf("unsafe-recover loses what only the lost replicas had acknowledged, resets the outboxes of these shards, " +
					"and the lost nodes must never come back; say --yes if no majority of the replicas can be had any more")
			}
			return unsafeRecover(cmd.OutOrStdout(), dir, groups, time.Now())
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "the data directory of the survivor")
	cmd.Flags().StringSliceVar(&shards, "shard", nil, "shards by number, or meta for the group that knows the cluster's members")
	cmd.Flags().BoolVar(&all, "all", false, "all shards in the directory, and meta")
	cmd.Flags().BoolVar(&yes, "yes", false, "I know what is lost")
	return cmd
}

// groupsOf are the groups of shards as an operator writes them, in order.
func groupsOf(shards []string) (groups []uint32, err error) {
	for _, s := range shards {
		if s == metaName {
			groups = append(groups, 0)
			continue
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n >= link.Shards {
			return nil, fmt.Errorf("--shard %s: want a number from 0 to %d, or %s", s, link.Shards-1, metaName)
		}
		groups = append(groups, uint32(n)+1)
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// unsafeRecover recovers the given groups; without any: all that are there, but for those that need it not or cannot go on here.
func unsafeRecover(w io.Writer, dir string, groups []uint32, now time.Time) (err error) {
	store, err := openOffline(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fault(store.Close())) }()
	held, err := store.Groups()
	if err != nil {
		return storageFault(dir, err)
	}
	slices.Sort(held)
	for _, g := range groups {
		if !slices.Contains(held, g) {
			return faultf("data directory %s: there is no replica of %s in it; nothing was changed", dir, groupName(g))
		}
	}
	all := len(groups) == 0
	if all {
		groups = held
	}
	done := 0
	for _, g := range groups {
		switch err := recoverGroup(w, store, g, now); {
		case err == nil:
			done++
		case all && (errors.Is(err, cluster.ErrSole) || errors.Is(err, cluster.ErrEmpty)):
			fmt.Fprintf(w, "%s: left as it is: %v\n", groupName(g), err)
		default:
			return storageFault(dir, err)
		}
	}
	fmt.Fprintf(w, "%d of %d recovered; start the node with muster serve --data %s, and new nodes beside it\n", done, len(groups), dir)
	return nil
}

func recoverGroup(w io.Writer, store *persistence.Store, group uint32, now time.Time) error {
	r, err := cluster.Recover(store, group, now)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s: replica %d of %v goes on alone as replica %d: generation %d, term %d, applied up to %d",
		groupName(group), r.Was, r.Voters, r.Replica, r.Generation, r.Term, r.Applied)
	if r.Last > r.Applied {
		fmt.Fprintf(w, ", entries up to %d become valid", r.Last)
	}
	fmt.Fprintln(w)
	return nil
}

func groupName(group uint32) string {
	if group == 0 {
		return metaName
	}
	return fmt.Sprintf("shard %d", group-1)
}
