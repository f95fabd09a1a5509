//go:build !linux

package chaos

import (
	"context"
	"errors"
	"io"
)

var errLinux = errors.New("chaos needs Linux: it stops processes, cuts networks and fills disks")

// Run is there on Linux only.
func Run(context.Context, Options) error { return errLinux }

// Writers is there on Linux only.
func Writers(context.Context, io.Reader, io.Writer) error { return errLinux }
