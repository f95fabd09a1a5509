package birth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	fileName   = "birth"
	fileFormat = 1
)

// load reads the state, or returns that of a directory which has none yet.
func load(dir string) (s state, found bool, err error) {
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{Format: fileFormat}, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("birth: %w", err)
	}
	if s, err = decodeState(b); err != nil {
		return s, false, fmt.Errorf("birth: %s: %w", path, err)
	}
	return s, true, nil
}

func decodeState(b []byte) (s state, err error) {
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("cannot be read: %w", err)
	}
	switch a := s.Attempt; {
	case s.Format > fileFormat:
		return s, fmt.Errorf("format %d, this version knows %d: start the newer muster", s.Format, fileFormat)
	case s.Format < 1 || s.Node == 0:
		return s, errors.New("cannot be read: it names no format or no node")
	case a != nil && (a.Cluster == "" || len(a.Parties) == 0 || a.Parties[0].ID != s.Node):
		return s, errors.New("cannot be read: its attempt is not complete")
	case s.Pledge != nil && (s.Pledge.Cluster == "" || s.Pledge.To.ID == 0):
		return s, errors.New("cannot be read: its pledge is not complete")
	}
	return s, nil
}

// save replaces the file; when it returns nil, the state is on the disk.
func save(dir string, s state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if err := writeSynced(path+".new", append(bytes.TrimSpace(b), '\n')); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	return syncDir(dir)
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("birth: %w", err)
	}
	return nil
}
