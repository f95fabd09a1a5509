//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// processes is a cluster of children on loopback, with the ports, the secret and the mTLS of one across machines. Each
// has a data directory of its own, which goes with it.
type processes struct {
	r     *runner
	join  string // gossip addresses of the founders
	cores []*target
	edges []*target
}

const benchSecret = "a secret for the benchmark alone"

// startProcesses founds a cluster and waits until its cores lead the shards evenly.
func (r *runner) startProcesses(cores, edges int) (*processes, error) {
	p := &processes{r: r}
	ports := make([]int, cores)
	var join []string
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
		join = append(join, fmt.Sprintf("127.0.0.1:%d", ports[i]))
	}
	p.join = strings.Join(join, ",")
	err := p.found(ports, edges)
	if err == nil {
		err = p.balanced(time.Minute)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// found starts the first cores together, then the edges.
func (p *processes) found(ports []int, edges int) error {
	for _, port := range ports {
		flags := []string{"--join", p.join, "--expect", fmt.Sprint(len(ports))}
		if len(ports) == 1 {
			flags = nil // it is born alone
		}
		if err := p.launch("core", port, flags...); err != nil {
			return err
		}
	}
	for range edges {
		port, err := freePort()
		if err != nil {
			return err
		}
		if err := p.launch("edge", port, "--join", p.join); err != nil {
			return err
		}
	}
	for _, t := range p.all() {
		if err := t.await(time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// launch starts one more process of a role.
func (p *processes) launch(role string, gossip int, more ...string) error {
	list := &p.cores
	if role == "edge" {
		list = &p.edges
	}
	flags := append([]string{"--role", role, "--cluster-secret", benchSecret, "--gossip-port", fmt.Sprint(gossip)}, more...)
	for _, name := range []string{"--actor-port", "--raft-port"} {
		port, err := freePort()
		if err != nil {
			return err
		}
		flags = append(flags, name, fmt.Sprint(port))
	}
	t, err := launch(p.r.place, p.r.serveArgs(fmt.Sprintf("%s%d", role, len(*list)+1), flags...)...)
	if err == nil {
		*list = append(*list, t)
	}
	return err
}

func (p *processes) all() []*target { return append(append([]*target{}, p.cores...), p.edges...) }

// target is the whole cluster as clients see it: through its edges.
func (p *processes) target() *target {
	t := *p.edges[0]
	t.more = append(append([]*target{}, p.edges[1:]...), p.cores...)
	t.edges = nil
	for _, e := range p.edges {
		t.edges = append(t.edges, e.addr)
	}
	return &t
}

// cpu of some of the processes.
func cpuOf(list []*target) (sum time.Duration) {
	for _, t := range list {
		d, _ := cpuTime(t.pid)
		sum += d
	}
	return sum
}

func (p *processes) stop() {
	all := p.all()
	if len(all) == 0 {
		return
	}
	t := *all[0]
	t.more = all[1:]
	_ = t.stop()
}

// clusterDoc is what is read here of GET /v1/cluster.
type clusterDoc struct {
	Nodes []struct {
		Name, Role, State string
		Leads             int
		Counters          *nodeCounters // nil: not asked, or it did not answer
	}
	Shards []struct {
		Shard  int
		Leader string
		Voters []string
		Moving bool
	}
}

// nodeCounters is what is read here of what each process counts.
type nodeCounters struct {
	Members int                                  // other processes that its gossip sees
	Routed  int                                  // shards whose leader it knows
	Terms   uint64                               // sum of their terms
	Traffic struct{ Gossip, Actor, Raft uint64 } // bytes it sent
}

// doc is the cluster as its first core sees it.
func (p *processes) doc() (doc clusterDoc, err error) { return p.ask("/v1/cluster") }

// look is doc with the counters of all processes.
func (p *processes) look() (doc clusterDoc, err error) {
	doc, err = p.ask("/v1/cluster?counters")
	if err == nil {
		err = doc.silent("")
	}
	return doc, err
}

// silent names a process that told no counters, other than the one named.
func (doc clusterDoc) silent(except string) error {
	for _, n := range doc.Nodes {
		if n.Counters == nil && n.Name != except {
			return fmt.Errorf("%s does not tell its counters", n.Name)
		}
	}
	return nil
}

func (p *processes) ask(path string) (doc clusterDoc, err error) {
	body, err := p.cores[0].get(path)
	if err != nil {
		return doc, err
	}
	defer body.Close()
	return doc, json.NewDecoder(body).Decode(&doc)
}

// balanced waits until all cores are active, hold the shards three times where there are three cores, and lead them evenly.
func (p *processes) balanced(limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; {
		doc, err := p.doc()
		if err == nil {
			err = doc.uneven(len(p.cores))
		}
		if err == nil || p.r.ctx.Err() != nil {
			return p.r.ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cluster of %d cores is not balanced after %v: %w", len(p.cores), limit, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// uneven says what n cores lack.
func (doc clusterDoc) uneven(n int) error {
	active, fair := 0, len(doc.Shards)/n
	for _, d := range doc.Nodes {
		if d.Role != "core" || d.State != "active" {
			continue
		}
		active++
		if d.Leads < fair*3/4 || d.Leads > fair*5/4+1 {
			return fmt.Errorf("%s leads %d of %d shards", d.Name, d.Leads, len(doc.Shards))
		}
	}
	if active != n || len(doc.Shards) == 0 {
		return fmt.Errorf("%d cores are active, %d shards known", active, len(doc.Shards))
	}
	voters := 1
	if n >= 3 {
		voters = 3
	}
	for _, s := range doc.Shards {
		if s.Leader == "" || s.Moving || len(s.Voters) != voters {
			return fmt.Errorf("shard %d: leader %q, %d voters, moving %v", s.Shard, s.Leader, len(s.Voters), s.Moving)
		}
	}
	return nil
}

// freePort is a port for TCP and UDP below those that systems give to whoever asks for any.
func freePort() (int, error) {
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		u, err := net.ListenPacket("udp4", addr)
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp4", addr)
		u.Close()
		if err == nil {
			ln.Close()
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port between 10000 and 30000")
}
