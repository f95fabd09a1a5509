package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster/actors/link"
)

// Caller carries a message to the shard that up.Shard names and waits for its
// answer. It fills in call ids and what the link needs; it returns an error if the
// shard cannot be reached or ctx is done. Safe for concurrent use.
type Caller interface {
	Call(ctx context.Context, up *link.Up) (*link.Down, error)
}

// Bounds of a request.
const (
	maxBody        = 1 << 20          // bytes
	maxBatch       = 1000             // items of a batch
	requestTimeout = 10 * time.Second // a whole request
	callTimeout    = 3 * time.Second  // one shard's answer
)

// Config says what an API stands on.
type Config struct {
	Caller Caller
	Keys   []Key           // none: every call of the API is refused
	Ready  func() []string // why the node is not ready, sorted; empty: it is. nil: always ready

	Gatherer   prometheus.Gatherer   // what /metrics shows; nil: no /metrics
	Registerer prometheus.Registerer // where the API's own metrics go; nil: nowhere

	EventsOff bool     // no events are kept: reading them is refused
	Hooks     Replayer // the webhook's dispatcher; nil: there is no webhook

	Version  string           // of the server, for OpenAPI
	Now      func() time.Time // default time.Now
	NewEpoch func() uint64    // default at random; never 0
	Log      *slog.Logger     // default slog.Default
}

// API is the HTTP API. It is an http.Handler.
type API struct {
	cfg     Config
	mux     *http.ServeMux
	huma    huma.API
	metrics *metrics

	streaming atomic.Int64
	streams   chan struct{} // closed: streams end
	end       sync.Once
}

// Close ends the streams, so that the server can shut down. All else goes on.
func (a *API) Close() { a.end.Do(func() { close(a.streams) }) }

var humaErrors = sync.OnceFunc(func() { huma.NewError = newHumaError })

// New makes the API.
func New(cfg Config) (*API, error) {
	if cfg.Caller == nil {
		return nil, errors.New("api: no Caller")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewEpoch == nil {
		cfg.NewEpoch = newEpoch
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Ready == nil {
		cfg.Ready = func() []string { return nil }
	}
	humaErrors()
	a := &API{cfg: cfg, mux: http.NewServeMux(), streams: make(chan struct{})}
	var err error
	if a.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	a.huma = humago.New(a.mux, humaConfig(cfg.Version))
	a.users()
	a.acts()
	a.relations()
	a.lists()
	a.rooms()
	a.publishing()
	a.contacts()
	a.outboxes()
	a.events()
	if err := a.serveOpenAPI(); err != nil {
		return nil, fmt.Errorf("api: OpenAPI: %w", err)
	}
	Health(a.mux, cfg.Ready)
	if cfg.Gatherer != nil {
		a.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	}
	return a, nil
}

func humaConfig(version string) huma.Config {
	if version == "" {
		version = "dev"
	}
	strict := func(data []byte, v any) error {
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("not valid JSON: %w", err)
		}
		return nil
	}
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: strict}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Muster HTTP API",
				Version:     version,
				Description: "Ask and act for users from an application's backend.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"key": {Type: "http", Scheme: "bearer", Description: "An API key of the server (--api-key)"},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json",
	}
}

type body[T any] struct{ Body T }

// empty is the answer of an act: {}.
type empty struct {
	_ struct{} `json:"-" additionalProperties:"true"`
}

// handle adds a call of the API.
func handle[I, O any](a *API, op huma.Operation, f func(context.Context, *I) (O, error)) {
	op.Security = []map[string][]string{{"key": {}}}
	op.MaxBodyBytes = maxBody + 1
	one, longest := 1, 128
	app := &huma.Schema{Type: huma.TypeString, MinLength: &one, MaxLength: &longest, Pattern: idPattern}
	op.Parameters = append(op.Parameters,
		&huma.Param{Name: "X-Muster-App", In: "header", Schema: app,
			Description: "The app (tenant), for keys that are not bound to one; default \"default\""},
		&huma.Param{Name: "app", In: "query", Schema: app, Description: "The same as X-Muster-App"})
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*body[O], error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, err
		}
		return &body[O]{out}, nil
	})
}

const idPattern = "^[A-Za-z0-9._@+=-]{1,128}$"

type (
	appKey   struct{} // of the request's app
	boundKey struct{} // of whether its key is bound to that app
)

func appOf(ctx context.Context) string { app, _ := ctx.Value(appKey{}).(string); return app }

// call asks one shard.
func (a *API) call(ctx context.Context, up *link.Up) (*link.Down, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	down, err := a.cfg.Caller.Call(ctx, up)
	if err != nil {
		return nil, callError(err)
	}
	if down == nil {
		return nil, wrongAnswer()
	}
	return down, nil
}

// act sends a command for a user and waits for its end.
func (a *API) act(ctx context.Context, act *link.Act) error {
	acted, err := a.acted(ctx, act)
	if err != nil {
		return err
	}
	return coreError(acted.Code, acted.Message)
}

// acted is act with what the shard says.
func (a *API) acted(ctx context.Context, act *link.Act) (*link.Acted, error) {
	act.App = appOf(ctx)
	down, err := a.call(ctx, &link.Up{
		Shard: link.ShardOf(act.App, link.KindUser, act.User),
		Body:  &link.Up_Act{Act: act},
	})
	if err != nil {
		return nil, err
	}
	if acted := down.GetActed(); acted != nil {
		return acted, nil
	}
	return nil, wrongAnswer()
}

// parallel runs f for 0 to n-1, at most as many at a time as there are shards, and
// waits. A panic of one is raised again here, where the request's is contained.
func parallel(n int, f func(i int)) {
	var next atomic.Int64
	var broken atomic.Pointer[any]
	var wg sync.WaitGroup
	for range min(n, link.Shards) {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					broken.CompareAndSwap(nil, &p)
				}
			}()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
	if p := broken.Load(); p != nil {
		panic(*p)
	}
}

// eachShard runs f for the shards in parallel. f keeps its result, and its failure.
func eachShard(shards []uint32, f func(shard uint32)) {
	parallel(len(shards), func(i int) { f(shards[i]) })
}

var allShards = func() (all []uint32) {
	for shard := range uint32(link.Shards) {
		all = append(all, shard)
	}
	return all
}()

// serveOpenAPI renders the document once, with its schemas in a stable order.
func (a *API) serveOpenAPI() error {
	asJSON, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	if err != nil {
		return err
	}
	asYAML, err := a.huma.OpenAPI().YAML()
	if err != nil {
		return err
	}
	a.mux.HandleFunc("GET /v1/openapi.json", static("application/openapi+json", asJSON))
	a.mux.HandleFunc("GET /v1/openapi.yaml", static("application/openapi+yaml", asYAML))
	return nil
}

func static(contentType string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(data)
	}
}
