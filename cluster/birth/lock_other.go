//go:build !unix

package birth

import (
	"fmt"
	"os"
)

// lockDir locks nothing here: the port of gossip, which two processes cannot share, has to do.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("birth: %w", err)
	}
	return d, nil
}
