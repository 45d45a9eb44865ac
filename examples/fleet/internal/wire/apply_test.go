package wire

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
)

func TestNothingIsSentWhereNothingDiffers(t *testing.T) {
	t.Parallel()
	for _, mode := range []state.Mode{state.Tunnel, state.Direct, state.Auto} {
		for _, u := range []underlays{{v4: true, v6: true}, {v6: true}} {
			t.Run(string(mode), func(t *testing.T) {
				t.Parallel()
				hosts := newHosts(t, 3, u)
				s := snapshotOf(t, config(mode), hosts)
				down := map[state.ID]bool{hosts[2].id: true}
				did, _, err := hosts[0].reconcile(t.Context(), s, down)
				try(t, err)
				if did.Routes.Added != 8 {
					t.Errorf("the first time: %v, want 8 routes", did)
				}
				if mode == state.Direct { // the kernel reports late that a bridge without ports has no carrier
					eventually(t, "the bridge's state", func() bool {
						l, err := link.Get(t.Context(), hosts[0].ns, "fl0")
						try(t, err)
						return l.OperState == link.OperDown
					})
				}
				c := countChanges(t, hosts[0].ns)
				for range 2 {
					// A program that has just started knows nothing of the one before it.
					hosts[0].wire = New(hosts[0].ns, Options{})
					did, _, err := hosts[0].reconcile(t.Context(), s, down)
					try(t, err)
					if did.Any() {
						t.Errorf("nothing differs: %v", did)
					}
				}
				if events := c.seen(t); len(events) > 0 {
					t.Errorf("nothing differs, and these were changed: %q", events)
				}
			})
		}
	}
}

func TestApplyChangesTheDifferenceOnly(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 3, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	join(t, s, hosts[:1])
	c := countChanges(t, hosts[0].ns)
	moved := s.Nodes[hosts[1].id]
	moved.Endpoints = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	s.Nodes[hosts[1].id] = moved
	did, _, err := hosts[0].reconcile(t.Context(), s, nil)
	try(t, err)
	if want := (Changes{Routes: route.Changes{Replaced: 2}}); did != want {
		t.Errorf("a peer has moved: %v", did)
	}
	events := c.seen(t)
	if len(events) < 2 {
		t.Errorf("two routes were replaced, and the events are %q", events)
	}
	for _, e := range events {
		if !strings.Contains(e, "10.100.2.0/24") && !strings.Contains(e, "fd99:0:0:2::/64") {
			t.Errorf("a peer has moved, and this was changed: %s", e)
		}
	}
	delete(s.Nodes, hosts[1].id)
	did, _, err = hosts[0].reconcile(t.Context(), s, nil)
	try(t, err)
	if want := (Changes{Routes: route.Changes{Deleted: 2}}); did != want {
		t.Errorf("a peer has left: %v", did)
	}
}

func TestARouteOfAnotherProtocolStaysAndIsNamed(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 3, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	testutil.Run(t, hosts[0].ns, "ip", "route", "add", "10.100.2.0/24", "via", "192.0.2.3", "proto", "bird")
	testutil.Run(t, hosts[0].ns, "ip", "-6", "route", "add", "unreachable", "fd99::/48", "metric", "4294967295", "proto", "bird")
	before := foreign(t, hosts[0])
	for range 2 {
		_, _, err := hosts[0].reconcile(t.Context(), s, nil)
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "10.100.2.0/24 via 192.0.2.3") || !strings.Contains(err.Error(), "unreachable fd99::/48") {
			t.Errorf("the error does not name the route in the way: %v", err)
		}
		if own, err := hosts[0].wire.Routes(t.Context()); err != nil || len(own) != 6 {
			t.Errorf("the fleet's routes are %v, %v, want 6", own, err)
		}
		if after := foreign(t, hosts[0]); after != before {
			t.Errorf("the routes of the other program are\n%s\nand were\n%s", after, before)
		}
	}
	// The fleet's own route at the same place stays while it cannot be replaced: the two have the same key.
	testutil.Run(t, hosts[0].ns, "ip", "route", "append", "10.100.3.0/24", "via", "192.0.2.3", "proto", "bird")
	moved := s.Nodes[hosts[2].id]
	moved.Endpoints = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	s.Nodes[hosts[2].id] = moved
	_, _, err := hosts[0].reconcile(t.Context(), s, nil)
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "10.100.3.0/24 via 192.0.2.3") {
		t.Errorf("the error does not name the route in the way: %v", err)
	}
	if out := testutil.Run(t, hosts[0].ns, "ip", "-6", "route", "show", "fd99:0:0:3::/64", "proto", "201"); !strings.Contains(out, "dst 192.0.2.77") {
		t.Errorf("the route that nothing is in the way of is %q", out)
	}
	if out := testutil.Run(t, hosts[0].ns, "ip", "route", "show", "10.100.3.0/24", "proto", "201"); !strings.Contains(out, "dst 192.0.2.3") {
		t.Errorf("the fleet's route is %q", out)
	}
	// The other program ends.
	testutil.Run(t, hosts[0].ns, "ip", "route", "flush", "proto", "bird")
	testutil.Run(t, hosts[0].ns, "ip", "-6", "route", "flush", "proto", "bird")
	got, _, err := hosts[0].reconcile(t.Context(), s, nil)
	try(t, err)
	if want := (Changes{Routes: route.Changes{Added: 2, Replaced: 1}}); got != want {
		t.Errorf("the changes are %v, want %v", got, want)
	}
}

