package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/examples/fleet/internal/file"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// cache is the last that an agent knew of its fleet, kept in its state directory. With it a machine that starts while the store
// is away wires its boxes and reaches its peers, and a store that came back empty gets its config back.
type cache struct {
	Version int          `json:"version"`
	Pairs   []state.Pair `json:"pairs"`
}

const cacheFile = "last.json"

// loadCache reads the last snapshot. Without one, or with one that is damaged, it is nil; the error says why.
func loadCache(dir string) (*state.Snapshot, error) {
	text, err := os.ReadFile(filepath.Join(dir, cacheFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var c cache
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err == nil && c.Version != state.Version {
		err = fmt.Errorf("version %d: this program knows %d", c.Version, state.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("the last known state in %s: %w", filepath.Join(dir, cacheFile), err)
	}
	return state.Decode(0, slices.Values(c.Pairs)), nil
}

// sameCache reports whether the cache of both is the same.
func sameCache(x, y *state.Snapshot) bool {
	sameConfig := x.Config == y.Config || x.Config != nil && y.Config != nil && x.Config.Equal(*y.Config)
	return sameConfig && maps.Equal(x.Claims, y.Claims) && maps.EqualFunc(x.Nodes, y.Nodes, state.Node.Equal) &&
		maps.EqualFunc(x.Dead, y.Dead, func(x, y state.Dead) bool { return x.Since.Equal(y.Since) })
}

// saveCache keeps config, claims, nodes and dead. Who is alive is not kept: it would be stale.
func saveCache(dir string, s *state.Snapshot) error {
	c := cache{Version: state.Version}
	add := func(key string, v any) { c.Pairs = append(c.Pairs, state.Pair{Key: key, Value: state.Encode(v)}) }
	if s.Config != nil {
		add(state.ConfigKey, s.Config)
	}
	for _, n := range s.Sorted() {
		add(state.NodeKey(n.ID), n)
		if d, ok := s.Dead[n.ID]; ok {
			add(state.DeadKey(n.ID), d)
		}
	}
	for p, id := range s.Claims {
		add(state.ClaimKey(p), state.Claim{Version: state.Version, Node: id})
	}
	slices.SortFunc(c.Pairs, func(a, b state.Pair) int { return strings.Compare(a.Key, b.Key) })
	return file.Replace(filepath.Join(dir, cacheFile), state.Encode(c), 0o600)
}
