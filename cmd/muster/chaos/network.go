//go:build linux

package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	mark     = "muster-chaos" // name of the host's link and of mounts, prefix of namespaces
	router   = mark + "-router"
	subnet   = "198.18." // reserved for tests of networks (RFC 2544)
	hostNet  = 250
	firstCut = 1000 // preference of the first rule
)

// network joins the nodes: namespaces behind a router, or loopback ports.
type network struct {
	namespaces bool
	able       map[need]bool
	lacks      []string // what cannot be done here, for people
	cuts       int      // rules that the router holds
	mounts     []string
	lock       *os.File
}

// openNetwork finds out what this machine lets us do and removes what an earlier campaign that crashed left.
func openNetwork(loopback bool) (*network, error) {
	n := &network{able: map[need]bool{processes: true}}
	switch {
	case loopback:
		n.lack("network and disk faults: --loopback")
	case os.Geteuid() != 0:
		n.lack("network and disk faults: not root")
	default:
		if err := n.claim(); err != nil {
			return nil, err
		}
		n.sweep()
		if err := n.route(); err != nil {
			n.sweep()
			n.lack("network faults: " + err.Error())
		} else {
			n.namespaces = true
		}
		n.able[disks] = n.tryMount()
	}
	return n, nil
}

func (n *network) lack(what string) { n.lacks = append(n.lacks, what) }

// claim makes this the only campaign that uses namespaces, so that what is left over is nobody's.
func (n *network) claim() error {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), mark+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return errors.New("another campaign runs on this machine; wait for it, or use --loopback")
	}
	n.lock = f
	return nil
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %s", strings.Join(args, " "), strings.TrimSpace(string(out)+" "+err.Error()))
	}
	return nil
}

func all(steps ...[]string) error {
	for _, s := range steps {
		if err := ip(s...); err != nil {
			return err
		}
	}
	return nil
}

// route makes the router and the host's link to it.
func (n *network) route() error {
	host := fmt.Sprint(subnet, hostNet)
	err := all(
		[]string{"netns", "add", router},
		[]string{"-n", router, "link", "set", "lo", "up"},
		[]string{"link", "add", mark, "type", "veth", "peer", "name", "to-host", "netns", router},
		[]string{"addr", "add", host + ".2/24", "dev", mark},
		[]string{"-n", router, "addr", "add", host + ".1/24", "dev", "to-host"},
		[]string{"link", "set", mark, "up"},
		[]string{"-n", router, "link", "set", "to-host", "up"},
		[]string{"route", "add", subnet + "0.0/16", "via", host + ".1"},
	)
	if err != nil {
		return err
	}
	return exec.Command("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").Run()
}

