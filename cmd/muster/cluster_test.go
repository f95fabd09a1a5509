package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	sdk "muster/clients/go"
	"muster/clients/wire"
	"muster/cmd/muster/durable"
)

// clusterPatience is for what a cluster of processes does on a busy machine.
const clusterPatience = 3 * time.Minute

// fleet is a cluster of processes on loopback.
type fleet struct {
	t     *testing.T
	join  string
	nodes map[string]*peer
}

// peer is one of them, over its restarts.
type peer struct {
	*process
	name, url, api string
	gossip         string
	args           []string
}

func newFleet(t *testing.T, cores ...string) *fleet {
	f := &fleet{t: t, nodes: map[string]*peer{}}
	var join []string
	for _, name := range cores {
		join = append(join, f.add(name, "--data", t.TempDir(), "--expect", fmt.Sprint(len(cores))).gossip)
	}
	f.join = strings.Join(join, ",")
	return f
}

// add picks the ports of a node.
func (f *fleet) add(name string, more ...string) *peer {
	port := func() string { return freePort(f.t) }
	listen, api, gossip := "127.0.0.1:"+port(), "127.0.0.1:"+port(), port()
	m := &peer{name: name, url: "ws://" + listen + "/v1/ws", api: "http://" + api, gossip: "127.0.0.1:" + gossip}
	m.args = append([]string{"serve", "--dev", "--listen", listen, "--api-listen", api, "--node-name", name, "--gossip-port", gossip, "--actor-port", port(),
		"--raft-port", port(), "--cluster-secret", "a secret for the test alone", "--drain-window", "1s", "--admit-new", "100000", "--conn-rate", "100000", "--conn-burst", "100000", "--log-level", "warn"}, more...)
	f.nodes[name] = m
	return m
}

