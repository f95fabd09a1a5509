//go:build !linux

package bench

import (
	"context"
	"errors"
)

// Kinds of floor.
const (
	FloorCoder = "coder"
	FloorRaw   = "raw"
)

var errLinux = errors.New("the benchmark needs Linux: it pins processes and reads /proc")

// Run is there on Linux only.
func Run(context.Context, Options) error { return errLinux }

// FloorServer is there on Linux only.
func FloorServer(string, int, int) error { return errLinux }
