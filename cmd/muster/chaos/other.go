//go:build !linux

package chaos

import (
	"context"
	"errors"
)

// Run is there on Linux only.
func Run(context.Context, Options) error {
	return errors.New("chaos needs Linux: it stops processes, cuts networks and fills disks")
}
