package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Why the leader of group 0 refused, or none was found.
var (
	ErrNotLeader  = errors.New("meta: this node does not lead group 0")
	ErrNoLeader   = errors.New("meta: no leader of group 0 was found")
	ErrNameInUse  = errors.New("meta: another live node has this name")
	ErrGone       = errors.New("meta: the node was removed from the cluster: it needs an empty data directory")
	ErrNoNode     = errors.New("meta: no such node")
	ErrAlive      = errors.New("meta: the node is alive: drain it instead")
	ErrBadRequest = errors.New("meta: not a valid request")
	ErrVersion    = errors.New("meta: the versions of the cluster and of this build are too far apart")
)

// refusals travel by their number. Only append.
var refusals = []error{nil, ErrNotLeader, ErrNoLeader, ErrNameInUse, ErrGone, ErrNoNode, ErrAlive, ErrBadRequest, ErrVersion}

// Method is one that Handle answers.
type Method struct {
	Name string
	Open bool // also for a node that does not belong yet
}

const (
	methodJoin   = "meta.join"   // Node → Joined; to the leader
	methodHold   = "meta.hold"   // node id → holding; to the leader
	methodView   = "meta.view"   // → View; to the leader
	methodDrain  = "meta.drain"  // drainRequest; to the leader
	methodRemove = "meta.remove" // name; to the leader
	methodReport = "meta.report" // told → Report; from the leader
	methodOrder  = "meta.order"  // ordered; from the leader
)

// Methods are all that Handle answers.
func Methods() []Method {
	return []Method{{methodJoin, true}, {methodHold, false}, {methodView, false}, {methodDrain, false},
		{methodRemove, false}, {methodReport, false}, {methodOrder, false}}
}

// answer is what comes back of every call, as JSON. Fields that are not known are ignored.
type answer struct {
	Code   int             `json:"code,omitempty"` // of refusals
	Error  string          `json:"error,omitempty"`
	Leader uint64          `json:"leader,omitempty"` // of group 0: a hint with ErrNotLeader
	Addr   string          `json:"addr,omitempty"`   // its Raft address
	Body   json.RawMessage `json:"body,omitempty"`
}

// refused is an answer's error.
type refused struct {
	of     error // one of refusals; nil: none of them
	text   string
	leader uint64
	addr   string
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.of }

func answered(body any, err error) []byte {
	var a answer
	if err == nil {
		a.Body, err = json.Marshal(body)
	}
	if err != nil {
		a.Error = err.Error()
		for i, known := range refusals {
			if i > 0 && errors.Is(err, known) {
				a.Code = i
			}
		}
		if r := (*refused)(nil); errors.As(err, &r) {
			a.Leader, a.Addr = r.leader, r.addr
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return b
}

// understand reads an answer into body.
func understand(b []byte, body any) error {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("meta: an answer: %w", err)
	}
	if a.Error != "" {
		r := &refused{text: a.Error, leader: a.Leader, addr: a.Addr}
		if a.Code > 0 && a.Code < len(refusals) {
			r.of = refusals[a.Code]
		}
		return r
	}
	if err := json.Unmarshal(a.Body, body); err != nil {
		return fmt.Errorf("meta: an answer: %w", err)
	}
	return nil
}

func request(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return nil
}

// Joined is the answer to Join.
type Joined struct {
	Cluster Cluster `json:"cluster"`
	Nodes   []Node  `json:"nodes"`
}

// Join asks cores at addrs, one after the other, to let a node belong to their cluster; they name their leader if they do not
// lead it. A node repeats it at each start: what is known of it is renewed.
//
// ErrNameInUse, ErrGone and ErrVersion are final; all else may be tried again.
func Join(ctx context.Context, call func(ctx context.Context, addr, method string, req []byte) ([]byte, error), addrs []string, self Node) (Joined, error) {
	req, err := json.Marshal(self)
	if err != nil {
		return Joined{}, err
	}
	last := ErrNoLeader
	seen := map[string]bool{}
	for queue := addrs; len(queue) > 0 && ctx.Err() == nil; {
		addr := queue[0]
		queue = queue[1:]
		if addr == "" || seen[addr] {
			continue
		}
		seen[addr] = true
		b, err := call(ctx, addr, methodJoin, req)
		if err != nil {
			last = err
			continue
		}
		var joined Joined
		if err = understand(b, &joined); err == nil {
			return joined, nil
		}
		last = err
		if errors.Is(err, ErrNameInUse) || errors.Is(err, ErrGone) || errors.Is(err, ErrVersion) {
			break
		}
		if r := (*refused)(nil); errors.As(err, &r) && r.addr != "" {
			queue = append([]string{r.addr}, queue...)
		}
	}
	return Joined{}, last
}

// View is the cluster as the leader of group 0 sees it.
type View struct {
	Cluster Cluster     `json:"cluster"`
	Leader  uint64      `json:"leader"` // of group 0: node
	Nodes   []Node      `json:"nodes"`  // by name
	Shards  []ShardView `json:"shards"` // group 0 first
}

// ShardView is a shard in a View.
type ShardView struct {
	Shard    int      `json:"shard"`  // -1: group 0
	Leader   uint64   `json:"leader"` // node; 0: unknown
	Term     uint64   `json:"term"`
	Voters   []uint64 `json:"voters"`   // nodes
	Learners []uint64 `json:"learners"` // nodes
	Lag      uint64   `json:"lag"`      // entries that the slowest voter lacks
	Move     *Move    `json:"move,omitempty"`
}

func (p *planner) whole(leader uint64) View {
	w := View{Cluster: p.Cluster, Leader: leader}
	for _, id := range p.ids {
		w.Nodes = append(w.Nodes, p.Nodes[id])
	}
	byName(w.Nodes)
	for i := range p.groups {
		v := &p.groups[i]
		sv := ShardView{Shard: i - 1, Leader: v.node, Voters: []uint64{}, Learners: []uint64{}, Move: v.g.Move}
		if v.leader != nil {
			sv.Term = v.leader.Open
		}
		for _, r := range v.g.Replicas {
			if !r.Voter {
				sv.Learners = append(sv.Learners, r.Node)
				continue
			}
			sv.Voters = append(sv.Voters, r.Node)
			if v.leader != nil {
				sv.Lag = max(sv.Lag, v.leader.Behind[r.ID])
			}
		}
		w.Shards = append(w.Shards, sv)
	}
	return w
}
