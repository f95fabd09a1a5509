// Package cluster runs the Raft groups of a core node.
package cluster
