package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/examples/fleet/internal/file"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// identity is who a node is. It is a file in the agent's state directory, made at the first start and never changed.
type identity struct {
	Version int      `json:"version"`
	Fleet   string   `json:"fleet"`
	ID      state.ID `json:"id"`
}

const identityFile = "identity.json"

// loadIdentity reads the identity in dir, or makes one. It refuses that of another fleet.
func loadIdentity(dir, fleet string) (state.ID, error) {
	path := filepath.Join(dir, identityFile)
	var own identity
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		own = identity{Version: state.Version, Fleet: fleet, ID: state.NewID()}
		if err := file.Replace(path, state.Encode(own), 0o600); err != nil {
			return state.ID{}, fmt.Errorf("make the node's identity: %w", err)
		}
		return own.ID, nil
	case err != nil:
		return state.ID{}, fmt.Errorf("read the node's identity: %w", err)
	}
	if err := json.Unmarshal(text, &own); err != nil {
		return state.ID{}, fmt.Errorf("%s is damaged: %w; without it the node is a new one: remove it to let that happen", path, err)
	}
	switch {
	case own.Version != state.Version:
		return state.ID{}, fmt.Errorf("%s has version %d: this program knows %d", path, own.Version, state.Version)
	case own.Fleet != fleet:
		return state.ID{}, fmt.Errorf("%s is of the fleet %q, and this is %q: give each fleet a state directory of its own", path, own.Fleet, fleet)
	case own.ID == (state.ID{}):
		return state.ID{}, fmt.Errorf("%s has no id", path)
	}
	return own.ID, nil
}
