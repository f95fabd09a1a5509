//go:build linux

package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// nodeLaw is a law over the number of core nodes.
type nodeLaw struct {
	law
	says string
}

const (
	sizes = "core nodes"
	grown = "core nodes with the new one"
)

var nodeLaws = []nodeLaw{
	{law{name: "lookup", vary: sizes, cost: "times_the_cpu_of_one_process", most: 0.15, noise: 0.001}, "constant"},
	{law{name: "passivation", vary: sizes, cost: "times_the_cpu_of_one_process", most: 0.15, noise: 0.001}, "constant"},
	{law{name: "passivation, messages", vary: sizes, cost: "messages_per_user", most: 0.05, noise: 0.001}, "constant: no broadcast"},
	{law{name: "passivation, network", vary: sizes, cost: "bytes_per_user", most: 0.3, noise: 0.001}, "constant, but fewer messages share a frame when they go more ways"},
	{law{name: "gossip at rest", vary: sizes, cost: "bytes_per_node_s", most: 1, noise: 0.001}, "linear at most: each exchanges the list of all every 10 s"},
	{law{name: "streams at rest", vary: sizes, cost: "bytes_per_node_s", most: 1, noise: 0.001}, "linear at most: each pings all others"},
	{law{name: "join, replicas", vary: grown, cost: "replicas_moved", most: -0.85, noise: 0.001}, "1/n: the share of the new one"},
	{law{name: "join, network", vary: grown, cost: "raft_KB", most: -0.5, noise: 0.001}, "1/n, and what connections cost"},
	{law{name: "join, heard of", vary: grown, cost: "ms_until_all_see_it", most: 0.63, noise: 200}, "log n"},
	{law{name: "join, settled", vary: grown, cost: "s_until_balanced", most: 0.15, noise: 0.001}, "constant at most"},
	{law{name: "leader moves, known", vary: grown, cost: "ms_until_all_know", most: 0.15, noise: 100}, "constant"},
}

// growing is a cluster that is measured while it grows.
type growing struct {
	*processes
	f      *fleet
	one    *fleet // of a server that is one process: what the machine makes of the same work at the same time
	points map[string][]point
	also   map[string][]point // what stands beside the points of a law: CPU in µs
	rest   use                // a second of the cluster at its present size, with nothing to do
	idle   float64            // CPU in s that the one process takes for it
}

// use is what a cluster takes: in all, or in a second.
type use struct{ cpu, gossip, actor, raft float64 } // CPU in s, the others in bytes sent

// cluster measures how the costs of a cluster follow the number of its core nodes: processes on one core.
func (r *runner) cluster() error {
	if r.opt.URL != "" {
		return errors.New("cluster: it grows a cluster of its own; leave --url out")
	}
	counts, err := clusterSizes(r.opt.Cores)
	if err != nil {
		return err
	}
	p, err := r.startProcesses(counts[0], max(r.opt.Edges, 1))
	if err != nil {
		return err
	}
	defer p.stop()
	one, err := r.server()
	if err != nil {
		return err
	}
	defer one.stop()
	g := &growing{processes: p, points: map[string][]point{}, also: map[string][]point{}}
	for t, f := range map[*target]**fleet{p.target(): &g.f, one: &g.one} {
		if *f, err = newFleet(t, r.opt); err != nil {
			return err
		}
		defer (*f).e.close()
	}
	if err := g.run(counts); err != nil {
		return r.done(newResult("cluster", fmt.Sprintf("%d cores", len(p.cores))), err)
	}
	for _, l := range nodeLaws {
		res := newResult("cluster", l.name)
		res.Notes["vary"], res.Notes["cost"], res.Notes["law"] = l.vary, l.cost, l.says
		for _, p := range g.also[l.name] {
			res.set(fmt.Sprintf("server_cpu_us_at_%g", p.x), p.y)
		}
		if err := r.done(res, l.judge(res, g.points[l.name])); err != nil {
			return err
		}
	}
	return nil
}

// clusterSizes are the numbers of cores that are measured, the greatest given; 0: 9.
func clusterSizes(most int) ([]int, error) {
	if most == 0 {
		most = 9
	}
	if most < 3 || most > 15 {
		return nil, fmt.Errorf("--cores: %d; the laws are measured from 3 cores on, with 15 at most", most)
	}
	counts := slices.DeleteFunc([]int{3, 5, 9}, func(n int) bool { return n >= most })
	return append(counts, most), nil
}

