package meta

import (
	"fmt"
	"slices"
	"time"

	"muster/persistence"
)

// Command changes the State.
type Command interface {
	Step
	apply(c *change) error
}

type (
	// Bear records a new cluster. Its ids of replicas and nodes are those on the disk.
	Bear struct {
		Cluster Cluster
		Nodes   []Node
		Groups  []Group
	}
	// Enter adds a node or learns of its new process. A node that is not alive loses its name to a new one.
	Enter struct{ Node Node }
	// Mark changes the state of a node.
	Mark struct {
		Node uint64
		To   NodeState
	}
	// Drain says whether a node is to be empty, even if that lowers the number of voters.
	Drain struct {
		Node          uint64
		Drain, Reduce bool
	}
	// Begin starts a move: new replicas on Nodes and the learners Promote become voters (or stay learners),
	// Remove leave.
	Begin struct {
		Group           uint32
		Nodes           []uint64
		Promote, Remove []uint64 // replica ids
		Learner         bool
	}
	// Cancel makes of the move in flight one that removes some of those it added.
	Cancel struct {
		Group  uint32
		Remove []uint64
	}
	// Adopt lists what a group's configuration says, and ends its move.
	Adopt struct {
		Group    uint32
		Term     uint64 // of the leader that reported it
		Voters   []uint64
		Learners []uint64
	}
	// Take lists what a group's leader has in the place of what was recorded: cluster.Recover made the group go on with one
	// survivor, or group 0 itself, which then lacks what only the lost ones had committed.
	Take struct {
		Group            uint32
		Term, Generation uint64 // of the leader that reported it
		Next             uint64 // above all ids that the group had
		Replicas         []Replica
	}
	// Latch says that the cluster has been whole once.
	Latch struct{}
	// Raise makes the next version of records the one that is written: from now on no build that does not know it is let in.
	Raise struct{ Records uint8 }
)

func (Bear) step()   {}
func (Enter) step()  {}
func (Mark) step()   {}
func (Drain) step()  {}
func (Begin) step()  {}
func (Cancel) step() {}
func (Adopt) step()  {}
func (Take) step()   {}
func (Latch) step()  {}
func (Raise) step()  {}

// change is a State that commands change, and what of it they did.
type change struct {
	State
	now     int64
	bear    bool
	cluster bool
	nodes   map[uint64]bool
	groups  map[uint32]bool
}

// Apply says what the State becomes and which ops make it so. The State itself stays.
func (s *State) Apply(cmd Command, now time.Time) (State, []persistence.Op, error) {
	c := change{State: s.Clone(), now: now.UnixMilli(), nodes: map[uint64]bool{}, groups: map[uint32]bool{}}
	if c.Nodes == nil {
		c.Nodes = map[uint64]Node{}
	}
	if err := cmd.apply(&c); err != nil {
		return State{}, nil, err
	}
	return c.State, c.ops(), nil
}

func (c *change) set(n Node) {
	c.Nodes[n.ID] = n
	c.nodes[n.ID] = true
}

func (c *change) node(id uint64) (Node, error) {
	n, ok := c.Nodes[id]
	if !ok {
		return n, fmt.Errorf("%w: %d", ErrNoNode, id)
	}
	return n, nil
}

func (c *change) group(id uint32) (*Group, error) {
	if int(id) >= len(c.Groups) {
		return nil, fmt.Errorf("%w: there is no group %d", ErrBadRequest, id)
	}
	c.groups[id] = true
	return &c.Groups[id], nil
}

func (cmd Bear) apply(c *change) error {
	if cmd.Cluster.ID == "" || cmd.Cluster.ID == c.Cluster.ID || len(cmd.Groups) != cmd.Cluster.Shards+1 {
		return fmt.Errorf("%w: cluster %q of %d shards cannot be born in %q", ErrBadRequest, cmd.Cluster.ID, cmd.Cluster.Shards, c.Cluster.ID)
	}
	cmd.Cluster.Records = max(cmd.Cluster.Records, c.Cluster.Records) // a backup has rows of it
	c.State = State{Cluster: cmd.Cluster, Nodes: map[uint64]Node{}, Groups: slices.Clone(cmd.Groups)}
	for _, n := range cmd.Nodes {
		n.Since = c.now
		c.set(n)
	}
	for i := range c.Groups {
		c.groups[uint32(i)] = true
	}
	c.bear, c.cluster = true, true
	return nil
}

func (cmd Enter) apply(c *change) error {
	n := cmd.Node
	if n.ID == 0 || n.Name == "" {
		return fmt.Errorf("%w: a node needs an id and a name", ErrBadRequest)
	}
	if err := n.Records.Check(c.Cluster.Writes()); err != nil {
		return fmt.Errorf("%w (node %s)", err, n.Name)
	}
	for _, o := range c.Nodes {
		if o.Name != n.Name || o.ID == n.ID || o.Superseded || o.State == Left {
			continue
		}
		if o.State != Down && o.State != Lost {
			return fmt.Errorf("%w: %s is node %d", ErrNameInUse, n.Name, o.ID)
		}
		o.State, o.Superseded, o.Since = Lost, true, c.now
		c.set(o)
	}
	old, known := c.Nodes[n.ID]
	if old.State == Left || old.Superseded {
		return fmt.Errorf("%w: %s is %v", ErrGone, n.Name, old.State)
	}
	n.State, n.Since, n.Drain, n.Reduce, n.Superseded = Joining, c.now, false, false, false
	if known {
		n.State, n.Since, n.Drain, n.Reduce = old.State, old.Since, old.Drain, old.Reduce
	}
	if n != old {
		c.set(n)
	}
	return nil
}

