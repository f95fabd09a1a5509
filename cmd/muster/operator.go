package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"muster/clients/wire"
	"muster/cluster/meta"
)

// withOperator adds what concerns no app, behind the API keys that are bound to none.
func (s *server) withOperator(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	for pattern, f := range map[string]http.HandlerFunc{
		"GET " + backupPath:   s.sendBackup,
		"GET " + clusterPath:  s.sendCluster,
		"GET " + replicasPath: s.sendReplicas,
		"POST /v1/nodes/{name}/drain": s.orderNode(func(ctx context.Context, a *meta.Agent, name string, r *http.Request) error {
			return a.Drain(ctx, name, true, r.URL.Query().Has("reduce"))
		}),
		"POST /v1/nodes/{name}/undrain": s.orderNode(func(ctx context.Context, a *meta.Agent, name string, _ *http.Request) error {
			return a.Drain(ctx, name, false, false)
		}),
		"POST /v1/nodes/{name}/remove": s.orderNode(func(ctx context.Context, a *meta.Agent, name string, _ *http.Request) error {
			return a.Remove(ctx, name)
		}),
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !operator(r, s.cfg) {
				refuse(w, wire.CodeUnauthorized, "want an API key that is bound to no app: Authorization: Bearer KEY")
				return
			}
			f(w, r)
		})
	}
	return mux
}

// orderTime is how long the meta group may take to commit an order.
const orderTime = 10 * time.Second

// orderNode answers a request about a node, by its name.
func (s *server) orderNode(do func(context.Context, *meta.Agent, string, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.members == nil || s.members.Meta() == nil {
			refuse(w, wire.CodeNotAvailable, "this node is alone or an edge: ask a core of a cluster")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), orderTime)
		defer cancel()
		err := do(ctx, s.members.Meta(), r.PathValue("name"), r)
		switch {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, meta.ErrNoNode):
			refuse(w, wire.CodeUnknownTarget, err.Error())
		case errors.Is(err, meta.ErrAlive):
			refuse(w, wire.CodeConflict, err.Error())
		default:
			refuse(w, wire.CodeNotReady, err.Error())
		}
	}
}

// refuse answers with an error as the rest of the API does.
func refuse(w http.ResponseWriter, code wire.Code, message string) {
	info, _ := code.Info()
	answer(w, info.HTTP, code.Error(message, 0))
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
