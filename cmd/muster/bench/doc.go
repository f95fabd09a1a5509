// Package bench measures a Muster server from the outside, over the wire protocol.
//
// The generator is one goroutine over one epoll set: raw non-blocking sockets, a
// hand-made WebSocket client, frames built before the clock starts. It has to be much
// cheaper than the server, or the figures would be its own; every run reports how busy
// it was.
//
// Unless a running server is named, the server is a child process of the same binary,
// pinned to the first core; the generator is pinned to the last.
// Cost is the child's CPU clock, kernel time included, and its resident set; kernel
// socket memory stands apart. Where a figure has a floor, a child that does the same
// writes and nothing else runs in the same call, alternating A/B/B/A.
//
// Every run counts what was sent and what arrived, compares the last view of every
// watcher with the truth, and fails if they differ.
package bench