// freePort is a port for TCP and UDP below those that systems give to whoever asks for any.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(10000 + rand.IntN(20000))
		u, err := net.ListenPacket("udp4", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp4", "127.0.0.1:"+port)
		u.Close()
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

func (f *fleet) start(m *peer) {
	f.startAs(m)
}

// startAs starts a node with further settings.
func (f *fleet) startAs(m *peer, more ...string) {
	m.process = spawn(f.t, slices.Concat(m.args, []string{"--join", f.join}, more)...)
	m.patience = clusterPatience
}

// A process that cannot serve yet takes no connections, so that whoever balances sends them elsewhere.
func TestPortsOpenLate(t *testing.T) {
	f := newFleet(t, "n1", "n2")
	n1 := f.nodes["n1"]
	f.startAs(n1, "--log-level", "info")
	n1.line("birth: waiting")
	for _, url := range []string{n1.url, n1.api} {
		addr := strings.TrimSuffix(url[strings.LastIndex(url, "//")+2:], "/v1/ws")
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s is open although the node cannot answer", url)
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	}
	f.start(f.nodes["n2"])
	n1.line("ready listen=")
}

// eventually waits until lacks says nothing.
func (f *fleet) eventually(what string, lacks func() string) {
	f.t.Helper()
	over := time.After(clusterPatience)
	for {
		why := lacks()
		if why == "" {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-over:
			for _, m := range f.nodes {
				m.mu.Lock()
				f.t.Logf("%s: %q", m.name, m.lines)
				m.mu.Unlock()
			}
			f.t.Fatalf("not in time: %s: %s", what, why)
		}
	}
}

// call the HTTP API of a node; body "" is a GET, "-" a POST of nothing.
func (f *fleet) call(m *peer, key, path, body string) (status int, answer string) {
	method := http.MethodPost
	switch body {
	case "":
		method = http.MethodGet
	case "-":
		body = ""
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, m.api+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (f *fleet) doc(m *peer) (doc clusterDoc, err error) {
	status, text := f.call(m, devSecret, clusterPath, "")
	if status != http.StatusOK {
		return doc, fmt.Errorf("%d %s", status, text)
	}
	return doc, json.Unmarshal([]byte(text), &doc)
}

// even says what a cluster of n active cores lacks to hold all shards threefold and to lead them evenly.
func (f *fleet) even(m *peer, n int) string {
	doc, err := f.doc(m)
	if err != nil {
		return err.Error()
	}
	cores := 0
	for _, d := range doc.Nodes {
		if d.Role == "edge" || d.State != "active" {
			continue
		}
		cores++
		if fair := len(doc.Shards) / n; d.Leads < fair*3/4 || d.Leads > fair*5/4+1 {
			return fmt.Sprintf("%s leads %d of %d", d.Name, d.Leads, len(doc.Shards))
		}
	}
	if cores != n || len(doc.Shards) != 64 {
		return fmt.Sprintf("%d cores, %d shards", cores, len(doc.Shards))
	}
	for _, s := range doc.Shards {
		if len(s.Voters) != 3 || s.Leader == "" || s.Moving {
			return fmt.Sprintf("shard %+v", s)
		}
	}
	return ""
}

// publish stores one message for each of 100 users, which are in most shards, through a node.
func (f *fleet) publish(m *peer, what string) {
	f.t.Helper()
	var users []string
	for i := range 100 {
		users = append(users, fmt.Sprintf("%q", fmt.Sprint("u", i)))
	}
	pending := strings.Join(users, ",")
	id := uuid.Must(uuid.NewV7()).String()
	f.eventually("publish "+what+" through "+m.name, func() string {
		status, text := f.call(m, devSecret, "/v1/publish", fmt.Sprintf(`{"users":[%s],"client_id":%q,"body":%q}`, pending, id, what))
		if status != http.StatusOK {
			return fmt.Sprint(status, " ", text)
		}
		var answer struct{ Results []publishResult }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Results) != 100 {
			return fmt.Sprintf("%v in %.300s", err, text)
		}
		for _, r := range answer.Results {
			if r.Error != nil {
				return fmt.Sprintf("%+v", *r.Error)
			}
		}
		return ""
	})
}

// reader reads the outbox of a user through a node.
func (f *fleet) reader(m *peer, user string) (read func(want string)) {
	client, err := sdk.Dial(f.t.Context(), m.url, sdk.Options{
		Token: tokenFor(f.t, user), DeviceID: "reader-" + m.name, Outbox: new(sdk.MemoryPosition), Wait: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(client.Close)
	return func(want string) {
		f.t.Helper()
		ctx, cancel := context.WithTimeout(f.t.Context(), clusterPatience)
		defer cancel()
		for d := range client.Outbox().Deliveries(ctx) {
			if d.Entry == nil {
				f.t.Fatalf("%+v", d)
			}
			if string(d.Entry.Body) == fmt.Sprintf("%q", want) {
				return
			}
		}
		f.t.Fatalf("%q was not read through %s", want, m.name)
	}
}

// crowd are users at one node and somebody at another who watches them.
type crowd struct {
	f       *fleet
	users   []string
	devices []*device
	watcher *device
	said    int
}

func (f *fleet) crowd(at, watched *peer, name string) *crowd {
	f.t.Helper()
	c := &crowd{f: f}
	for i := range 12 {
		c.users = append(c.users, fmt.Sprint(name, i))
	}
	for _, u := range c.users {
		c.devices = append(c.devices, connectAt(f.t, at.url, u, "d", "web"))
	}
	list, _ := json.Marshal(c.users)
	c.watcher = connectAt(f.t, watched.url, name+"-watcher", "w", "web", `"watch":`+string(list))
	c.live()
	return c
}

// live waits until the watcher sees what each user says now.
func (c *crowd) live() {
	c.f.t.Helper()
	c.said++
	text := fmt.Sprint("said ", c.said)
	for _, d := range c.devices {
		d.send(fmt.Sprintf(`{"id":%d,"status":{"state":"busy","text":%q}}`, 10+c.said, text))
	}
	c.watcher.within(clusterPatience, text, func() bool {
		saw := map[string]bool{}
		for _, v := range c.watcher.views {
			if v.Text == text {
				saw[v.User] = true
			}
		}
		return len(saw) == len(c.users)
	})
}

// steady fails if the watcher has seen a user offline since it saw it first.
func (c *crowd) steady() {
	c.f.t.Helper()
	c.watcher.mu.Lock()
	defer c.watcher.mu.Unlock()
	if c.watcher.closed != nil {
		c.f.t.Error("the watcher's socket:", c.watcher.closed)
	}
	on := map[string]bool{}
	for _, v := range c.watcher.views {
		if v.State == "offline" && on[v.User] {
			c.f.t.Errorf("%s was seen %s", v.User, v)
		}
		on[v.User] = on[v.User] || v.State != "offline"
	}
}

// move connects the users again elsewhere, as the server told them.
func (c *crowd) move(to *peer) {
	c.f.t.Helper()
	for i, u := range c.users {
		old := c.devices[i]
		old.within(clusterPatience, "word to go elsewhere", func() bool {
			return old.closed != nil || slices.ContainsFunc(old.replies, func(r reply) bool { return r.Push != nil && (r.Push.Reconnect != nil || r.Push.Disconnect != nil) })
		})
		old.drop()
		c.devices[i] = connectAt(c.f.t, to.url, u, "d", "web", fmt.Sprintf(`"session_id":%q`, old.session))
	}
}

// Three empty nodes become one cluster; it loses one in each way there is, and gets it back.
func TestClusterOfProcesses(t *testing.T) {
	f := newFleet(t, "n1", "n2", "n3")
	n1, n2, n3 := f.nodes["n1"], f.nodes["n2"], f.nodes["n3"]
	order := []*peer{n1, n2, n3}
	rand.Shuffle(3, func(i, k int) { order[i], order[k] = order[k], order[i] })
	for _, m := range order {
		f.start(m)
	}
	for _, m := range order {
		m.line("ready listen=")
	}
	f.eventually("an even cluster", func() string { return f.even(n1, 3) })
	first, err := f.doc(n1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range order {
		if doc, err := f.doc(m); err != nil || doc.Cluster != first.Cluster || len(doc.Nodes) != 3 {
			t.Errorf("%s knows %+v, %v", m.name, doc, err)
		}
	}

	read := f.reader(n2, "u7")
	f.publish(n1, "first")
	read("first")
	steady := f.crowd(n1, n2, "ann")

	f.operator(t)
	f.edgeApart(t)

	if err := n3.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-n3.ended
	f.publish(n1, "after a kill")
	read("after a kill")
	steady.live()
	steady.steady()
	f.start(n3)
	n3.line("ready listen=")
	f.eventually("n3 leads again", func() string { return f.even(n2, 3) })

	moving := f.crowd(n3, n1, "bob")
	n3.signal(syscall.SIGTERM)
	moving.move(n1)
	if code := n3.exit(); code != 0 {
		t.Errorf("exit code %d: %q", code, n3.lines)
	}
	f.publish(n1, "after a stop")
	read("after a stop")
	for _, c := range []*crowd{steady, moving} {
		c.live()
		c.steady()
	}
	f.start(n3)
	n3.line("ready listen=")
	f.eventually("n3 is back", func() string { return f.state("n3", "active") })
	f.publish(n3, "at last")
	read("at last")
	if last, err := f.doc(n3); err != nil || last.Cluster != first.Cluster || last.BornAt != first.BornAt {
		t.Errorf("%s born %d became %s born %d: %v", first.Cluster, first.BornAt, last.Cluster, last.BornAt, err)
	}
}

// unequal says which groups have no three replicas with one hash at one applied index.
func (f *fleet) unequal() string {
	same := map[string]int{}
	for _, name := range []string{"n1", "n2", "n3"} {
		var doc replicasDoc
		if status, text := f.call(f.nodes[name], devSecret, replicasPath, ""); status != 200 || json.Unmarshal([]byte(text), &doc) != nil || doc.Node != name {
			return fmt.Sprintf("%s: %d %s", name, status, text)
		}
		for _, r := range doc.Replicas {
			same[fmt.Sprintf("group %d of %v after %d: %s", r.Group, r.Voters, r.Applied, r.Hash)]++
		}
	}
	if len(same) == 65 && !slices.ContainsFunc(slices.Collect(maps.Values(same)), func(n int) bool { return n != 3 }) {
		return ""
	}
	return fmt.Sprintf("%d kinds of replicas: %v", len(same), same)
}

// operator asks and orders over the API and with commands.
func (f *fleet) operator(t *testing.T) {
	n1 := f.nodes["n1"]
	for _, c := range []struct {
		key, path, body string
		status          int
		text            string
	}{
		{"wrong", clusterPath, "", 401, "UNAUTHORIZED"},
		{"wrong", replicasPath, "", 401, "UNAUTHORIZED"},
		{devSecret, replicasPath + "?shard=64", "", 400, "0 to 63"},
		{"wrong", "/v1/nodes/n2/drain", "-", 401, "UNAUTHORIZED"},
		{devSecret, "/v1/nodes/nobody/drain", "-", 404, "nobody"},
		{devSecret, "/v1/nodes/nobody/undrain", "-", 404, "nobody"},
		{devSecret, "/v1/nodes/nobody/remove", "-", 404, "nobody"},
		{devSecret, "/v1/nodes/n2/remove", "-", 409, "n2"},
		{devSecret, "/v1/nodes/n2/drain", "", 404, "METHOD_NOT_FOUND"},
	} {
		if status, text := f.call(n1, c.key, c.path, c.body); status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s: %d %s, want %d and %q", c.path, status, text, c.status, c.text)
		}
	}

	f.eventually("three equal replicas of each group", f.unequal)

	out, err := command("cluster", "--api", n1.api, "--shards")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cluster ", "meta group led by n", "n1", "n2", "n3", "both", "active", "64 shards: 0 without a leader", "0 with fewer than 3 voters", "│    63 │"} {
		if !strings.Contains(out, want) {
			t.Errorf("`muster cluster` lacks %q:\n%s", want, out)
		}
	}
	out, err = command("cluster", "--api", n1.api, "--json")
	var doc map[string]any
	if err != nil || json.Unmarshal([]byte(out), &doc) != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, want := range []string{"cluster", "born_at", "meta", "nodes", "shards"} {
		if doc[want] == nil {
			t.Errorf("--json lacks %q", want)
		}
	}

	f.top(n1, "n1", "n2", "n3")

	if _, err := command("drain", "nobody", "--api", n1.api); exitCode(err) != 1 || !strings.Contains(err.Error(), "UNKNOWN_TARGET") {
		t.Errorf("drain of a node that does not exist: %v", err)
	}
	lead := ""
	f.eventually("a leader of the meta group", func() string {
		doc, err := f.doc(n1)
		if lead = doc.Meta; lead == "" {
			return fmt.Sprint("none: ", err)
		}
		return ""
	})
	f.order("drain", lead)
	f.eventually(lead+" is drained", func() string { return f.state(lead, "draining") })
	f.order("drain", lead, "--undo")
	f.eventually(lead+" is back", func() string { return f.state(lead, "active") })
}

// order gives an order over n1 until it is taken: the meta group may be changing its leader.
func (f *fleet) order(args ...string) {
	f.t.Helper()
	f.eventually("order "+strings.Join(args, " "), func() string {
		out, err := command(append(args, "--api", f.nodes["n1"].api)...)
		if err != nil {
			return err.Error()
		}
		if !strings.Contains(out, "ordered") {
			return "it says " + out
		}
		return ""
	})
}

// top wants each node to tell what it does.
func (f *fleet) top(m *peer, names ...string) {
	f.t.Helper()
	out, err := command("top", "--api", m.api)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, want := range append(names, "COMMANDS/S", "SYNC P99", " MiB ", "64 shards: 0 without a leader") {
		if !strings.Contains(out, want) {
			f.t.Errorf("`muster top` lacks %q:\n%s", want, out)
		}
	}
	f.eventually("all know the same leaders", func() string {
		status, text := f.call(m, devSecret, clusterPath+"?counters", "")
		var doc clusterDoc
		if status != http.StatusOK || json.Unmarshal([]byte(text), &doc) != nil || len(doc.Nodes) != len(names) {
			return text
		}
		for _, n := range doc.Nodes {
			c, first := n.Counters, doc.Nodes[0].Counters
			if c == nil || c.Members != len(names)-1 || c.Routed != 64 || c.Terms != first.Terms || c.Terms == 0 {
				return text
			}
			if t := c.Traffic; t.Gossip == 0 || t.Actor == 0 || (t.Raft == 0) != (n.Role == "edge") {
				return text
			}
		}
		return ""
	})
	f.eventually("counters of all nodes", func() string {
		out, err := command("top", "--api", m.api, "--json")
		var list []topNode
		if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != len(names) {
			return fmt.Sprint(err, out)
		}
		for i, n := range list {
			if n.Name != names[i] || !n.Told || n.RSS < 1<<20 {
				return out
			}
		}
		return ""
	})
}

// state is empty when a node is in the state wanted.
func (f *fleet) state(name, want string) string {
	doc, err := f.doc(f.nodes["n1"])
	if err != nil {
		return err.Error()
	}
	for _, n := range doc.Nodes {
		if n.Name == name && n.State == want {
			return ""
		}
	}
	return fmt.Sprintf("%+v", doc.Nodes)
}

// edgeApart serves clients with an edge that holds nothing.
func (f *fleet) edgeApart(t *testing.T) {
	e := f.add("e1", "--role", "edge")
	f.start(e)
	e.line("ready listen=")
	f.eventually("the edge is seen", func() string { return f.state("e1", "active") })
	c := f.crowd(e, f.nodes["n2"], "eve")
	f.reader(e, "u9")("first")
	f.publish(e, "through an edge")
	f.top(f.nodes["n1"], "e1", "n1", "n2", "n3")
	c.steady()
	if status, text := f.call(e, devSecret, clusterPath, ""); status < 400 || !strings.Contains(text, "ask a core") {
		t.Errorf("an edge answers %d %s", status, text)
	}
	if status, text := f.call(e, devSecret, replicasPath, ""); status < 400 || !strings.Contains(text, "ask a core") {
		t.Errorf("an edge answers %d %s", status, text)
	}
	if status, text := f.call(e, devSecret, "/v1/nodes/n1/drain", "-"); status < 400 || !strings.Contains(text, "ask a core") {
		t.Errorf("an edge answers %d %s", status, text)
	}
	for _, d := range c.devices {
		d.drop()
	}
	e.signal(syscall.SIGTERM)
	if code := e.exit(); code != 0 {
		t.Errorf("exit code %d: %q", code, e.lines)
	}
}

// A node alone says what it is, and takes no orders about others.
func TestOrdersToANodeAlone(t *testing.T) {
	s := boot(t)
	doc := must[clusterDoc](t, s, clusterPath, "")
	if len(doc.Nodes) != 1 || len(doc.Shards) != 64 || doc.Nodes[0].Name != "n1" || doc.Meta != "n1" {
		t.Errorf("%+v", doc)
	}
	for shard, n := range map[string]int{"": 65, "?shard=7": 1, "?shard=meta": 1} {
		if doc := must[replicasDoc](t, s, replicasPath+shard, ""); doc.Node != "n1" || len(doc.Replicas) != n || len(doc.Replicas[0].Hash) != 16 {
			t.Errorf("%q: %+v", shard, doc)
		}
	}
	for _, path := range []string{"/v1/nodes/n1/drain", "/v1/nodes/n1/undrain", "/v1/nodes/n1/remove"} {
		info, _ := wire.CodeNotAvailable.Info()
		if status, text := ask(t, s, devSecret, path, " "); status != info.HTTP || !strings.Contains(text, "alone") {
			t.Errorf("%s: %d %s", path, status, text)
		}
		if status, _ := ask(t, s, "", path, " "); status != http.StatusUnauthorized {
			t.Errorf("%s without a key: %d", path, status)
		}
	}
	if out, err := command("cluster", "--api", "http://"+s.apiListen.Addr().String()); err != nil || !strings.Contains(out, "64 with fewer than 3 voters") {
		t.Errorf("%v %s", err, out)
	}
	_, err := command("drain", "n1", "--api", "http://"+s.apiListen.Addr().String())
	if exitCode(err) != 1 || !strings.Contains(err.Error(), "NOT_AVAILABLE") {
		t.Error(err)
	}
}

func TestClusterSettings(t *testing.T) {
	const secret = "0123456789abcdef"
	join := []string{"--join", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"}
	for name, c := range map[string]struct {
		args []string
		want string // "" is fine
	}{
		"alone":                {nil, ""},
		"three":                {append(join, "--expect", "3"), ""},
		"two of three":         {append(join, "--expect", "2"), ""},
		"joins":                {join, ""},
		"an edge":              {append(join, "--role", "edge"), ""},
		"a core":               {[]string{"--role", "core"}, ""},
		"beyond, with secret":  {[]string{"--bind", "10.0.0.1", "--cluster-secret", secret}, ""},
		"everywhere":           {[]string{"--bind", "0.0.0.0", "--advertise", "10.0.0.1", "--cluster-secret", secret}, ""},
		"role":                 {[]string{"--role", "leader"}, `role: "leader" is unknown; write core, edge or both`},
		"join":                 {[]string{"--join", "n1"}, `join: "n1" is not an address; write host:port`},
		"expect below 0":       {append(join, "--expect", "-1"), "expect: -1 is out of range"},
		"expect too many":      {append(join, "--expect", "16"), "expect: 16 is out of range"},
		"expect nobody":        {[]string{"--expect", "3"}, "expect: the nodes must find each other; name them with --join"},
		"expect half":          {append(join, "--expect", "1"), "expect: 1 is at most half of the 3 addresses of --join, so two clusters could be born; write at least 2"},
		"an edge expects":      {append(join, "--role", "edge", "--expect", "3"), "expect: an edge founds no cluster"},
		"an edge alone":        {[]string{"--role", "edge"}, "join: an edge needs cores"},
		"two secrets":          {[]string{"--cluster-secret", secret, "--cluster-secret-file", "x"}, "cluster-secret and cluster-secret-file are both set; leave one out"},
		"no such file":         {[]string{"--cluster-secret-file", "/nowhere/secret"}, "cluster-secret-file: open /nowhere/secret"},
		"secrets":              {[]string{"--bind", "10.0.0.1", "--cluster-secret", secret + ",another of 16 bytes"}, ""},
		"one short secret":     {[]string{"--cluster-secret", secret + ",short"}, "cluster-secret: 5 bytes are too short"},
		"empty secret file":    {[]string{"--cluster-secret-file", os.DevNull}, "cluster-secret-file: /dev/null holds no secret"},
		"short secret":         {[]string{"--cluster-secret", "short"}, "cluster-secret: 5 bytes are too short; write 16 or more"},
		"bind to a name":       {[]string{"--bind", "localhost"}, `bind: "localhost" is not an IP address`},
		"bind everywhere":      {[]string{"--bind", "0.0.0.0", "--cluster-secret", secret}, "bind: 0.0.0.0 is every address of this machine; say with --advertise"},
		"beyond, no secret":    {[]string{"--bind", "10.0.0.1"}, "bind: 10.0.0.1 can be reached from other machines"},
		"everywhere no secret": {[]string{"--bind", "::", "--advertise", "10.0.0.1"}, "bind: :: can be reached from other machines"},
		"gossip port":          {append(join, "--gossip-port", "0"), "gossip-port: 0 is not a port"},
		"actor port":           {append(join, "--actor-port", "65536"), "actor-port: 65536 is not a port"},
		"raft port":            {append(join, "--raft-port", "-1"), "raft-port: -1 is not a port"},
		"zone":                 {append(join, "--zone", strings.Repeat("z", 65)), "zone: 65 bytes are too long; write 64 at most"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, from, err := load(t, "", nil, append([]string{"--dev"}, c.args...)...)
			if err == nil {
				err = cfg.check(from)
			}
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if c.want == "" && cfg.clustered() != (c.args != nil) {
				t.Errorf("meets others: %v", cfg.clustered())
			}
		})
	}
}

func TestRates(t *testing.T) {
	node := func(id string, c *countersDoc) nodeDoc { return nodeDoc{ID: id, Name: id, Counters: c} }
	syncs := func(n ...uint64) []uint64 {
		list := make([]uint64, len(durable.SyncBuckets)+1)
		copy(list, n)
		return list
	}
	was := clusterDoc{Nodes: []nodeDoc{
		node("a", &countersDoc{At: 1000, Commands: 10, Sends: 100, Writes: 7, Syncs: syncs(5, 0, 9)}),
		node("b", &countersDoc{At: 1000, Commands: 10}),
		node("c", nil),
	}}
	now := clusterDoc{Nodes: []nodeDoc{
		node("a", &countersDoc{At: 3000, Commands: 30, Sends: 100, Writes: 8, Syncs: syncs(104, 0, 10), Sessions: 4}),
		node("b", &countersDoc{At: 2000, Commands: 3}), // started again
		node("c", &countersDoc{At: 2000, Commands: 3, Syncs: syncs(1)}),
		node("d", nil),
	}}
	list := rates(was, now)
	if a := list[0]; a.Commands != 10 || a.Sends != 0 || a.Writes != .5 || a.Sessions != 4 || a.SyncP99 == nil || *a.SyncP99 != .1 {
		t.Errorf("%+v", a)
	}
	for i, told := range []bool{true, true, true, false} {
		if n := list[i]; n.Told != told || i > 0 && (n.Commands != 0 || n.SyncP99 != nil) {
			t.Errorf("%+v", n)
		}
	}
	if p := syncP99(syncs(), syncs(98, 2)); p == nil || *p != .2 {
		t.Error("two of a hundred took longer:", p)
	}
	if p := syncP99(syncs(), append(syncs()[:len(durable.SyncBuckets)], 1)); p != nil {
		t.Error("longer than all bounds:", *p)
	}
}
