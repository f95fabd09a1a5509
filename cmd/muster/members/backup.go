package members

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"muster/cluster/stream"
)

const (
	backupMethod = "backup" // backupRequest; what was asked for comes as a stream of kindBackup, with the request's id
	replayMethod = "replay" // replayRequest

	kindBackup  byte = 'b'
	backupStart      = 10 * time.Second // until a core has begun to send
)

type backupRequest struct {
	ID     uint64   `json:"id"`
	Groups []uint32 `json:"groups"`
}

type replayRequest struct {
	Shard uint32 `json:"shard"`
	Seq   uint64 `json:"seq"`
}

// fetch is a backup that another core was asked for.
type fetch struct {
	body chan io.Reader
	done chan struct{}
	io.Reader
}

// Close lets the sender go.
func (f *fetch) Close() error {
	close(f.done)
	return nil
}

// handleOperator answers what cores ask each other on behalf of an operator.
func (n *Node) handleOperator() {
	n.raft.Handle(backupMethod, false, n.sendBackup)
	n.raft.Handle(replayMethod, false, func(ctx context.Context, _ stream.Peer, req []byte) ([]byte, error) {
		var r replayRequest
		if err := json.Unmarshal(req, &r); err != nil {
			return nil, err
		}
		return nil, n.cfg.Replay(ctx, r.Shard, r.Seq)
	})
}

func (n *Node) sendBackup(_ context.Context, from stream.Peer, req []byte) ([]byte, error) {
	var r backupRequest
	if err := json.Unmarshal(req, &r); err != nil {
		return nil, err
	}
	if len(r.Groups) == 0 || n.ctx.Err() != nil {
		return nil, errors.New("no groups, or the node stops")
	}
	n.running.Go(func() {
		body := writerTo(func(w io.Writer) error { return n.cfg.Backup(w, r.Groups) })
		if err := n.raft.Stream(n.ctx, from.Node, kindBackup, binary.BigEndian.AppendUint64(nil, r.ID), body); err != nil {
			n.log.Warn("a part of a backup was not sent", "to", from.Name, "error", err)
		}
	})
	return nil, nil
}

type writerTo func(io.Writer) error

func (f writerTo) WriteTo(w io.Writer) (int64, error) { return 0, f(w) }

// FetchBackup asks a core for a backup of some groups. The caller closes what it returns.
func (n *Node) FetchBackup(ctx context.Context, node uint64, groups []uint32) (io.ReadCloser, error) {
	f := &fetch{body: make(chan io.Reader), done: make(chan struct{})}
	r := backupRequest{ID: rand.Uint64(), Groups: groups}
	req, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.fetches[r.ID] = f
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.fetches, r.ID)
	}()
	start, cancel := context.WithTimeout(ctx, backupStart)
	defer cancel()
	_, err = n.raft.Call(start, node, backupMethod, req)
	if err == nil {
		select {
		case f.Reader = <-f.body:
			return f, nil
		case <-start.Done():
			err = start.Err()
		}
	}
	close(f.done)
	return nil, fmt.Errorf("a core that has %d of the shards does not send them: %w", len(groups), err)
}

// fetched hands a backup that arrives to who asked for it, and returns when it was read.
func (n *Node) fetched(_ stream.Peer, kind byte, header []byte, body io.Reader) error {
	if kind != kindBackup || len(header) != 8 {
		return fmt.Errorf("nobody takes streams of kind %d here", kind)
	}
	n.mu.Lock()
	f := n.fetches[binary.BigEndian.Uint64(header)]
	n.mu.Unlock()
	if f == nil {
		return errors.New("nobody waits for this backup")
	}
	select {
	case f.body <- body:
		<-f.done
		return nil
	case <-f.done:
		return errors.New("nobody waits for this backup any more")
	}
}

// Replay asks the leader of a shard to send its events after seq again.
func (n *Node) Replay(ctx context.Context, shard uint32, seq uint64) error {
	leader := n.agent.Leader(shard)
	if leader == 0 || leader == n.self.Node {
		return fmt.Errorf("%w: %d", errNoRoute, shard)
	}
	req, err := json.Marshal(replayRequest{shard, seq})
	if err == nil {
		_, err = n.raft.Call(ctx, leader, replayMethod, req)
	}
	return err
}
