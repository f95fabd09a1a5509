package main

import "time"

// Config is every setting of the server. The tags declare name, default and help; a
// tag secret:"true" masks the value when settings are printed, hidden:"true" keeps a setting
// out of --help and the docs. Durations are written
// as 20s or 5m, lists with commas (in YAML also as lists).
type Config struct {
	Listen    string `koanf:"listen" default:"127.0.0.1:8000" help:"address for WebSocket clients, /healthz and /readyz"`
	APIListen string `koanf:"api-listen" default:"127.0.0.1:8001" help:"address of the HTTP API and /metrics"`
	Dev       bool   `koanf:"dev" default:"false" help:"try it out: loopback only, well-known keys, demo page at /"`
	Data      string `koanf:"data" default:"muster-data" help:"directory of everything that is stored; one process at a time (with --dev, unless it is set: a temporary one, removed at the end)"`
	ClusterID string `koanf:"cluster-id" default:"" help:"refuse a data directory of another cluster than this one (muster inspect shows the id)"`
	Cache     string `koanf:"cache" default:"64MiB" help:"memory for parts of the data files, 8MiB or more"`
	NodeName  string `koanf:"node-name" default:"" help:"name of this node (default: the host name)"`

	Role              string   `koanf:"role" default:"both" help:"what this node does: core (holds users, rooms and their data), edge (holds sockets, needs no disk) or both"`
	Join              []string `koanf:"join" default:"" help:"gossip addresses (host:port) of nodes of the cluster to join; any that answers will do"`
	Expect            int      `koanf:"expect" default:"0" help:"give birth to a cluster together with the first nodes of join, once this many are there; 0: join one that exists"`
	Bind              string   `koanf:"bind" default:"" help:"address to meet other nodes on (default: none without join, then 127.0.0.1)"`
	Advertise         string   `koanf:"advertise" default:"" help:"address at which other nodes reach this one (default: bind)"`
	GossipPort        int      `koanf:"gossip-port" default:"7946" help:"port of the gossip, TCP and UDP"`
	ActorPort         int      `koanf:"actor-port" default:"7947" help:"port of the streams between edges and cores, TCP"`
	RaftPort          int      `koanf:"raft-port" default:"7948" help:"port of the streams that replicate, TCP"`
	ClusterSecret     []string `koanf:"cluster-secret" default:"" secret:"true" help:"secret of all nodes of the cluster, 16 bytes or more, no commas; required as soon as bind is not loopback. While it is replaced, several: the first is used, the others are accepted too"`
	ClusterSecretFile string   `koanf:"cluster-secret-file" default:"" help:"file that holds what cluster-secret does, one secret a line"`
	Zone              string   `koanf:"zone" default:"" help:"where this node stands, such as a data centre; replicas of a shard spread over zones"`

	JWTKey     string   `koanf:"jwt-key" default:"" secret:"true" help:"key that signs client tokens: an HS256 secret, or a PEM public key (RS256, ES256, EdDSA)"`
	JWTKeyFile string   `koanf:"jwt-key-file" default:"" help:"file that holds the key of jwt-key"`
	JWKSURL    []string `koanf:"jwks-url" default:"" help:"key sets (https URLs) that sign client tokens"`
	Issuer     string   `koanf:"issuer" default:"" help:"iss that client tokens must carry"`
	Audience   string   `koanf:"audience" default:"" help:"aud that client tokens must carry"`
	Origin     []string `koanf:"origin" default:"" help:"origins that browsers may connect from, such as https://app.example; * within a host name allowed"`

	TLSCert      string   `koanf:"tls-cert" default:"" help:"certificate for clients, PEM; read again when it changes"`
	TLSKey       string   `koanf:"tls-key" default:"" help:"private key of tls-cert, PEM"`
	TrustedProxy []string `koanf:"trusted-proxy" default:"" help:"networks (CIDR) or addresses whose X-Forwarded-For or Forwarded is believed"`
	APIKey       []string `koanf:"api-key" default:"" secret:"true" help:"bearer keys of the HTTP API; app:key binds one to an app"`
	Pprof        bool     `koanf:"pprof" default:"false" help:"serve /debug/pprof on the API listener, behind the API key"`

	DefaultAudience []string `koanf:"default-audience" default:"last_seen=contacts,devices=contacts" help:"who sees what unless a user says otherwise: field=everyone|contacts|nobody; fields state, last_seen, status, devices, activity, typing, receipts"`

	OutboxTTL        time.Duration `koanf:"outbox-ttl" default:"168h" help:"how long an entry waits if its publisher does not say, 10s to 720h"`
	Events           bool          `koanf:"events" default:"false" help:"keep user.online, user.offline and user.state for /v1/events; webhook switches it on"`
	EventsKeep       time.Duration `koanf:"events-keep" default:"24h" help:"how long events can be read, 1h to 720h"`
	Webhook          string        `koanf:"webhook" default:"" help:"URL that is sent the events"`
	WebhookSecret    []string      `koanf:"webhook-secret" default:"" secret:"true" help:"secrets that sign webhooks, whsec_… as in Standard Webhooks; several while one is being replaced"`
	WebhookAllowHTTP bool          `koanf:"webhook-allow-http" default:"false" help:"let webhook and audience-hook be http to other machines, where bodies can be read on the way"`
	AudienceHook     string        `koanf:"audience-hook" default:"" help:"URL that is asked for the contacts of a user, for applications that keep them"`

	DrainWindow time.Duration `koanf:"drain-window" default:"20s" help:"time over which clients are sent away on SIGTERM, 5s to 10m"`

	Ping      time.Duration `koanf:"ping" default:"20s" help:"longest time between pings; each is up to 20 % earlier"`
	Pong      time.Duration `koanf:"pong" default:"10s" help:"time for the answer to a ping"`
	AwayAfter time.Duration `koanf:"away-after" default:"5m" help:"a device without activity is away after this, 1m to 60m"`

	GraceGone     time.Duration `koanf:"grace-gone" default:"5s" help:"time to offline after page navigation or a TCP connection closed without goodbye"`
	GraceSilence  time.Duration `koanf:"grace-silence" default:"15s" help:"time to offline after silence, 0 to 2m"`
	GraceDrain    time.Duration `koanf:"grace-drain" default:"60s" help:"time to offline for clients that were sent away by a drain"`
	GraceInactive time.Duration `koanf:"grace-inactive" default:"2m" help:"time to offline for a mobile client in the background, 0 to 10m"`
	StormGuard    bool          `koanf:"storm-guard" default:"true" help:"hold offline back while very many sessions are lost at once"`
	ResumeWindow  time.Duration `koanf:"resume-window" default:"2m" help:"how long a session can be resumed, 0 to 15m"`

	MaxConns    int     `koanf:"max-conns" default:"1000000" help:"connections on this node"`
	MaxDevices  int     `koanf:"max-devices" default:"20" help:"devices of one user with a session, 1 to 1000"`
	MaxWatches  int     `koanf:"max-watches" default:"5000" help:"watched users of one session, 1 to 50000"`
	ConnRate    float64 `koanf:"conn-rate" default:"20" help:"commands a second of one connection"`
	ConnBurst   int     `koanf:"conn-burst" default:"50" help:"commands that one connection may send at once"`
	UserRate    float64 `koanf:"user-rate" default:"50" help:"commands a second of one user over all devices"`
	AdmitNew    float64 `koanf:"admit-new" default:"2000" help:"new sessions a second on this node, twice as many at once"`
	AdmitResume float64 `koanf:"admit-resume" default:"10000" help:"handshakes and resumed sessions a second on this node, twice as many at once"`

	LogLevel   string `koanf:"log-level" default:"info" help:"debug, info, warn or error"`
	LogFormat  string `koanf:"log-format" default:"text" help:"text or json"`
	GOGC       int    `koanf:"gogc" default:"60" help:"garbage collector target, per cent of the live heap"`
	GOMEMLIMIT string `koanf:"gomemlimit" default:"" help:"soft memory limit of the process, such as 2GiB (default: none)"`
	Audit      string `koanf:"audit" default:"" hidden:"true" help:"file that gets a JSON line per published entry before its sender is told, for muster chaos"`
	Newer      int    `koanf:"claim-newer" default:"0" hidden:"true" help:"claim to be a build so many minor versions newer, for tests of rolling upgrades"`
}