func (g *growing) run(counts []int) error {
	if err := g.populate(); err != nil {
		return err
	}
	d := g.r.duration(10 * time.Second)
	for _, n := range counts {
		for len(g.cores) < n {
			if err := g.join(); err != nil {
				return fmt.Errorf("join of core %d: %w", len(g.cores), err)
			}
		}
		g.f.t = g.target()
		for _, measure := range []func(time.Duration) error{g.atRest, g.lookups, g.passivations} {
			if err := measure(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *growing) show(what string, done, all float64) {
	g.r.bar.Show(fmt.Sprintf("%d cores: %s", len(g.cores), what), done, all)
}

func (g *growing) put(law string, y float64) {
	g.points[law] = append(g.points[law], point{float64(len(g.cores)), y})
}

// What the shards hold before anything is measured: entries of 4 KB in outboxes, about 16 MB.
const (
	keepers     = 1000 // users
	keptEntries = 4
	keptBytes   = 4096
)

func (g *growing) populate() error {
	body := `"` + strings.Repeat("x", keptBytes) + `"`
	for round := range keptEntries {
		for from := 0; from < keepers; from += 100 {
			g.show("storing", float64(round*keepers+from), keptEntries*keepers)
			var users []string
			for i := range 100 {
				users = append(users, fmt.Sprintf(`"kept%d"`, from+i))
			}
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			answer, err := g.cores[0].ask("POST", "/v1/publish", fmt.Sprintf(`{"users":[%s],"client_id":%q,"body":%s}`, strings.Join(users, ","), id, body))
			if err != nil {
				return err
			}
			answer.Close()
		}
	}
	return nil
}

// used runs f and returns what the cluster used meanwhile, less what it uses at rest.
func (g *growing) used(f func() error) (u use, err error) {
	before, err := g.look()
	if err != nil {
		return u, err
	}
	begin, cpu := time.Now(), g.f.t.cpu()
	if err := f(); err != nil {
		return u, err
	}
	took := time.Since(begin).Seconds()
	u.cpu = (g.f.t.cpu() - cpu).Seconds() - took*g.rest.cpu
	after, err := g.look()
	if err != nil {
		return u, err
	}
	sent := after.sent().less(before.sent())
	u.gossip, u.actor, u.raft = sent.gossip-took*g.rest.gossip, sent.actor-took*g.rest.actor, sent.raft-took*g.rest.raft
	return u, g.r.ctx.Err()
}

// sent sums up what all processes sent.
func (doc clusterDoc) sent() (u use) {
	for _, n := range doc.Nodes {
		u.gossip += float64(n.Counters.Traffic.Gossip)
		u.actor += float64(n.Counters.Traffic.Actor)
		u.raft += float64(n.Counters.Traffic.Raft)
	}
	return u
}

func (u use) less(o use) use {
	return use{u.cpu - o.cpu, u.gossip - o.gossip, u.actor - o.actor, u.raft - o.raft}
}

// wait lets the generator answer pings for d.
func (g *growing) wait(what string, d time.Duration) error {
	for begin := time.Now(); time.Since(begin) < d; {
		g.f.e.idle(100 * time.Millisecond)
		g.show(what, time.Since(begin).Seconds(), d.Seconds())
	}
	return g.r.ctx.Err()
}

// atRest measures the cluster while nothing happens. The list of all goes round every 10 s.
func (g *growing) atRest(d time.Duration) error {
	if err := g.wait("calming down", d/2); err != nil {
		return err
	}
	g.rest = use{}
	took := max(2*d, 2*time.Second)
	one := g.one.t.cpu()
	u, err := g.used(func() error { return g.wait("at rest", took) })
	if err != nil {
		return err
	}
	g.idle = (g.one.t.cpu() - one).Seconds() / took.Seconds()
	s, nodes := took.Seconds(), float64(len(g.all()))
	g.rest = use{u.cpu / s, u.gossip / s, u.actor / s, u.raft / s}
	g.put("gossip at rest", g.rest.gossip/nodes)
	g.put("streams at rest", (g.rest.actor+g.rest.raft)/nodes)
	return nil
}

// beside keeps how many times the CPU of the one process the cluster takes for the same.
func (g *growing) beside(law string, cluster, one float64) {
	g.put(law, cluster/max(one, 1e-9))
	g.also[law] = append(g.also[law], point{float64(len(g.cores)), 1e6 * cluster})
}

// lookups asks for users who are away, one question at a time: edge, shard, node, gateway and back. A/B/B/A with the one
// process.
func (g *growing) lookups(d time.Duration) error {
	var cpu, asked [2]float64
	for i, which := range []int{0, 1, 1, 0} {
		f, rest := []*fleet{g.f, g.one}[which], []float64{g.rest.cpu, g.idle}[which]
		begin, was := time.Now(), f.t.cpu()
		n, err := g.askFor(f, d/4)
		if err != nil {
			return err
		}
		cpu[which] += (f.t.cpu() - was).Seconds() - time.Since(begin).Seconds()*rest
		asked[which] += float64(n)
		g.show("lookups", float64(i+1), 4)
	}
	g.beside("lookup", cpu[0]/asked[0], cpu[1]/asked[1])
	return nil
}

// askFor asks through a session that comes and goes, for d.
func (g *growing) askFor(f *fleet, d time.Duration) (asked int, err error) {
	answered := 0
	f.reply = func(*member) { answered++ }
	defer func() { f.reply = nil }()
	m, err := f.add(len(f.members), "d1")
	if err != nil {
		return 0, err
	}
	if err := f.connect([]*member{m}, 1, 10*time.Second, nil); err != nil {
		return 0, err
	}
	for begin := time.Now(); asked == 0 || time.Since(begin) < d; asked++ {
		f.e.send(&m.client, textFrame(`{"id":9,"query":{"users":["away%d"]}}`, asked))
		if !f.e.until(10*time.Second, func() bool { return answered > asked || len(f.failures) > 0 }) {
			return 0, fmt.Errorf("question %d was not answered in 10 s", asked+1)
		}
		if err := f.err(); err != nil {
			return 0, err
		}
	}
	return asked, f.bye([]*member{m}, 10*time.Second)
}

// passivations lets new users come and say goodbye, and waits until nothing of them is in memory; then the same with the
// one process.
func (g *growing) passivations(time.Duration) error {
	n := g.r.conns(8000)
	var messages float64
	u, err := g.used(func() (err error) {
		messages, err = g.comeAndPassivate(g.f, g.cores, n)
		return err
	})
	if err != nil {
		return err
	}
	begin, was := time.Now(), g.one.t.cpu()
	if _, err := g.comeAndPassivate(g.one, []*target{g.one.t}, n); err != nil {
		return err
	}
	one := (g.one.t.cpu() - was).Seconds() - time.Since(begin).Seconds()*g.idle
	g.beside("passivation", u.cpu/float64(n), one/float64(n))
	g.put("passivation, messages", messages/float64(n))
	g.put("passivation, network", (u.actor+u.raft)/float64(n))
	return nil
}

// comeAndPassivate returns how many messages cores and edges sent each other about n users.
func (g *growing) comeAndPassivate(f *fleet, cores []*target, n int) (messages float64, err error) {
	before, already, err := counted(cores)
	if err != nil {
		return 0, err
	}
	if err := g.r.comeAndGo(f, n); err != nil {
		return 0, err
	}
	for range 40 {
		if err := g.wait("passivation", time.Second); err != nil {
			return 0, err
		}
		passivated, messages, err := counted(cores)
		if err != nil || passivated-before >= float64(n) {
			return messages - already, err
		}
	}
	return 0, fmt.Errorf("not all of %d users who left are passivated after 40 s", n)
}

// counted sums up the passivations of cores, and the messages from and to edges.
func counted(cores []*target) (passivated, messages float64, err error) {
	for _, t := range cores {
		m, err := t.metrics()
		if err != nil {
			return 0, 0, err
		}
		passivated += m["muster_core_passivations_total"]
		messages += m["muster_core_messages_in_total"] + m["muster_core_messages_out_total"]
	}
	return passivated, messages, nil
}
