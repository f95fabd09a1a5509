package chaos

import (
	"fmt"
	"net"
	"strings"
)

type role string

const (
	core   role = "core"
	edge   role = "edge"
	both   role = "both"
	single role = "" // a plain server, alone
)

// ports of one node.
type ports struct{ listen, api, gossip, actor, raft int }

// fixedPorts are those of a node that has a namespace of its own.
var fixedPorts = ports{listen: 8000, api: 8001, gossip: 7946, actor: 7947, raft: 7948}

// place is where one node runs.
type place struct {
	name  string
	role  role
	ip    string
	ports ports
	ns    string // network namespace; "": this one
	data  string // directory of the store
}

func (p place) addr(port int) string { return net.JoinHostPort(p.ip, fmt.Sprint(port)) }
func (p place) listen() string       { return p.addr(p.ports.listen) }
func (p place) api() string          { return "http://" + p.addr(p.ports.api) }

// stores reports whether the node keeps data; fronts whether clients connect to it.
func (p place) stores() bool { return p.role != edge }
func (p place) fronts() bool { return p.role != core }

// topology is who there is.
type topology struct {
	places []place
	grow   bool // the first core gives birth, the others join it later
	grown  bool // they have
}

// layout names the nodes: c1…, e1…, b1…, or n1 for a plain server.
func layout(o Options) topology {
	if o.Cores+o.Both == 1 && o.Edges == 0 {
		return topology{places: []place{{name: "n1", role: single}}}
	}
	var t topology
	for _, kind := range []struct {
		role   role
		prefix string
		n      int
	}{{core, "c", o.Cores}, {both, "b", o.Both}, {edge, "e", o.Edges}} {
		for i := range kind.n {
			t.places = append(t.places, place{name: fmt.Sprint(kind.prefix, i+1), role: kind.role})
		}
	}
	return t
}

func (t topology) where(f func(place) bool) (names []string) {
	for _, p := range t.places {
		if f(p) {
			names = append(names, p.name)
		}
	}
	return names
}

func (t topology) cores() []string  { return t.where(place.stores) }
func (t topology) fronts() []string { return t.where(place.fronts) }
func (t topology) edges() []string  { return t.where(func(p place) bool { return p.role == edge }) }

func (t topology) place(name string) place {
	for _, p := range t.places {
		if p.name == name {
			return p
		}
	}
	panic("no node " + name)
}

// Keys of the servers that a campaign starts; they live no longer than it does.
const (
	tokenKey = "muster-chaos-signs-tokens-with-this-key"
	apiKey   = "muster-chaos-calls-the-api"
	secret   = "muster-chaos-joins-nodes-with-this-secret"
)

// raised are the limits that a single generator would hit first.
var raised = []string{
	"--conn-rate", "1000000", "--conn-burst", "1000000", "--user-rate", "1000000",
	"--admit-new", "1000000", "--admit-resume", "1000000",
}

// arguments of the process of a node. audit is its audit file.
func (t topology) arguments(p place, audit string, more []string) []string {
	args := []string{
		"serve", "--node-name", p.name, "--listen", p.listen(), "--api-listen", p.addr(p.ports.api),
		"--jwt-key", tokenKey, "--api-key", apiKey, "--default-audience", "last_seen=everyone,devices=everyone", "--log-level", "info",
	}
	if p.stores() {
		args = append(args, "--data", p.data, "--audit", audit)
	}
	args = append(args, raised...)
	if p.role == single {
		return append(args, more...)
	}
	args = append(args, "--role", string(p.role), "--bind", p.ip, "--advertise", p.ip, "--cluster-secret", secret,
		"--gossip-port", fmt.Sprint(p.ports.gossip), "--actor-port", fmt.Sprint(p.ports.actor), "--raft-port", fmt.Sprint(p.ports.raft))
	args = append(args, t.joining(p)...)
	return append(args, more...)
}

// joining is how a node finds the others.
func (t topology) joining(p place) []string {
	var seeds []string
	cores := t.cores()
	for _, name := range cores {
		seed := t.place(name)
		seeds = append(seeds, seed.addr(seed.ports.gossip))
	}
	switch {
	case t.grow && !t.grown && p.name == cores[0]:
		return nil
	case t.grow:
		return []string{"--join", strings.Join(seeds, ",")}
	case p.stores():
		return []string{"--join", strings.Join(seeds, ","), "--expect", fmt.Sprint(len(cores))}
	}
	return []string{"--join", strings.Join(seeds, ",")}
}
