package gossip

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// The times of failure detection; doc.go says what follows from them.
const (
	probeInterval    = 500 * time.Millisecond
	probeTimeout     = 200 * time.Millisecond
	gossipInterval   = 100 * time.Millisecond
	pushPullInterval = 10 * time.Second
	streamTimeout    = 5 * time.Second
	conflictCheck    = 5 * time.Second // logged when seen twice in a row
)

// Config is what Start needs.
type Config struct {
	Self        Member
	ClusterName string   // label on every packet, at most 255 bytes; others are not heard
	Bind        string   // IP address
	Port        int      // UDP and TCP; 0: any free one
	Advertise   string   // IP, IP:port, host or host:port that others reach this node at; "": Bind, which then must not be 0.0.0.0 or ::
	Keys        [][]byte // 16, 24 or 32 bytes each, the first encrypts, all decrypt; none: plain text
	Logger      *slog.Logger

	// Changed says that Members would answer otherwise than before. Changed and Dead are called one at a time by a goroutine
	// of Gossip; they may call its methods, except for Leave and Close, and should not block.
	Changed func()
	// Dead says that a process is no longer a member, because it left or because it is believed dead. After a partition it may be
	// alive again, and Changed says so.
	Dead func(m Member, left bool)

	Transport memberlist.Transport // nil: sockets on Bind and Port
}

// Gossip is a member of a cluster. Its methods may be called from any goroutine.
type Gossip struct {
	cfg  Config
	log  *limited
	ml   *memberlist.Memberlist
	ring *memberlist.Keyring // nil without keys

	mu       sync.Mutex
	table    *table
	leaving  bool
	departed []gone
	changed  bool

	traffic atomic.Uint64

	update sync.Mutex // serialises what Update and Leave tell memberlist
	wake   chan struct{}
	stop   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
}

// Start listens and makes this node the only member of its own view; Join or JoinLoop finds the others.
func Start(cfg Config) (*Gossip, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	g := &Gossip{cfg: cfg, log: newLimited(cfg.Logger), table: newTable(cfg.Self),
		wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if err := checkSelf(cfg.Self); err != nil {
		return nil, err
	}
	conf, err := g.memberlistConfig()
	if err != nil {
		return nil, err
	}
	if conf.Transport == nil {
		conf.Transport, err = g.listen(conf)
	}
	if err == nil {
		g.ml, err = memberlist.Create(conf)
	}
	if err != nil {
		if s, ok := conf.Transport.(sockets); ok {
			_ = s.Shutdown()
		}
		return nil, fmt.Errorf("gossip: listen on %s: %w", net.JoinHostPort(cfg.Bind, strconv.Itoa(cfg.Port)), err)
	}
	g.done.Go(g.run)
	return g, nil
}

// checkSelf leaves room in the metadata for what comes later: the cluster id and the goodbye.
func checkSelf(m Member) error {
	if err := m.check(); err != nil {
		return err
	}
	if len(m.Cluster) < maxCluster {
		m.Cluster = string(make([]byte, maxCluster))
	}
	m.Draining = true
	_, err := encodeMeta(&m, true)
	return err
}

func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	conf := memberlist.DefaultLANConfig()
	conf.Name = g.cfg.Self.memberName()
	conf.Label = g.cfg.ClusterName
	conf.Transport = g.cfg.Transport
	conf.ProbeInterval, conf.ProbeTimeout = probeInterval, probeTimeout
	conf.SuspicionMult, conf.SuspicionMaxTimeoutMult = 3, 2
	conf.AwarenessMaxMultiplier = 4
	conf.RetransmitMult = 6 // small clusters: four copies to random members can all miss the same one
	conf.GossipInterval, conf.PushPullInterval = gossipInterval, pushPullInterval
	conf.TCPTimeout = streamTimeout
	conf.Logger = log.New(memberlistLog{g.log}, "", 0)
	d := delegate{g}
	conf.Delegate, conf.Events, conf.Merge, conf.Alive, conf.Conflict = d, d, d, d, d
	if len(conf.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("gossip: a cluster name of %d bytes, at most %d", len(conf.Label), memberlist.LabelMaxSize)
	}
	if len(g.cfg.Keys) > 0 {
		ring, err := memberlist.NewKeyring(g.cfg.Keys, g.cfg.Keys[0])
		if err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
		g.ring, conf.Keyring = ring, ring
	}
	return conf, g.addresses(conf)
}

