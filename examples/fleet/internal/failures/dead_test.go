package failures

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
)

// die kills the node's agent and takes its machine off the network.
func (n *node) die() {
	n.w.t.Helper()
	n.w.must(n.Kill())
	n.w.must(n.host.Cut(n.w.soon()))
}

// A node that dies is unreachable after the hold, and no sooner: callers are told at once. It keeps its prefix, and is reached again
// when it is back. One that does not come back is taken out after a day. And a node whose agent alone is gone stays as it is.
func TestNodeDies(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1, 0, 0}, ttl: "1s"})
	a, returns, gone, quiet := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
	w.settled(w.nodes...)
	w.must(quiet.Kill())
	s := w.traffic(a, quiet)
	silent := a.routes(quiet)

	died := time.Now()
	returns.die()
	gone.die()
	for _, n := range []*node{returns, gone} {
		a.sees(n, "down", isDown)
	}
	// Its key lived on, and then the hold began.
	if took := time.Since(died); took < w.hold() {
		t.Errorf("a node was down after %v, before the hold of %v was over", took, w.hold())
	} else {
		w.step("down after " + took.Round(time.Millisecond).String())
	}
	for _, n := range []*node{returns, gone} {
		for i, route := range a.routes(n) {
			if !strings.HasPrefix(route, "unreachable "+n.prefixes[i].String()) {
				t.Errorf("the route to a dead node is %q", route)
			}
		}
	}
	w.refused(a, returns)
	w.step("callers are refused")

	var dead *state.Snapshot
	w.until(func() (err error) {
		if dead, err = w.snapshot(); err == nil && len(dead.Dead) != 2 {
			err = fmt.Errorf("the store has as dead %v, want two", dead.Dead)
		}
		return err
	})
	for _, n := range []*node{returns, gone} {
		if since := dead.Dead[n.id()].Since; since.Before(died.Add(-time.Second)) || since.After(time.Now()) {
			t.Errorf("%s is dead since %v, it died at %v", n.Name, since, died)
		}
		for _, p := range n.prefixes {
			if dead.Claims[p] != n.id() {
				t.Errorf("the claim of %v is %v's", p, dead.Claims[p])
			}
		}
	}

	// One comes back.
	w.must(returns.host.Heal(w.soon()))
	w.must(returns.Start())
	a.sees(returns, "up", func(p status.Peer) bool { return p.Alive && !p.Down })
	w.reach(a, returns)
	w.reach(returns, a)
	after := w.settled(a, returns)
	w.same(after, returns)
	if _, ok := after.Dead[returns.id()]; ok {
		t.Error("the one that is back is dead in the store")
	}
	w.step("one is back")

	// The other one does not, for a day. Neither does the agent that is gone alone, but its machine is there.
	for _, n := range []*node{gone, quiet} {
		w.put(state.DeadKey(n.id()), string(state.Encode(state.Dead{Version: state.Version, Since: time.Now().Add(-25 * time.Hour)})))
	}
	w.until(func() error {
		now, err := w.snapshot()
		if err == nil && (len(now.Nodes) != 3 || holds(now, gone.id())) {
			err = fmt.Errorf("the store still has the node that is dead for long: %+v", now)
		}
		return err
	})
	w.until(func() error {
		for _, route := range a.routes(gone) {
			if route != "" {
				return fmt.Errorf("the node that was taken out has the route %q", route)
			}
		}
		return nil
	})
	w.step("one is taken out")
	w.refused(a, gone) // by the pool's route
	w.must(gone.host.Heal(w.soon()))
	w.must(gone.Start())
	a.sees(gone, "up", func(p status.Peer) bool { return p.Alive && !p.Down })
	w.step("and is back")
	w.reach(gone, a)
	w.same(w.settled(a, returns, gone), gone)
	w.step("with its prefix, which nobody took")

	// All that time an agent was away.
	if now := a.routes(quiet); !slices.Equal(now, silent) {
		t.Errorf("the routes to the node without an agent are %q, they were %q", now, silent)
	}
	s.whole()
	w.must(quiet.Start())
	a.sees(quiet, "up", func(p status.Peer) bool { return p.Alive && !p.Down })
	if now := w.settled(w.nodes...); len(now.Dead) > 0 {
		t.Errorf("the store has as dead: %v", now.Dead)
	}
}

func isDown(p status.Peer) bool { return p.Down }

// holds reports whether a node has a claim.
func holds(s *state.Snapshot, id state.ID) bool {
	for _, by := range s.Claims {
		if by == id {
			return true
		}
	}
	return false
}