func (cmd Mark) apply(c *change) error {
	n, err := c.node(cmd.Node)
	if err != nil {
		return err
	}
	if n.State == Left || n.Superseded {
		return fmt.Errorf("%w: node %d", ErrGone, n.ID)
	}
	n.State, n.Since = cmd.To, c.now
	if n.State == Active && n.Drain {
		n.State = Draining
	}
	c.set(n)
	return nil
}

func (cmd Drain) apply(c *change) error {
	n, err := c.node(cmd.Node)
	if err != nil {
		return err
	}
	if n.State == Left {
		return fmt.Errorf("%w: node %d", ErrGone, n.ID)
	}
	n.Drain, n.Reduce = cmd.Drain, cmd.Drain && cmd.Reduce
	switch {
	case n.Drain && n.State == Active:
		n.State, n.Since = Draining, c.now
	case !n.Drain && n.State == Draining:
		n.State, n.Since = Active, c.now
	}
	c.set(n)
	return nil
}

func (cmd Begin) apply(c *change) error {
	g, err := c.group(cmd.Group)
	if err != nil {
		return err
	}
	if g.Move != nil {
		return fmt.Errorf("%w: group %d has a move in flight", ErrBadRequest, cmd.Group)
	}
	m := &Move{Add: slices.Clone(cmd.Promote), Remove: slices.Clone(cmd.Remove), Learner: cmd.Learner, Since: c.now}
	for _, id := range slices.Concat(cmd.Promote, cmd.Remove) {
		if r := g.find(id); r == nil || r.Voter && slices.Contains(cmd.Promote, id) {
			return fmt.Errorf("%w: group %d: replica %d", ErrBadRequest, cmd.Group, id)
		}
	}
	for _, node := range cmd.Nodes {
		if _, err := c.node(node); err != nil {
			return err
		}
		if g.on(node) != nil {
			return fmt.Errorf("%w: group %d has a replica on node %d", ErrBadRequest, cmd.Group, node)
		}
		g.Replicas = append(g.Replicas, Replica{ID: g.Next, Node: node})
		m.Add = append(m.Add, g.Next)
		g.Next++
	}
	g.Move = m
	return nil
}

func (cmd Cancel) apply(c *change) error {
	g, err := c.group(cmd.Group)
	if err != nil {
		return err
	}
	if g.Move == nil {
		return fmt.Errorf("%w: group %d has no move", ErrBadRequest, cmd.Group)
	}
	for _, id := range cmd.Remove {
		if !slices.Contains(g.Move.Add, id) {
			return fmt.Errorf("%w: group %d: the move does not add replica %d", ErrBadRequest, cmd.Group, id)
		}
	}
	g.Move = &Move{Remove: slices.Clone(cmd.Remove), Since: c.now}
	return nil
}

func (cmd Adopt) apply(c *change) error {
	g, err := c.group(cmd.Group)
	if err != nil {
		return err
	}
	if cmd.Term < g.Term {
		return fmt.Errorf("%w: group %d: term %d is over", ErrBadRequest, cmd.Group, cmd.Term)
	}
	var kept []Replica
	for _, r := range g.Replicas {
		r.Voter = slices.Contains(cmd.Voters, r.ID)
		if r.Voter || slices.Contains(cmd.Learners, r.ID) {
			kept = append(kept, r)
		}
	}
	for _, id := range cmd.Voters {
		if g.find(id) == nil {
			return fmt.Errorf("%w: group %d: voter %d was never listed", ErrBadRequest, cmd.Group, id)
		}
	}
	g.Replicas, g.Term, g.Move = kept, cmd.Term, nil
	return nil
}

func (cmd Take) apply(c *change) error {
	g, err := c.group(cmd.Group)
	if err != nil {
		return err
	}
	if cmd.Term < g.Term || cmd.Generation < g.Generation {
		return fmt.Errorf("%w: group %d: term %d of generation %d is over", ErrBadRequest, cmd.Group, cmd.Term, cmd.Generation)
	}
	*g = Group{Replicas: slices.Clone(cmd.Replicas), Next: max(g.Next, cmd.Next), Term: cmd.Term, Generation: cmd.Generation}
	if len(g.voters()) == 0 {
		return fmt.Errorf("%w: group %d without voters", ErrBadRequest, cmd.Group)
	}
	return nil
}

func (Latch) apply(c *change) error {
	c.Cluster.Whole, c.cluster = true, true
	return nil
}

func (cmd Raise) apply(c *change) error {
	if cmd.Records != c.Cluster.Writes()+1 {
		return fmt.Errorf("%w: records of version %d cannot follow %d", ErrBadRequest, cmd.Records, c.Cluster.Writes())
	}
	for _, n := range c.Nodes {
		if n.State != Left && n.State != Lost && n.Records.Newest() < cmd.Records {
			return fmt.Errorf("%w: node %s does not know records of version %d", ErrBadRequest, n.Name, cmd.Records)
		}
	}
	c.Cluster.Records, c.cluster = cmd.Records, true
	return nil
}
