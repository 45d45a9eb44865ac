package status

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/examples/fleet/internal/file"
)

// name is that of the file in an agent's state directory.
const name = "status.json"

// Path is where an agent leaves its State in its state directory.
func Path(dir string) string { return filepath.Join(dir, name) }

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
	return file.Replace(Path(dir), append(b, '\n'), 0o644)
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