// place gives a node its address and ports; i is unique, from 1.
func (n *network) place(p *place, i int) error {
	if !n.namespaces {
		return loopbackPorts(p)
	}
	p.ns, p.ports = mark+"-"+p.name, fixedPorts
	link, net24 := "to-"+p.name, fmt.Sprint(subnet, i)
	p.ip = net24 + ".2"
	return all(
		[]string{"netns", "add", p.ns},
		[]string{"-n", p.ns, "link", "set", "lo", "up"},
		[]string{"-n", router, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", p.ns},
		[]string{"-n", p.ns, "addr", "add", p.ip + "/24", "dev", "eth0"},
		[]string{"-n", router, "addr", "add", net24 + ".1/24", "dev", link},
		[]string{"-n", p.ns, "link", "set", "eth0", "up"},
		[]string{"-n", router, "link", "set", link, "up"},
		[]string{"-n", p.ns, "route", "add", "default", "via", net24 + ".1"},
	)
}

// loopbackPorts picks ports that are free now.
func loopbackPorts(p *place) error {
	p.ip = "127.0.0.1"
	for _, port := range []*int{&p.ports.listen, &p.ports.api, &p.ports.gossip, &p.ports.actor, &p.ports.raft} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		*port = ln.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// tryRules finds out, with two nodes placed, whether the router can drop packets by address and by port.
func (n *network) tryRules(a, b place) {
	if !n.namespaces {
		return
	}
	passes := func(port int) bool {
		return ip("-n", router, "route", "get", b.ip, "from", a.ip, "iif", "to-"+a.name, "ipproto", "tcp", "dport", strconv.Itoa(port)) == nil
	}
	try := func(needed need, what string, c cut) {
		if err := n.cut(c); err == nil {
			n.able[needed] = !passes(c.port()) && (c.only == "" || passes(fixedPorts.listen))
		}
		n.heal()
		if !n.able[needed] {
			n.lack(what)
		}
	}
	if !passes(fixedPorts.raft) {
		n.lack("partitions: the router does not forward")
		return
	}
	try(addresses, "partitions: `ip rule … blackhole` has no effect here", cut{from: a, to: b})
	try(portsOnly, "partitions of single ports: `ip rule … dport` has no effect here", cut{from: a, to: b, only: "raft"})
}

// cut is one direction between two nodes that drops packets: all, or those of the gossip or raft port.
type cut struct {
	from, to place
	only     string
}

func (c cut) port() int {
	switch c.only {
	case "gossip":
		return c.to.ports.gossip
	}
	return c.to.ports.raft
}

// cut drops packets until heal.
func (n *network) cut(c cut) error {
	matches := [][]string{nil}
	if c.only != "" {
		matches = nil
		for _, proto := range []string{"tcp", "udp"} {
			for _, side := range []string{"dport", "sport"} {
				matches = append(matches, []string{"ipproto", proto, side, strconv.Itoa(c.port())})
			}
		}
	}
	for _, m := range matches {
		rule := append([]string{"-n", router, "rule", "add", "pref", strconv.Itoa(firstCut + n.cuts), "from", c.from.ip, "to", c.to.ip}, m...)
		if err := ip(append(rule, "blackhole")...); err != nil {
			return err
		}
		n.cuts++
	}
	return nil
}

// heal lets all packets pass again.
func (n *network) heal() {
	for n.cuts > 0 {
		n.cuts--
		_ = ip("-n", router, "rule", "del", "pref", strconv.Itoa(firstCut+n.cuts))
	}
}

// wholeDisk is the size of a node's disk; it uses as much memory as is stored.
const wholeDisk = 8 << 30

// mount gives a directory a disk of its own whose size can be changed.
func (n *network) mount(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(mark, dir, "tmpfs", 0, fmt.Sprintf("size=%d", int64(wholeDisk))); err != nil {
		return fmt.Errorf("mount a disk at %s: %w", dir, err)
	}
	n.mounts = append(n.mounts, dir)
	return nil
}

// shrink leaves so many bytes free; negative: all of the disk.
func (n *network) shrink(dir string, free int64) error {
	size := int64(wholeDisk)
	if free >= 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return err
		}
		size = int64(st.Blocks-st.Bfree)*st.Bsize + free
	}
	return unix.Mount(mark, dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size))
}

func (n *network) unmount() {
	for _, dir := range n.mounts {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
	n.mounts = nil
}

func (n *network) tryMount() bool {
	dir, err := os.MkdirTemp("", mark+"-*")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	if err := n.mount(dir); err != nil {
		n.lack("full disks: " + err.Error())
		return false
	}
	n.unmount()
	return true
}

// clear takes the nodes' namespaces and disks away; the router stays.
func (n *network) clear(places []place) {
	n.heal()
	n.unmount()
	for _, p := range places {
		if p.ns != "" {
			_ = ip("netns", "del", p.ns)
			_ = ip("-n", router, "link", "del", "to-"+p.name)
		}
	}
}

// close removes everything.
func (n *network) close() {
	n.unmount()
	if n.lock != nil {
		n.sweep()
		n.lock.Close()
		n.lock = nil
	}
}

// sweep removes namespaces, links, mounts and processes by their names. Only the holder of the lock may.
func (n *network) sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.SplitSeq(string(out), "\n") {
		name, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, mark+"-") {
			continue
		}
		pids, _ := exec.Command("ip", "netns", "pids", name).Output()
		for field := range strings.FieldsSeq(string(pids)) {
			if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		_ = ip("netns", "del", name)
	}
	_ = ip("link", "del", mark)
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == mark {
			_ = unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
}
