package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = []byte("a secret of the cluster under test")

// got is one message that a node received.
type got struct {
	from    uint64
	class   Class
	kind    byte
	payload string
}

// node is a Net with what it was told.
type node struct {
	*Net
	t    testing.TB
	self Peer

	mu   sync.Mutex
	msgs []got
	told []string // "up 2", "down 2 refused", "silent 2", "heard 2"
	logs bytes.Buffer
	ups  []Peer
	hold chan struct{} // Receive waits for it; nil: it does not
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := NewKeys(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// startNode runs a node of cluster "c" with mTLS; change may alter its Config.
func startNode(t testing.TB, id uint64, change ...func(*Config)) *node {
	t.Helper()
	l := listen(t)
	n := &node{t: t, self: Peer{Node: id, Name: fmt.Sprint("n", id), Addr: l.Addr().String(), Incarnation: 1}}
	cfg := Config{
		Self: n.self, Cluster: "c", Listener: l, Keys: testKeys(t), Classes: 2,
		Receive: func(from Peer, c Class, kind byte, payload []byte) {
			n.mu.Lock()
			hold := n.hold
			n.mu.Unlock()
			if hold != nil {
				<-hold
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.msgs = append(n.msgs, got{from.Node, c, kind, string(payload)})
		},
		Up: func(p Peer) { n.tell("up", p, p) },
		Down: func(p Peer, refused bool) {
			what := "down"
			if refused {
				what = "refused"
			}
			n.tell(what, p)
		},
		Silent: func(p Peer, silent bool) {
			what := "heard"
			if silent {
				what = "silent"
			}
			n.tell(what, p)
		},
		Silence: time.Minute, // the machine may be slow; tests of silence shorten it
		Lost:    time.Hour,
	}
	cfg.Logger = slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range change {
		f(&cfg)
	}
	n.self = cfg.Self
	var err error
	if n.Net, err = Listen(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// Write takes the log.
func (n *node) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.logs.Write(b)
}

func (n *node) tell(what string, p Peer, up ...Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, fmt.Sprint(what, " ", p.Node))
	n.ups = append(n.ups, up...)
}

func (n *node) logged(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Contains(n.logs.Bytes(), []byte(text))
}

// was says how often the node was told something.
func (n *node) was(what string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.told {
		if s == what {
			times++
		}
	}
	return times
}

// up says whether the node was told Up of an epoch that lasts.
func (n *node) up(node uint64) bool {
	ended := n.was(fmt.Sprint("down ", node)) + n.was(fmt.Sprint("refused ", node))
	return n.was(fmt.Sprint("up ", node)) > ended && n.Connected(node)
}

func (n *node) received() []got {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]got(nil), n.msgs...)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for pause := time.NewTicker(2 * time.Millisecond); ; <-pause.C {
		if ok() {
			pause.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// join makes all nodes peers of each other and waits until they are connected.
func join(t testing.TB, nodes ...*node) {
	t.Helper()
	var peers []Peer
	for _, n := range nodes {
		peers = append(peers, n.self)
	}
	for _, n := range nodes {
		n.SetPeers(peers)
	}
	for _, n := range nodes {
		for _, p := range peers {
			if p.Node != n.self.Node {
				eventually(t, fmt.Sprint(n.self.Node, " is connected with ", p.Node), func() bool { return n.up(p.Node) })
			}
		}
	}
}

func plain(cfg *Config) { cfg.Keys = nil }

func TestMessagesArriveInOrder(t *testing.T) {
	for name, change := range map[string]func(*Config){"mTLS": func(*Config) {}, "plain": plain} {
		t.Run(name, func(t *testing.T) {
			a, b := startNode(t, 1, change), startNode(t, 2, change)
			join(t, a, b)
			const count = 5000
			var sending sync.WaitGroup
			for _, way := range [][2]*node{{a, b}, {b, a}} {
				for c := range Class(2) {
					sending.Go(func() {
						for i := range count {
							if err := way[0].SendWait(context.Background(), way[1].self.Node, c, byte(i), []byte(fmt.Sprint(i))); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
			}
			sending.Wait()
			for _, n := range []*node{a, b} {
				eventually(t, "all is there", func() bool { return len(n.received()) >= 2*count })
				var next [2]int
				for _, g := range n.received() {
					i := next[g.class]
					if g.kind != byte(i) || g.payload != fmt.Sprint(i) || g.from != 3-n.self.Node {
						t.Fatalf("node %d: %+v where %d was due", n.self.Node, g, i)
					}
					next[g.class]++
				}
				if next != [2]int{count, count} {
					t.Errorf("node %d received %v", n.self.Node, next)
				}
				if n.was(fmt.Sprint("up ", 3-n.self.Node)) != 1 {
					t.Errorf("node %d was told %v", n.self.Node, n.told)
				}
			}
		})
	}
}

func TestDownWhenAPeerStops(t *testing.T) {
	for _, dead := range []uint64{1, 2} {
		t.Run(fmt.Sprint(dead), func(t *testing.T) {
			a, b := startNode(t, 1), startNode(t, 2)
			join(t, a, b)
			if dead == 1 {
				a, b = b, a
			}
			b.Stop()
			eventually(t, "refused", func() bool { return a.was(fmt.Sprint("refused ", dead)) == 1 })
			if err := a.Send(dead, 0, 0, nil); !errors.Is(err, ErrDown) {
				t.Error(err)
			}
			if _, err := a.Call(t.Context(), dead, "m", nil); !errors.Is(err, ErrDown) {
				t.Error(err)
			}
		})
	}
}

func TestCalls(t *testing.T) {
	a, b := startNode(t, 1), startNode(t, 2)
	started, ended := make(chan struct{}), make(chan error, 1)
	for _, n := range []*node{a, b} {
		n.Handle("echo", false, func(_ context.Context, from Peer, req []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%d: %s", from.Node, req), nil
		})
		n.Handle("fail", false, func(context.Context, Peer, []byte) ([]byte, error) { return nil, errors.New("no luck") })
		n.Handle("hang", false, func(ctx context.Context, _ Peer, _ []byte) ([]byte, error) {
			started <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
	}
	join(t, a, b)
	for _, way := range [][2]*node{{a, b}, {b, a}, {a, a}} {
		to := way[1].self.Node
		resp, err := way[0].Call(t.Context(), to, "echo", []byte("hello"))
		if want := fmt.Sprintf("%d: hello", way[0].self.Node); err != nil || string(resp) != want {
			t.Errorf("%q, %v", resp, err)
		}
		var remote *RemoteError
		if _, err := way[0].Call(t.Context(), to, "fail", nil); !errors.As(err, &remote) || remote.Text != "no luck" {
			t.Error(err)
		}
		if _, err := way[0].Call(t.Context(), to, "what", nil); !errors.Is(err, ErrNoMethod) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		if _, err := way[0].Call(ctx, to, "hang", nil); err == nil {
			t.Error("a cancelled call succeeded")
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error("the handler's context:", err)
		}
	}
	if _, err := a.Call(t.Context(), 2, "echo", make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	lost := make(chan error, 1)
	go func() { _, err := a.Call(context.Background(), 2, "hang", nil); lost <- err }()
	<-started
	go b.Stop()
	if err := <-lost; !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	<-ended
}

func TestCallAddr(t *testing.T) {
	a, b := startNode(t, 1, func(cfg *Config) { cfg.Cluster = "" }), startNode(t, 2)
	echo := func(_ context.Context, from Peer, req []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s: %s", from.Name, req), nil
	}
	b.Handle("join", true, echo)
	b.Handle("inner", false, echo)
	if resp, err := a.CallAddr(t.Context(), b.self.Addr, "join", []byte("x")); err != nil || string(resp) != "n1: x" {
		t.Errorf("%q, %v", resp, err)
	}
	var remote *RemoteError
	if _, err := a.CallAddr(t.Context(), b.self.Addr, "inner", nil); !errors.As(err, &remote) {
		t.Error("a stranger's call of a method that is not open:", err)
	}
	a.SetCluster("c")
	if resp, err := a.CallAddr(t.Context(), b.self.Addr, "inner", []byte("y")); err != nil || string(resp) != "n1: y" {
		t.Errorf("%q, %v", resp, err)
	}
	if _, err := a.CallAddr(t.Context(), b.self.Addr, "what", nil); !errors.Is(err, ErrNoMethod) {
		t.Error(err)
	}
	b.Stop()
	if _, err := a.CallAddr(t.Context(), b.self.Addr, "join", nil); !errors.Is(err, ErrDown) {
		t.Error(err)
	}
}

type body []byte

func (b body) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

type failing struct{}

func (failing) WriteTo(w io.Writer) (int64, error) {
	n, _ := w.Write(make([]byte, 1<<20))
	return int64(n), errors.New("the disk broke")
}

func TestBulk(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	var early atomic.Bool
	var failed atomic.Value
	takes := func(cfg *Config) {
		cfg.OnStream = func(from Peer, kind byte, header []byte, r io.Reader) error {
			if early.Load() {
				return errors.New("not now")
			}
			b, err := io.ReadAll(r)
			if err != nil {
				failed.Store(err)
				return err
			}
			if kind != 7 || string(header) != "head" || !bytes.Equal(b, big) {
				return fmt.Errorf("kind %d, header %q, %d bytes", kind, header, len(b))
			}
			return nil
		}
	}
	a, b := startNode(t, 1, takes), startNode(t, 2, takes)
	join(t, a, b)
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		from, to := way[0], way[1].self.Node
		early.Store(false)
		was := from.Sent()
		if err := from.Stream(t.Context(), to, 7, []byte("head"), body(big)); err != nil {
			t.Error(err)
		}
		if n := from.Sent() - was; n < uint64(len(big)) || n > uint64(len(big))*11/10 {
			t.Errorf("%d bytes were sent, %d of them the body", n, len(big))
		}
		if err := from.Stream(t.Context(), to, 7, nil, failing{}); err == nil || err.Error() != "the disk broke" {
			t.Error(err)
		}
		eventually(t, "the receiver hears of it", func() bool { return failed.Load() != nil })
		early.Store(true)
		var remote *RemoteError
		if err := from.Stream(t.Context(), to, 7, []byte("head"), body(big)); !errors.As(err, &remote) || remote.Text != "not now" {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := from.Stream(ctx, to, 7, nil, body(big)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
