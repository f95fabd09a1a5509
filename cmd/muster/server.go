package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/actors"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
	"muster/clients/wire"
	"muster/cmd/muster/durable"
	"muster/cmd/muster/members"
	"muster/edge"
	"muster/edge/api"
	"muster/edge/auth"
	"muster/edge/demo"
	"muster/edge/hooks"
	"muster/edge/listen"
)

// server is one node: a core, an edge or both with a link between them, what makes it a member of a cluster, and the
// two listeners.
type server struct {
	cfg  Config
	log  *slog.Logger
	core *actors.Node
	edge *edge.Edge
	pipe *link.Pipe
	stop context.CancelFunc // ends what refreshes in the background

	members *members.Node // nil: this node is alone

	durable   *durable.Node // nil on an edge, as is core
	temporary bool          // the data directory goes with the process
	broken    chan error    // the disk failed

	comparing sync.Mutex // held while replicas are read for their hashes

	writes atomic.Uint32 // version in which records are written

	registry *prometheus.Registry
	webhook  *hooks.Dispatcher // nil: none
	audience *hooks.Audience   // nil: contacts are kept here
	calls    *api.API

	listen, apiListen net.Listener
	serving           sync.WaitGroup
	failed            chan error
	draining          atomic.Bool
	closing           sync.Once
}

// startServer starts a node; it takes clients when it returned. ctx ends the wait for a
// cluster to join. Errors are bad usage or faults.
func startServer(ctx context.Context, cfg Config, log *slog.Logger) (*server, error) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &server{cfg: cfg, log: log, stop: stop, failed: make(chan error, 2), broken: make(chan error, 1), registry: prometheus.NewRegistry()}
	if err := s.open(ctx, life); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) open(start, ctx context.Context) error {
	if err := s.openPorts(ctx); err != nil {
		return err
	}
	s.closePorts() // they are free. Who connected now would wait for the store, and for other nodes
	if err := s.openNode(start); err != nil {
		return err
	}
	if err := s.startCore(); err != nil {
		return err
	}
	verifier, err := newVerifier(ctx, s.cfg, s.log)
	if err != nil {
		return err
	}
	if err := s.startEdge(verifier); err != nil {
		return err
	}
	if err := s.serveMembers(start); err != nil {
		return err
	}
	return s.startHTTP(ctx)
}

func (s *server) openPorts(ctx context.Context) (err error) {
	if s.listen, err = openPort(ctx, "listen", s.cfg.Listen); err != nil {
		return err
	}
	s.apiListen, err = openPort(ctx, "api-listen", s.cfg.APIListen)
	return err
}

