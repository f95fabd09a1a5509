package presence

// Names interns user ids for the rows of all gateways of a node: a watcher's id is
// stored once, whatever it watches. It is the only thing that gateways share, and as safe
// for concurrent use as its lock; no effect depends on the numbers it gives out.
type Names struct {
	mu    Locker
	ids   map[string]uint32
	names []interned
	free  []uint32
}

type interned struct {
	name string
	refs uint32
}

// Locker is the lock that gateways which run in parallel share: a *sync.Mutex.
type Locker interface {
	Lock()
	Unlock()
}

// NewNames returns an empty table.
func NewNames(lock Locker) *Names {
	return &Names{mu: lock, ids: map[string]uint32{}, names: make([]interned, 1)} // 0 is no id
}

// Intern returns the id of a name with one more reference.
func (n *Names) Intern(name string) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.ids[name]
	if !ok {
		if last := len(n.free) - 1; last >= 0 {
			id, n.free = n.free[last], n.free[:last]
		} else {
			id = uint32(len(n.names))
			n.names = append(n.names, interned{})
		}
		n.names[id].name = name
		n.ids[name] = id
	}
	n.names[id].refs++
	return id
}

// Find returns the id of a name, 0 if it has none, without a reference.
func (n *Names) Find(name string) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ids[name]
}

// Name returns the name of an id that has references.
func (n *Names) Name(id uint32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[id].name
}

// Release gives one reference back.
func (n *Names) Release(id uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &n.names[id]
	if e.refs--; e.refs == 0 {
		delete(n.ids, e.name)
		e.name = ""
		n.free = append(n.free, id)
	}
}

// Len is the number of names in use.
func (n *Names) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.ids)
}
