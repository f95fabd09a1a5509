//go:build unix

package birth

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDir keeps a second process out: two that know nothing of each other's pledges could each give one.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("birth: %w", err)
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("in use by another process")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("birth: %s: %w", dir, err), d.Close())
	}
	return d, nil
}
