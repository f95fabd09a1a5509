package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"muster/actors/row"
)

func serveCommand() *cobra.Command {
	var printOnly bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server. Each flag is also a key of the YAML file (--config) and an environment
variable: --api-listen is api-listen and MUSTER_API_LISTEN. Flags win over the
environment, the environment over the file.

SIGTERM or SIGINT sends the clients away over drain-window and then stops; the second one
stops at once.`,
		Example: "  muster serve --dev\n  muster serve --config muster.yaml --print-config",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, from, err := loadConfig(cmd.Flags(), environment())
			if err != nil {
				return err
			}
			if err := cfg.check(from); err != nil {
				return err
			}
			if printOnly {
				return fault(printConfig(cmd.OutOrStdout(), cfg, from))
			}
			signals := make(chan os.Signal, 2)
			signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
			defer signal.Stop(signals)
			applyRuntime(cfg)
			row.Reads(cfg.records().Newest())
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr(), signals)
		},
	}
	addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&printOnly, "print-config", false, "print the settings and where each came from, and exit")
	return cmd
}

// serve runs a server until a signal came and it has drained, or a second one came.
func serve(ctx context.Context, cfg Config, stderr io.Writer, signals <-chan os.Signal) error {
	s, err := startUnless(ctx, signals, cfg, newLogger(cfg, stderr))
	if err != nil {
		return err
	}
	if cfg.Dev {
		fmt.Fprint(stderr, s.devNotice())
	}
	defer s.announceReady(ctx, stderr)()
	select {
	case sig := <-signals:
		s.log.Info("draining; a second signal stops at once", "signal", sig, "window", cfg.DrainWindow)
	case err := <-s.failed:
		s.close()
		return faultf("the server stopped: %w", err)
	case err := <-s.broken:
		return s.abandon(err)
	case <-ctx.Done():
		s.close()
		return nil
	}
	drain, cancel := context.WithCancel(ctx)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.drain(drain)
	}()
	select {
	case <-signals:
		s.log.Info("stopping at once")
		cancel()
		<-drained
	case <-drained:
	case err := <-s.broken:
		return s.abandon(err)
	}
	s.close()
	return nil
}

// startUnless starts a server, unless a signal comes first: a node may wait long for its cluster.
func startUnless(ctx context.Context, signals <-chan os.Signal, cfg Config, log *slog.Logger) (*server, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type started struct {
		s   *server
		err error
	}
	done := make(chan started, 1)
	go func() {
		s, err := startServer(ctx, cfg, log)
		done <- started{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case sig := <-signals:
		cancel()
		if r := <-done; r.s != nil {
			r.s.close()
		}
		return nil, faultf("stopped by %v before the node had started", sig)
	}
}

// abandon is the end after the disk failed: nothing is written any more, and nothing that
// waits for a write is answered.
func (s *server) abandon(err error) error {
	s.removeTemporary()
	return faultf("the server stopped: %w; what was acknowledged is safe, start it again when the disk is well", err)
}

// announceReady prints the ready line once all shards are open; end stops waiting for it.
func (s *server) announceReady(ctx context.Context, stderr io.Writer) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.awaitReady(ctx) == nil {
			fmt.Fprintf(stderr, "ready listen=%s api=%s node=%s\n", s.listen.Addr(), s.apiListen.Addr(), s.cfg.NodeName)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// devNotice says what --dev means.
func (s *server) devNotice() string {
	host := s.listen.Addr().String()
	var b strings.Builder
	fmt.Fprintf(&b, "muster --dev: to try it out, on this machine only\n")
	fmt.Fprintf(&b, "  demo       http://%s/   (open it in two tabs)\n", host)
	fmt.Fprintf(&b, "  clients    ws://%s/v1/ws   token: muster token alice\n", host)
	fmt.Fprintf(&b, "  HTTP API   http://%s/v1/openapi.json   Authorization: Bearer %s\n", s.apiListen.Addr(), devSecret)
	fmt.Fprintf(&b, "  keys       tokens HS256 %q, API %q: known to everybody\n", devSecret, devSecret)
	fmt.Fprintf(&b, "  audience   everyone sees everything, unless a user says otherwise\n")
	if s.temporary {
		fmt.Fprintf(&b, "  data       %s, removed at the end; keep it with --data DIR\n", s.cfg.Data)
	} else if s.cfg.core() {
		fmt.Fprintf(&b, "  data       %s\n", s.cfg.Data)
	}
	return b.String()
}
