package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"muster/clients/wire"
	"muster/persistence"
)

const backupPath = "/v1/backup"

// sendBackup answers GET /v1/backup. A backup that fails half-way ends the connection, so that it is never taken for
// a whole one.
func (s *server) sendBackup(w http.ResponseWriter, r *http.Request) {
	if s.durable == nil {
		refuse(w, wire.CodeNotAvailable, "an edge stores nothing: ask a core")
		return
	}
	save, err := s.planBackup(r.Context())
	if err != nil {
		refuse(w, wire.CodeNotReady, err.Error())
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/octet-stream")
	begin := time.Now()
	if err := save(w); err != nil {
		s.log.Warn("backup failed", "error", err)
		panic(http.ErrAbortHandler)
	}
	s.log.Info("backup sent", "took", time.Since(begin).Round(time.Millisecond))
}

// writeBackup writes groups that this node has.
func (s *server) writeBackup(w io.Writer, groups []uint32) error {
	_, err := s.durable.Store.Backup(w, groups...)
	return err
}

// planBackup says how to save all shards of the cluster: those that this node votes in from here, the others from their leaders.
func (s *server) planBackup(ctx context.Context) (save func(io.Writer) error, err error) {
	if s.members == nil {
		return func(w io.Writer) error { return s.writeBackup(w, nil) }, nil
	}
	soon, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	view, err := s.members.Meta().View(soon)
	if err != nil {
		return nil, err
	}
	self := s.durable.Store.Identity().Node
	at := map[uint64][]uint32{} // groups to take from each node
	var all []uint32
	for _, sh := range view.Shards {
		from, group := sh.Leader, uint32(sh.Shard+1)
		if slices.Contains(sh.Voters, self) {
			from = self
		}
		if from == 0 {
			return nil, fmt.Errorf("%s has no leader and is not on this node", groupName(group))
		}
		at[from], all = append(at[from], group), append(all, group)
	}
	return func(w io.Writer) error { return s.saveAll(ctx, w, all, at, self) }, nil
}

// saveAll joins what nodes have into one backup.
func (s *server) saveAll(ctx context.Context, w io.Writer, all []uint32, at map[uint64][]uint32, self uint64) error {
	var parts []func() (io.ReadCloser, error)
	if own := at[self]; len(own) > 0 {
		parts = append(parts, func() (io.ReadCloser, error) {
			r, to := io.Pipe()
			go func() { to.CloseWithError(s.writeBackup(to, own)) }()
			return r, nil
		})
	}
	for node, groups := range at {
		if node != self {
			parts = append(parts, func() (io.ReadCloser, error) { return s.members.FetchBackup(ctx, node, groups) })
		}
	}
	_, err := persistence.JoinBackups(w, all, parts...)
	return err
}

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Save all that is stored: from a running server, or from a directory with --data",
		Long: `Save all that is stored into a file (- is standard output), from a running server over its
HTTP API while it works, or, with --data, from a directory that no server uses. In a cluster
any core saves all shards, each as of one moment. A file that exists is not overwritten.`,
		Example: "  muster backup monday.backup --api http://127.0.0.1:8001 --api-key KEY\n  muster backup monday.backup --data /var/lib/muster",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			from := backupOverAPI
			if cmd.Flags().Changed("data") {
				from = backupOffline
			}
			return saveBackup(cmd, args[0], from)
		},
	}
	addAPIFlags(cmd)
	cmd.Flags().String("data", "", "a data directory that no server uses")
	return cmd
}

// saveBackup writes what from gives into a file that appears only when it is whole.
func saveBackup(cmd *cobra.Command, name string, from func(*cobra.Command, io.Writer) error) error {
	if name == "-" {
		return from(cmd, cmd.OutOrStdout())
	}
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s exists already; name another file", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".partial-*")
	if err != nil {
		return faultf("cannot write %s: %w", name, rootCause(err))
	}
	size, err := int64(0), from(cmd, f)
	if err == nil {
		if size, err = f.Seek(0, io.SeekCurrent); err == nil {
			err = f.Sync()
		}
		err = fault(err)
	}
	if closed := f.Close(); err == nil {
		err = fault(closed)
	}
	if err == nil {
		err = fault(os.Rename(f.Name(), name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %d bytes\n", name, size)
	return nil
}

func backupOverAPI(cmd *cobra.Command, w io.Writer) error {
	client, err := newAPIClient(cmd)
	if err != nil {
		return err
	}
	return client.stream(cmd.Context(), backupPath, w)
}

func backupOffline(cmd *cobra.Command, w io.Writer) error {
	dir, _ := cmd.Flags().GetString("data")
	store, err := openOffline(dir)
	if err != nil {
		return err
	}
	_, err = store.Backup(w)
	return fault(errors.Join(err, store.Close()))
}

// openOffline opens a directory that exists and that no server uses.
func openOffline(dir string) (*persistence.Store, error) {
	store, err := persistence.Open(dir, persistence.Options{Ballast: -1})
	if err != nil {
		return nil, storageFault(dir, err)
	}
	return store, nil
}
