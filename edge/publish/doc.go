// Package publish checks what may be put into an outbox, once for WebSocket clients and the HTTP API: the client id,
// by which the same request is known again, the body, how urgent it is and how long it waits. It also says what
// the refusals of a shard are to them, and which of these leave it open whether the entry was stored, so that the same id is sent again.
package publish
