//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// Bare sockets watch everybody. The Go client drops views that go back; these record them.
const (
	observersEach = 2    // of each user
	maxObserved   = 1000 // users that one of them watches
)

type frame struct {
	Connect *reply `json:"connect"`
	Push    *struct {
		Presence []shown `json:"presence"`
	} `json:"push"`
}

type reply struct {
	Node      string   `json:"node"`
	Presences []shown  `json:"presences"`
	Pending   []string `json:"pending"`
	Done      bool     `json:"done"`
}

type shown struct {
	User  string    `json:"user"`
	State string    `json:"state"`
	Ver   [2]uint64 `json:"ver"`
	Stale bool      `json:"stale"`
}

// observe watches people from one socket after the other until ctx ends.
func (l *load) observe(ctx context.Context, name string, people []*person) {
	var watch []string
	for _, p := range people {
		watch = append(watch, p.name)
	}
	l.running.Go(func() {
		for socket := 0; ctx.Err() == nil; socket++ {
			o := observer{l: l, name: name, socket: socket, watch: watch}
			o.run(ctx)
			pause(ctx, backoffMax/2)
		}
	})
}

// observer is one socket.
type observer struct {
	l      *load
	name   string
	socket int
	watch  []string
	node   string          // the server
	known  map[string]bool // named by the replies to connect
}

func (o *observer) run(ctx context.Context) {
	conn, _, err := websocket.Dial(ctx, clientURL, &websocket.DialOptions{HTTPClient: o.l.balanced(nil)})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	o.known = map[string]bool{}
	connect, _ := json.Marshal(map[string]any{"id": 1, "connect": map[string]any{
		"token": token(o.name), "device_id": fmt.Sprint("d", o.socket), "class": "bot", "attempt": 1, "watch": o.watch,
	}})
	if conn.Write(ctx, websocket.MessageText, connect) != nil {
		return
	}
	for {
		wait, cancel := context.WithTimeout(ctx, 35*time.Second) // ping and pong of the server
		_, data, err := conn.Read(wait)
		cancel()
		if err != nil {
			return
		}
		for _, line := range splitLines(data) {
			if string(line) == "{}" {
				if conn.Write(ctx, websocket.MessageText, line) != nil {
					return
				}
				continue
			}
			o.take(line)
		}
	}
}

func splitLines(data []byte) (lines [][]byte) {
	begin := 0
	for i, b := range append(data, '\n') {
		if b == '\n' {
			if i > begin {
				lines = append(lines, data[begin:i])
			}
			begin = i + 1
		}
	}
	return lines
}

func (o *observer) take(line []byte) {
	var f frame
	if json.Unmarshal(line, &f) != nil {
		return
	}
	if f.Push != nil {
		o.saw(f.Push.Presence)
	}
	if f.Connect == nil {
		return
	}
	if f.Connect.Node != "" {
		o.node = f.Connect.Node
	}
	o.saw(f.Connect.Presences)
	for _, p := range f.Connect.Presences {
		o.known[p.User] = true
	}
	for _, user := range f.Connect.Pending {
		o.known[user] = true
	}
	if f.Connect.Done {
		var offline []shown
		for _, user := range o.watch {
			if !o.known[user] {
				offline = append(offline, shown{User: user, State: "offline"})
			}
		}
		o.saw(offline)
	}
}

// saw records views.
func (o *observer) saw(list []shown) {
	now := o.l.now()
	o.l.note(func() {
		for _, p := range list {
			o.l.views = append(o.l.views, seen{
				watcher: o.name, user: p.User, socket: o.socket, over: o.node, at: now, term: p.Ver[0], number: p.Ver[1], state: p.State, stale: p.Stale,
			})
		}
	})
}
