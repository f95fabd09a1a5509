package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"muster/actors/link"
	"muster/cmd/muster/durable"
	"muster/cmd/muster/members"
	"muster/persistence"
)

const (
	clockSlack    = 2 * time.Second // by which the clock may be behind what was committed without a word
	readyPatience = 5 * time.Second // between two lines that say why the node is not ready
)

// storage is how the data directory is to be opened. create is nil to open only one that was used before.
func (s *server) storage(create *persistence.Identity) (durable.Config, error) {
	cache, err := parseBytes("cache", s.cfg.Cache)
	if err != nil {
		return durable.Config{}, err
	}
	ballast := int64(0) // the default
	if s.temporary {
		ballast = -1
	}
	return durable.Config{
		Dir: s.cfg.Data, Logger: s.log, Fatal: s.breaks,
		Store: persistence.Options{
			Create: create, Cluster: s.cfg.ClusterID, Cache: cache, Ballast: ballast, Logger: s.log, Fatal: s.breaks,
		},
	}, nil
}

// openStorage opens the data directory.
func (s *server) openStorage(create *persistence.Identity) error {
	cfg, err := s.storage(create)
	if err != nil {
		return err
	}
	if err := s.openDurable(cfg); err != nil {
		return err
	}
	id := s.durable.Store.Identity()
	s.log.Info("data directory open", "dir", cfg.Dir, "cluster", id.Cluster, "node_id", id.Node, "format", id.Format)
	if err := s.checkRecords(); err != nil {
		return err
	}
	return s.checkClock(time.Now())
}

// openNode opens the data directory, or makes one: for a node that meets others, with the identity
// that these give it.
func (s *server) openNode(ctx context.Context) (err error) {
	if !s.cfg.core() {
		return s.startMembers(nil)
	}
	if s.cfg.Data == "" {
		if s.cfg.Data, err = os.MkdirTemp("", "muster-dev-*"); err != nil {
			return faultf("data: cannot make a temporary directory: %w; name one with --data", rootCause(err))
		}
		s.temporary = true
	}
	defer func() {
		var code persistence.Code
		if errors.As(err, &code) {
			err = storageFault(s.cfg.Data, err)
		}
	}()
	if !s.cfg.clustered() {
		return s.openStorage(&persistence.Identity{Node: members.NewID(), Name: s.cfg.NodeName})
	}
	return s.openMember(ctx)
}

// openDurable opens the directory. A disk that fails meanwhile may leave the store's own
// goroutines waiting for each other: then this one goes on without them.
func (s *server) openDurable(cfg durable.Config) error {
	type opened struct {
		node *durable.Node
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		node, err := durable.Open(cfg)
		done <- opened{node, err}
	}()
	select {
	case o := <-done:
		s.durable = o.node
		return o.err
	case err := <-s.broken:
		return err
	}
}

// checkClock says so when the clock is behind what this node has committed. Shard time
// never goes back, so that nothing expires early or twice; it stands until the clock has caught up.
func (s *server) checkClock(now time.Time) error {
	latest, err := s.durable.Latest()
	if err != nil {
		return fault(err)
	}
	if behind := latest.Sub(now); behind > clockSlack {
		s.log.Warn("the clock of this machine is behind what this node has stored; time stands still in it until the clock has caught up: check the clock",
			"behind", behind.Round(time.Second), "clock", now.UTC().Format(time.RFC3339), "stored", latest.UTC().Format(time.RFC3339))
	}
	return nil
}

// breaks is told once that the disk cannot be trusted any more.
func (s *server) breaks(err error) {
	select {
	case s.broken <- err:
	default:
	}
}

// advice is what to do about what Open refuses.
var advice = map[persistence.Code]string{
	persistence.ErrLocked:   "stop the other process, or choose another directory with --data",
	persistence.ErrNewer:    "start the version that wrote it, or a newer one",
	persistence.ErrForeign:  "choose the right directory with --data, or leave out --cluster-id",
	persistence.ErrReadOnly: "make it writable for this user, or choose another directory with --data",
	persistence.ErrDiskFull: "make room on the disk and start again; nothing that was acknowledged is lost",
	persistence.ErrCorrupt:  "restore a backup into an empty directory; do not start on this one",
	persistence.ErrLost:     "restore a backup into an empty directory; do not start on this one",
}

// storageFault is the one line about a data directory that cannot be used.
func storageFault(dir string, err error) error {
	text := strings.TrimPrefix(err.Error(), "persistence: ")
	var code persistence.Code
	if errors.As(err, &code) && advice[code] != "" {
		return faultf("data directory %s: %s; %s", dir, text, advice[code])
	}
	return fault(fmt.Errorf("data directory %s: %s", dir, text))
}

func (s *server) removeTemporary() {
	if s.temporary {
		_ = os.RemoveAll(s.cfg.Data)
	}
}

// awaitReady waits until all shards are open and know who is there, and says now and
// then why not.
func (s *server) awaitReady(ctx context.Context) error {
	for {
		wait, cancel := context.WithTimeout(ctx, readyPatience)
		err := s.awaitOpen(wait)
		if err == nil {
			err = s.awaitSettled(wait)
		}
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("not ready yet", "why", strings.Join(append(s.storageNotReady(), err.Error()), "; "))
	}
}

// awaitOpen waits until all shards are open. A member of a cluster need not know who leads those it
// does not hold: awaitSettled finds out.
func (s *server) awaitOpen(ctx context.Context) error {
	if s.members != nil {
		return nil
	}
	return s.durable.Ready(ctx)
}

// storageNotReady says why not all shards are served.
func (s *server) storageNotReady() (why []string) {
	if s.durable != nil {
		why = s.durable.NotReady()
	}
	if s.members != nil {
		why = append(why, s.members.NotReady()...)
	}
	return why
}

// awaitSettled waits until each shard has heard from this node's edge: before that it
// answers for nobody whom it does not know. Without the edge it settles by itself in 3 s.
func (s *server) awaitSettled(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for shard := uint32(0); shard < link.Shards; {
		down, err := s.edge.Call(ctx, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: &link.Ask{App: defaultApp, What: &link.Ask_Counts{Counts: true}}}})
		if err == nil && down.GetAnswer().GetCode() == link.Code_OK {
			shard++
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("shard %d does not answer", shard)
		}
	}
	return nil
}
