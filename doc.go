// Package muster is the root of the module; it holds only the test that keeps the
// layout and the import directions. The program is cmd/muster, the Go SDK clients/go.
package muster