func (s *server) closePorts() {
	for _, ln := range []net.Listener{s.listen, s.apiListen} {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

// openPort opens a port; the error says what to do when it is taken.
func openPort(ctx context.Context, name, addr string) (net.Listener, error) {
	ln, err := listen.Open(ctx, addr, 0)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, faultf("%s: %s is in use by another program; stop it or choose another port with --%s", name, addr, name)
	case err != nil:
		return nil, faultf("%s: cannot listen on %s: %w", name, addr, rootCause(err))
	}
	return ln, nil
}

func (s *server) startCore() error {
	if !s.cfg.core() {
		return nil
	}
	rules, err := defaultAudience(s.cfg.DefaultAudience)
	if err != nil {
		return err
	}
	p := presence.DefaultConfig()
	p.Audience = rules
	p.GraceGone, p.GraceSilence, p.GraceDrain, p.GraceInactive = s.cfg.GraceGone, s.cfg.GraceSilence, s.cfg.GraceDrain, s.cfg.GraceInactive
	p.GraceNodeLost = s.cfg.GraceSilence
	if !s.cfg.StormGuard {
		p.StormFloor = math.MaxUint64
	}
	p.Resumable = s.cfg.ResumeWindow
	p.Devices = s.cfg.MaxDevices
	p.OutboxTTL, p.Events = s.cfg.OutboxTTL, s.cfg.Events
	if err := s.startAudience(); err != nil {
		return err
	}
	cfg := actors.Config{
		Name:     s.cfg.NodeName,
		Presence: &p,
		Room:     room.Config{GraceGone: s.cfg.GraceGone, GraceSilence: s.cfg.GraceSilence, GraceDrain: s.cfg.GraceDrain},
		Logger:   s.log,
		Store:    s.durable, EventsKept: s.cfg.EventsKeep, OnEvents: s.news,
		Records: func() uint8 { return uint8(s.writes.Load()) },
	}
	if s.audience != nil {
		cfg.Graph = s.audience.Ask
	}
	if cfg.Audit, err = s.openAudit(); err != nil {
		return err
	}
	core, err := actors.New(cfg)
	if err != nil {
		return err
	}
	if err := s.startWebhook(core); err != nil {
		return err
	}
	if err := core.Start(); err != nil {
		return fault(err)
	}
	s.core = core
	return fault(s.durable.Start(s.leading()))
}

func newVerifier(ctx context.Context, cfg Config, log *slog.Logger) (*auth.Verifier, error) {
	list, err := keys(cfg)
	if err != nil {
		return nil, err
	}
	return auth.New(ctx, auth.Config{
		Keys: list, JWKSURLs: cfg.JWKSURL, Issuer: cfg.Issuer, Audience: cfg.Audience,
		AllowShortSecret: cfg.Dev, Log: log,
	})
}

func (s *server) startEdge(verifier *auth.Verifier) error {
	var err error
	s.edge, err = edge.New(edge.Config{
		Node: s.cfg.NodeName, Auth: verifier, Origins: s.cfg.Origin,
		PingInterval: s.cfg.Ping, PongTimeout: s.cfg.Pong, IdleAfter: s.cfg.AwayAfter, DrainWindow: s.cfg.DrainWindow,
		MaxConns: s.cfg.MaxConns, MaxWatches: s.cfg.MaxWatches,
		ConnectRate: edge.Rate{PerSecond: s.cfg.AdmitNew, Burst: 2 * s.cfg.AdmitNew},
		ResumeRate:  edge.Rate{PerSecond: s.cfg.AdmitResume, Burst: 2 * s.cfg.AdmitResume},
		CommandRate: edge.Rate{PerSecond: s.cfg.ConnRate, Burst: float64(s.cfg.ConnBurst)},
		UserRate:    edge.Rate{PerSecond: s.cfg.UserRate, Burst: 2 * s.cfg.UserRate},
		Log:         s.log,
	})
	if err != nil {
		return fault(err)
	}
	if s.core != nil {
		s.pipe = link.NewPipe(s.cfg.NodeName, s.incarnation(), s.edge.Core(s.cfg.NodeName), s.core)
		s.pipe.Dial()
	}
	return nil
}

func (s *server) startHTTP(ctx context.Context) error {
	apiKeys, err := apiKeys(s.cfg)
	if err != nil {
		return err
	}
	s.register()
	s.calls, err = api.New(api.Config{
		Caller: s.edge, Keys: apiKeys, Ready: s.notReady, Version: versionString(), Log: s.log,
		Gatherer: s.registry, Registerer: s.registry, Hooks: s.replayer(), EventsOff: !s.cfg.Events,
	})
	if err != nil {
		return fault(err)
	}
	front := http.NewServeMux()
	if s.cfg.edge() {
		front.Handle(wire.Path, s.edge.Handler())
	}
	api.Health(front, s.notReady)
	if s.cfg.Dev {
		front.Handle("/", demo.Handler(demo.Options{Token: s.demoToken}))
	}
	proxies, err := listen.ParseProxies(s.cfg.TrustedProxy)
	if err != nil {
		return err
	}
	cert, err := s.certificate(ctx)
	if err != nil {
		return err
	}
	if err := s.openPorts(ctx); err != nil {
		return err
	}
	clients := s.listen
	if cert == nil && s.cfg.edge() {
		f := listen.NewFront(clients, wire.Path, proxies.Handler(s.edge.Handler()), s.log)
		clients = f.Rest()
		s.serving.Go(f.Serve)
	}
	s.serve(ctx, listen.NewServer(proxies.Handler(front), s.log), clients, cert)
	s.serve(ctx, listen.NewServer(s.withOperator(withPprof(s.calls, s.cfg)), s.log), s.apiListen, nil)
	return nil
}

// certificate is what clients are shown, nil without TLS.
func (s *server) certificate(ctx context.Context) (*listen.Certificate, error) {
	if s.cfg.TLSCert == "" {
		return nil, nil
	}
	cert, err := listen.LoadCertificate(s.cfg.TLSCert, s.cfg.TLSKey, s.log)
	if err != nil {
		return nil, fmt.Errorf("tls-cert, tls-key: %w", err)
	}
	s.serving.Go(func() { cert.Watch(ctx) })
	return cert, nil
}

// serve answers requests until ctx ends; those under way have a second then.
func (s *server) serve(ctx context.Context, h *http.Server, ln net.Listener, cert *listen.Certificate) {
	s.serving.Go(func() {
		if err := listen.Serve(ctx, h, ln, cert, time.Second); err != nil {
			s.failed <- err
		}
	})
}

func apiKeys(cfg Config) (list []api.Key, err error) {
	for _, text := range cfg.APIKey {
		key, err := api.ParseKey(text, cfg.Dev)
		if err != nil {
			return nil, fmt.Errorf("api-key: %w", err)
		}
		list = append(list, key)
	}
	return list, nil
}

// demoToken signs tokens for whoever asks; only --dev serves it.
func (s *server) demoToken(user string) (string, error) {
	key, err := signingKey(s.cfg)
	if err != nil {
		return "", err
	}
	return mint(s.cfg, key, auth.Claims{User: user, Caps: demo.Caps}, 24*time.Hour)
}

// notReady says why the node should get no clients now.
func (s *server) notReady() []string {
	if s.draining.Load() {
		return []string{"draining"}
	}
	why := s.storageNotReady()
	if n, one := s.unreadable(); n > 0 {
		why = append(why, fmt.Sprintf("%d shards do not open, shard %d is one: the log says why", n, one))
	}
	if err := s.edge.Ready(); err != nil {
		why = append(why, err.Error())
	}
	return why
}

// unreadable counts the shards that this node leads and whose actors did not begin: their
// rows cannot be read.
func (s *server) unreadable() (n int, one uint32) {
	for shard := uint32(0); s.core != nil && shard < link.Shards; shard++ {
		if s.durable.Open(shard) && !s.core.Serves(shard) {
			n, one = n+1, shard
		}
	}
	return n, one
}

// drain turns readiness off and sends the clients away; ctx cuts it short. With --dev
// there is no other node for them to go to, so nothing waits for them.
func (s *server) drain(ctx context.Context) {
	s.draining.Store(true)
	if s.cfg.Dev {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.DrainWindow)
		defer cancel()
	}
	s.handOver(ctx)
	if err := s.edge.Drain(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("drain", "error", err)
	}
}

