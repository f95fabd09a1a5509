// Package api is the HTTP API for an application's backend, on a listener of its
// own: it asks and acts for users, and serves health and metrics.
//
// It holds no state. Each call becomes messages to the shards it concerns, sent
// through a Caller; a batch goes to its shards in parallel and answers 200 with a
// result per item. What a shard cannot say is "unknown", never offline.
//
// The OpenAPI document is generated from the handlers, so it cannot lie; a golden
// file shows each change of it in review. Every error, those of the router, of the
// decoder and of a panic too, has the one body of docs/errors.md.
package api
