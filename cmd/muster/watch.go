package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	muster "muster/clients/go"
	"muster/edge/auth"
)

func watchCommand() *cobra.Command {
	var url, token, as string
	cmd := &cobra.Command{
		Use:     "watch USER…",
		Short:   "Show the presence of users, live; one line per change when piped",
		Args:    cobra.MinimumNArgs(1),
		Example: "  muster watch alice bob\n  muster watch alice --url wss://presence.example/v1/ws --token \"$TOKEN\"",
		RunE: func(cmd *cobra.Command, users []string) error {
			cfg, _, err := loadConfig(cmd.Flags(), environment())
			if err != nil {
				return err
			}
			if url == "" {
				url = "ws://" + cfg.Listen + "/v1/ws"
			}
			options := muster.Options{Token: token, Class: "bot", Watch: users, Name: "muster watch"}
			if token == "" {
				key, err := signingKey(cfg)
				if err != nil {
					return err
				}
				options.TokenFunc = func(context.Context) (string, error) {
					return mint(cfg, key, auth.Claims{User: as}, time.Hour)
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return watchUsers(ctx, cmd.OutOrStdout(), url, options)
		},
	}
	addFlags(cmd.Flags(), "listen", "jwt-key", "jwt-key-file", "issuer", "audience")
	cmd.Flags().StringVar(&url, "url", "", "the server, such as ws://127.0.0.1:8000/v1/ws (default: listen)")
	cmd.Flags().StringVar(&token, "token", "", "a client token (default: one signed with the configured key, or the one of --dev)")
	cmd.Flags().StringVar(&as, "as", "muster-watch", "the user to watch as, without --token")
	return cmd
}

func watchUsers(ctx context.Context, out io.Writer, url string, options muster.Options) error {
	screen := &screen{out: out}
	if f, ok := out.(*os.File); ok && isTerminal(f) {
		screen.live = true
		options.OnConnection = func(c muster.Connection) { screen.connection(c) }
	}
	client, err := muster.Dial(ctx, url, options)
	if err != nil {
		return faultf("cannot watch at %s: %w; is a server running there (`muster serve --dev`)?", url, err)
	}
	defer client.Close()
	if screen.live {
		return fault(watchLive(ctx, screen, client, options.Watch))
	}
	for change := range client.View().Changes(ctx) {
		fmt.Fprintln(out, changeLine(change.Presence, time.Now()))
	}
	return ended(ctx, client)
}

// ended is nil when the user stopped watching.
func ended(ctx context.Context, client *muster.Client) error {
	if ctx.Err() != nil {
		return nil
	}
	return fault(client.Err())
}

// watchLive draws the table at every change, and each few seconds for the times in it.
func watchLive(ctx context.Context, s *screen, client *muster.Client, users []string) error {
	changes := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range client.View().Changes(ctx) {
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		s.draw(client.View(), users, time.Now())
		select {
		case <-done:
			if err := ended(ctx, client); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case <-changes:
		case <-tick.C:
		}
	}
}

// screen redraws a table in place.
type screen struct {
	out   io.Writer
	live  bool
	lines int
	lost  atomic.Pointer[string] // why there is no connection
}

func (s *screen) connection(c muster.Connection) {
	if c.Up || c.Err == nil {
		s.lost.Store(nil)
		return
	}
	why := c.Err.Error()
	s.lost.Store(&why)
}

func (s *screen) draw(view *muster.View, users []string, now time.Time) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"user", "state", "since", "devices", "last seen", "status"})
	for _, user := range users {
		p := view.Get(user)
		t.AppendRow(table.Row{user, stateWord(p), when(p.Since, now), deviceList(p), lastSeen(p, now), strings.TrimSpace(p.Emoji + " " + p.Text)})
	}
	text := t.Render() + "\n"
	if why := s.lost.Load(); why != nil {
		text += "no connection: " + oneLine(*why) + "\n"
	}
	if s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
	}
	fmt.Fprint(s.out, text)
	s.lines = strings.Count(text, "\n")
}

func stateWord(p muster.Presence) string {
	if p.Stale {
		return string(p.State) + " (stale)"
	}
	return string(p.State)
}

func deviceList(p muster.Presence) string {
	var list []string
	for _, d := range p.Devices {
		list = append(list, d.Class+"="+string(d.State))
	}
	return strings.Join(list, " ")
}

func lastSeen(p muster.Presence, now time.Time) string {
	if p.LastSeen.IsZero() {
		return p.LastSeenBucket
	}
	return when(p.LastSeen, now)
}

func when(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return ago(now.Sub(at))
}

// changeLine is a change for programs: fixed order, fields that are not known left out.
func changeLine(p muster.Presence, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", now.Format(time.RFC3339), p.User, p.State)
	if !p.Since.IsZero() {
		fmt.Fprintf(&b, " since=%s", p.Since.Format(time.RFC3339))
	}
	if len(p.Devices) > 0 {
		fmt.Fprintf(&b, " devices=%s", strings.ReplaceAll(deviceList(p), " ", ","))
	}
	if !p.LastSeen.IsZero() {
		fmt.Fprintf(&b, " last_seen=%s", p.LastSeen.Format(time.RFC3339))
	}
	if p.Text != "" {
		fmt.Fprintf(&b, " text=%q", p.Text)
	}
	if p.Reason != "" {
		fmt.Fprintf(&b, " reason=%s", p.Reason)
	}
	return b.String()
}
