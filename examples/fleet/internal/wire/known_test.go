package wire

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
)

// follow follows the host's changes until the test ends, and does nothing about them.
func follow(t testing.TB, h *host) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var loop sync.WaitGroup
	t.Cleanup(func() { cancel(); loop.Wait() })
	begun := make(chan struct{})
	loop.Go(func() {
		first := sync.OnceFunc(func() { close(begun) })
		for range h.wire.Changes(ctx) {
			first()
		}
	})
	<-begun
}

// isKnown reports whether an Apply of the plan would read nothing, and how many routes it would add.
func isKnown(h *host, p plan.Plan) (added int, ok bool) {
	h.wire.mu.Lock()
	before := h.wire.known
	h.wire.mu.Unlock()
	routes, _, ok := h.wire.begin(p)
	h.wire.mu.Lock()
	h.wire.known.want, h.wire.known.whole = before.want, before.whole && h.wire.known.doubts == before.doubts
	h.wire.mu.Unlock()
	return len(routes), ok
}

func TestTheKernelIsReadOnlyWhenSomebodyHasChangedIt(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 3, underlays{v4: true})
	h, all := hosts[0], snapshotOf(t, config(state.Tunnel), hosts)
	two := snapshotOf(t, config(state.Tunnel), hosts[:2])
	apply := func(s *state.Snapshot) plan.Plan {
		t.Helper()
		_, p, err := h.reconcile(t.Context(), s, nil)
		try(t, err)
		return p
	}
	p := apply(two)
	if _, ok := isKnown(h, p); ok {
		t.Error("nobody watches, and the kernel is not read")
	}
	follow(t, h)
	// The address of fl0 may be reported late.
	eventually(t, "the kernel is known", func() bool { apply(two); _, ok := isKnown(h, p); return ok })
	more := apply(all) // what it writes is no news
	eventually(t, "known with the third", func() bool { added, ok := isKnown(h, more); return ok && added == 0 })
	if strings.Count(h.state(t), "10.100.3.0/24") != 1 {
		t.Errorf("the route is not there:\n%s", h.state(t))
	}
	if _, ok := isKnown(h, p); ok {
		t.Error("a route has to go, and the kernel is not read")
	}
	testutil.Run(t, h.ns, "ip", "route", "del", "10.100.3.0/24")
	eventually(t, "the deletion is noticed", func() bool { _, ok := isKnown(h, more); return !ok })
	apply(all)
	eventually(t, "known again", func() bool { added, ok := isKnown(h, more); return ok && added == 0 })
	if strings.Count(h.state(t), "10.100.3.0/24") != 1 {
		t.Errorf("the route is not back:\n%s", h.state(t))
	}
}

// A route of somebody else is in the way of one that is added without a look.
func TestWhatIsInTheWayOfANewPeerIsNamed(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 3, underlays{v4: true})
	h, all := hosts[0], snapshotOf(t, config(state.Tunnel), hosts)
	two := snapshotOf(t, config(state.Tunnel), hosts[:2])
	follow(t, h)
	var p plan.Plan
	eventually(t, "the kernel is known", func() bool {
		var err error
		_, p, err = h.reconcile(t.Context(), two, nil)
		try(t, err)
		_, ok := isKnown(h, p)
		return ok
	})
	testutil.Run(t, h.ns, "ip", "route", "add", "unreachable", "10.100.3.0/24")
	_, _, err := h.reconcile(t.Context(), all, nil)
	var refused *RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "10.100.3.0/24") {
		t.Fatalf("error %v: want one that names the route", err)
	}
	if has := h.state(t); !strings.Contains(has, "fd99:0:0:3::/64") || !strings.Contains(has, "10.100.2.0/24") {
		t.Errorf("the others are not applied:\n%s", has)
	}
	if out := testutil.Run(t, h.ns, "ip", "route", "show", "10.100.3.0/24"); !strings.Contains(out, "unreachable") {
		t.Errorf("the route of somebody else is not as it was: %s", out)
	}
	if _, ok := isKnown(h, p); ok {
		t.Error("after a refusal the kernel is not read")
	}
}