// addresses refuses what memberlist would read as "everywhere": an address that does not parse.
func (g *Gossip) addresses(conf *memberlist.Config) error {
	if g.cfg.Port < 0 || g.cfg.Port > 65535 {
		return fmt.Errorf("gossip: port %d", g.cfg.Port)
	}
	conf.BindAddr, conf.BindPort, conf.AdvertisePort = g.cfg.Bind, g.cfg.Port, g.cfg.Port
	if g.cfg.Transport != nil {
		return nil
	}
	bind := net.ParseIP(g.cfg.Bind)
	if bind == nil {
		return fmt.Errorf("gossip: bind address %q is not an IP address", g.cfg.Bind)
	}
	if g.cfg.Advertise == "" {
		if bind.IsUnspecified() {
			return fmt.Errorf("gossip: bound to %s, the address that others reach this node at must be given", bind)
		}
		return nil
	}
	host, port := g.cfg.Advertise, g.cfg.Port
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 || g.cfg.Port == 0 {
			return fmt.Errorf("gossip: advertised address %q, bound to port %d", g.cfg.Advertise, g.cfg.Port)
		}
		host, port = h, int(n)
	}
	ip := net.ParseIP(host)
	if ip == nil {
		ips, err := net.LookupIP(host)
		if err != nil || len(ips) == 0 {
			return fmt.Errorf("gossip: advertised address %q: %w", g.cfg.Advertise, err)
		}
		ip = ips[0]
	}
	if ip.IsUnspecified() {
		return fmt.Errorf("gossip: advertised address %s: nobody can reach it", ip)
	}
	conf.AdvertiseAddr, conf.AdvertisePort = ip.String(), port
	return nil
}

// Self describes this node as the others see it.
func (g *Gossip) Self() Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.self
}

// Members are those alive, this node included until it leaves, sorted by name.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.members()
}

// Status says what became of a process.
func (g *Gossip) Status(name string, incarnation uint64) Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.status(process{name, incarnation})
}

// Update changes what this node says of itself and spreads it. Node, Name, Incarnation and Gossip must stay.
// On an error nothing has changed.
func (g *Gossip) Update(change func(*Member)) error {
	g.update.Lock()
	defer g.update.Unlock()
	g.mu.Lock()
	old := g.table.self
	g.mu.Unlock()
	m := old
	change(&m)
	if m.Node != old.Node || m.process() != old.process() || m.Gossip != old.Gossip {
		return errors.New("gossip: a process keeps its node id, name, incarnation and address")
	}
	if m == old {
		return nil
	}
	if err := checkSelf(m); err != nil {
		return err
	}
	g.mu.Lock()
	if g.leaving {
		g.mu.Unlock()
		return errors.New("gossip: this node has left")
	}
	g.table.self = m
	g.mu.Unlock()
	// The error says only that the message has not been sent yet.
	_ = g.ml.UpdateNode(time.Nanosecond)
	return nil
}

// Leave tells the others that this process ends, waits at most timeout until that is on its way, and closes.
// It does not matter who hears it: the process is found dead otherwise.
func (g *Gossip) Leave(timeout time.Duration) {
	g.update.Lock()
	defer g.update.Unlock()
	g.mu.Lock()
	again := g.leaving
	g.leaving = true
	g.mu.Unlock()
	if !again && timeout > 0 && !g.closed() {
		// The flag in the metadata first: a death that memberlist spreads does not tell whether it was announced.
		start := time.Now()
		err := g.ml.UpdateNode(timeout)
		if err == nil {
			err = g.ml.Leave(max(timeout-time.Since(start), time.Millisecond))
		}
		if err != nil {
			g.log.say(slog.LevelInfo, "leave", "left before everybody was told", "error", err)
		}
	}
	g.Close()
}

// Close ends without a word: the others find out by their probes.
func (g *Gossip) Close() {
	g.once.Do(func() {
		close(g.stop)
		_ = g.ml.Shutdown() // the transport's error is in the log
		g.done.Wait()
	})
}

func (g *Gossip) closed() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

// refresh is called with mu held after every change of the table.
func (g *Gossip) refresh() {
	departed, changed := g.table.refresh(time.Now())
	g.departed = append(g.departed, departed...)
	g.changed = g.changed || changed
	if !changed {
		return
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// run calls back outside of all locks, memberlist's included.
func (g *Gossip) run() {
	ticker := time.NewTicker(conflictCheck)
	defer ticker.Stop()
	var before []conflict
	for {
		select {
		case <-g.stop:
			return
		case <-g.wake:
			g.callBack()
		case <-ticker.C:
			before = g.sayConflicts(before)
		}
	}
}

func (g *Gossip) callBack() {
	g.mu.Lock()
	departed, changed := g.departed, g.changed
	g.departed, g.changed = nil, false
	g.mu.Unlock()
	if g.cfg.Dead != nil {
		for _, d := range departed {
			g.cfg.Dead(d.Member, d.left)
		}
	}
	if changed && g.cfg.Changed != nil {
		g.cfg.Changed()
	}
}

func (g *Gossip) sayConflicts(before []conflict) []conflict {
	g.mu.Lock()
	now := g.table.conflicts()
	g.mu.Unlock()
	for _, c := range now {
		for _, b := range before {
			if b.a.process() == c.a.process() && b.b.process() == c.b.process() {
				g.log.say(slog.LevelError, "conflict "+c.a.Name, "two live nodes claim one name or one node id",
					"name", c.a.Name, "node", c.a.Node, "at", c.a.Gossip, "other_name", c.b.Name, "other_node", c.b.Node, "other_at", c.b.Gossip)
			}
		}
	}
	return now
}
