//go:build linux

package agent

import (
	"log/slog"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// The link has the config that the node joined with, so the routes must have it too.
func TestAnotherConfigIsNotMixedWithTheNodes(t *testing.T) {
	t.Parallel()
	config := state.DefaultConfig()
	other := config
	other.VNI++
	for _, c := range []struct {
		name    string
		stored  *state.Config
		recheck bool
	}{
		{"none", nil, true},
		{"another", &other, true},
		{"the same", new(config), false},
	} {
		a := &agent{
			Options: Options{Log: slog.New(slog.DiscardHandler)}, id: self, config: &config, prefixes: known().Nodes[self].Prefixes,
			page: &page{}, member: &member{wake: make(chan struct{}, 1)},
		}
		s := known()
		s.Config = c.stored
		a.takeSnapshot(s)
		if !a.snapshot.Config.Equal(config) {
			t.Errorf("%s: the plan is for %s", c.name, state.Encode(a.snapshot.Config))
		}
		if a.member.doubt != c.recheck {
			t.Errorf("%s: the membership looks again: %v; want %v", c.name, a.member.doubt, c.recheck)
		}
		if s.Config != c.stored {
			t.Errorf("%s: the snapshot was changed", c.name)
		}
	}
}
