package persistence

import "io"

// Backup writes all groups as they stand at one moment.
func (s *Store) Backup(w io.Writer) error { return nil }

// Restore makes a new cluster of one node in an empty directory from a backup.
func Restore(dir string, r io.Reader, o Options) (Identity, error) { return Identity{}, nil }