// close stops everything at once, in the order of the way of a message.
func (s *server) close() { s.closing.Do(s.shut) }

func (s *server) shut() {
	if s.calls != nil {
		s.calls.Close()
	}
	s.stop()
	s.serving.Wait()
	s.closePorts()
	if s.pipe != nil {
		s.pipe.Close(true)
	}
	if s.edge != nil {
		_ = s.edge.Close()
	}
	if s.webhook != nil {
		s.webhook.Close()
	}
	s.flush()
	if s.members != nil {
		s.members.Rest()
	}
	if s.durable != nil {
		s.durable.Stop()
	}
	if s.core != nil {
		s.core.Stop()
	}
	if s.members != nil {
		s.members.Stop()
	}
	if s.audience != nil {
		s.audience.Close()
	}
	if s.durable != nil {
		if err := s.durable.Close(); err != nil {
			s.log.Error("closing the data directory", "error", err)
		}
	}
	s.removeTemporary()
}

// flush stores what would be stored within seconds.
func (s *server) flush() {
	if s.core == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushing)
	defer cancel()
	if err := s.core.Flush(ctx); err != nil {
		s.log.Warn("not everything was stored", "error", err)
	}
}

// flushing is how long a stop waits for the disk.
const flushing = 2 * time.Second

func (s *server) register() {
	registerProcess(s.registry)
	if s.core != nil {
		registerCore(s.registry, s.core.Stats())
		registerStorage(s.registry, s.durable)
	}
	if s.members != nil {
		registerMembers(s.registry, s.members)
	}
	s.registry.MustRegister(s.edge)
}