// foreign is what ip says of the other program's routes.
func foreign(t *testing.T, h *host) string {
	return testutil.Run(t, h.ns, "ip", "route", "show", "proto", "bird") + testutil.Run(t, h.ns, "ip", "-6", "route", "show", "proto", "bird")
}

func TestARouteThatTheKernelRefusesKeepsNoOthers(t *testing.T) {
	t.Parallel()
	h, s := thousand(t, state.Tunnel)
	self, err := h.wire.Self(t.Context(), h.id, *s.Config, h.prefixes)
	try(t, err)
	p := plan.For(s, self, nil, nil)
	want := len(p.Routes)
	for i, at := range []int{3, 150, 151, 1900} { // in several of the batches that are sent
		bad := route.Route{Dst: p.Routes[at].Dst, Via: netip.MustParseAddr("192.0.7.255"), Dev: self.Underlay[0].Index}
		if bad.Dst.Addr().Is6() {
			bad.Via = netip.MustParseAddr("fd77::99")
		}
		bad.Dst = prefix("10.99.%d.0/24", i)
		p.Routes = slices.Insert(p.Routes, at, bad)
	}
	p.Routes[150].Via = netip.MustParseAddr("198.51.100.1") // not reachable
	for range 2 {
		_, err = h.wire.Apply(t.Context(), p)
		if refused, ok := errors.AsType[*RefusedError](err); !ok || len(refused.Routes) != 4 {
			t.Errorf("refused are %v", err)
		}
		for i := range 4 {
			if err == nil || !strings.Contains(err.Error(), prefix("10.99.%d.0/24", i).String()+" via") {
				t.Errorf("the error does not name route %d: %v", i, err)
			}
		}
		if routes, err := h.wire.Routes(t.Context()); err != nil || len(routes) != want {
			t.Errorf("the fleet has %d routes, %v; want %d", len(routes), err, want)
		}
	}
	// An error that is not about one route is one of all.
	l, err := link.Get(t.Context(), h.ns, "fl0")
	try(t, err)
	try(t, l.Delete(t.Context()))
	if did, err := h.wire.Apply(t.Context(), p); !errors.Is(err, os.ErrNotExist) || did.Any() {
		t.Errorf("without the link: %v, %v", did, err)
	}
}

func TestAPlanOfNoFleetDeletesNothing(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	join(t, s, hosts)
	before, err := hosts[0].wire.Routes(t.Context())
	try(t, err)
	for _, p := range []plan.Plan{{}, plan.For(&state.Snapshot{}, plan.Self{}, nil, nil)} {
		if did, err := hosts[0].wire.Apply(t.Context(), p); !errors.Is(err, os.ErrInvalid) || did.Any() {
			t.Errorf("it is applied: %v, %v", did, err)
		}
	}
	after, err := hosts[0].wire.Routes(t.Context())
	try(t, err)
	if !slices.EqualFunc(before, after, route.Route.Equal) || len(after) != 6 {
		t.Errorf("the routes are %v and were %v", after, before)
	}
}

func TestRoutesAreTakenOver(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 3, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	join(t, s, hosts)
	// The store has come back without two of the nodes, and the agent is another one.
	w := New(hosts[0].ns, Options{})
	keep, err := w.Routes(t.Context())
	try(t, err)
	self, err := w.Self(t.Context(), hosts[0].id, *s.Config, hosts[0].prefixes)
	try(t, err)
	delete(s.Nodes, hosts[1].id)
	delete(s.Nodes, hosts[2].id)
	did, err := w.Apply(t.Context(), plan.For(s, self, nil, keep))
	try(t, err)
	if did.Any() {
		t.Errorf("kept routes are changed: %v", did)
	}
	allReachAll(t, hosts)
}
