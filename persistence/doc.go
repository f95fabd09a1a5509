// Package persistence is a core node's disk: one Pebble instance that holds the Raft log,
// hard state and rows of every group of the node.
package persistence
