//go:build linux

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// The store may fail each time that it is asked, so it is asked until it says what it should.
func TestTheStoreIsAskedAgainAboutADeadNode(t *testing.T) {
	r, now := requests{}, time.Unix(1e9, 0)
	down, noted := map[state.ID]bool{peer: true}, map[state.ID]state.Dead{}
	due := func(wantNote, wantLetGo bool, wantNext time.Time) {
		t.Helper()
		note, letGo, next := r.due(down, noted, now)
		if slices.Contains(note, peer) != wantNote || slices.Contains(letGo, peer) != wantLetGo || !next.Equal(wantNext) {
			t.Errorf("note %v, let go of %v, next %v; want %v, %v, %v", note, letGo, next, wantNote, wantLetGo, wantNext)
		}
	}
	due(true, false, now.Add(askAgain))
	first := now
	now = now.Add(time.Second)
	due(false, false, first.Add(askAgain)) // it is under way
	now = first.Add(askAgain)
	due(true, false, now.Add(askAgain)) // it failed

	noted[peer] = state.Dead{Since: first}
	due(false, false, first.Add(keepDead))
	now = first.Add(keepDead)
	due(false, true, now.Add(askAgain))
	now = now.Add(askAgain)
	due(false, true, now.Add(askAgain))

	down = map[state.ID]bool{} // it is back
	due(false, false, time.Time{})
	if len(r) != 0 {
		t.Errorf("remembered of a node that is not down: %v", r)
	}
	down = map[state.ID]bool{peer: true} // and dead once more
	delete(noted, peer)
	due(true, false, now.Add(askAgain))
}
