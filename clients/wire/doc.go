// Package wire is the protocol between Muster and its clients: the messages, their JSON
// form, the error and close codes, and the bounds that both sides keep to.
//
// muster.proto is the only source. protoc-gen-go makes the Go types (and later the
// binary subprotocol) of it, and internal/jsongen the JSON codec and docs/protocol.md.
// JSON is generated rather than reflected upon because an edge encodes every change it
// fans out: a presence takes about 0.3 µs and no allocation.
//
// A frame is up to 64 lines, each one JSON object ([Lines], [Decode], AppendJSON). Two
// kinds of error are kept apart: a [SyntaxError] means that the other side does not
// speak the protocol, the socket is closed with 4002; a [FieldError] is one bad
// command, answered with error 107 and the field's path.
package wire
