// Package durable joins the actors of a node to the store that keeps their rows and
// to the Raft engine that replicates them. It has no rule of its own: the server, the
// benchmark and the crash tests all put the three together in this one way.
package durable
