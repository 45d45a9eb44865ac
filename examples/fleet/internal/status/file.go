package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// file is the name of the file in an agent's state directory.
const file = "status.json"

// Path is where an agent leaves its State in its state directory.
func Path(dir string) string { return filepath.Join(dir, file) }

// Write leaves a State in an agent's state directory. Whoever reads meanwhile, or after a crash, has the old one or the new one
// whole. A State that is not valid is not written; the error is os.ErrInvalid.
func Write(dir string, s State) error {
	if err := write(dir, s); err != nil {
		return fmt.Errorf("writing %s: %w", Path(dir), err)
	}
	return nil
}

func write(dir string, s State) error {
	if err := s.Validate(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, file+".")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), Path(dir))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Read reads what an agent has left. The error is os.ErrNotExist if it has left nothing, and os.ErrInvalid if the file is no
// State.
func Read(dir string) (State, error) {
	f, err := os.Open(Path(dir))
	if err != nil {
		return State{}, err
	}
	defer f.Close()
	s, err := decode(f)
	if err != nil {
		return State{}, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return s, nil
}
