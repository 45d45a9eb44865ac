package wire

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// An agent is the loop of a fleet's program for one host.
type agent struct {
	h      *host
	mu     sync.Mutex
	rounds int // that are complete
}

// run keeps the host as the snapshot says until the test ends.
func run(t testing.TB, h *host, s *state.Snapshot) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{h: h}
	var loop sync.WaitGroup
	t.Cleanup(func() { cancel(); loop.Wait() })
	loop.Go(func() {
		for _, err := range h.wire.Changes(ctx) {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("the changes end: %v", err)
				return
			}
			// What is deleted meanwhile makes another item.
			h.reconcile(ctx, s, nil)
			a.mu.Lock()
			a.rounds++
			a.mu.Unlock()
		}
	})
	return a
}

func (a *agent) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rounds
}

// state is what the host has of the fleet, as ip shows it.
func (h *host) state(t testing.TB) string {
	t.Helper()
	links, _ := testutil.Try(t, h.ns, "ip", "-o", "address", "show", "dev", "fl0", "up")
	var all []string
	for line := range strings.Lines(links) {
		f := strings.Fields(line)
		all = append(all, f[2]+" "+f[3])
	}
	for _, family := range []string{"-4", "-6"} {
		out, _ := testutil.Try(t, h.ns, "ip", family, "route", "show", "proto", "201")
		for line := range strings.Lines(out) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return strings.Join(all, "\n")
}

// damages are what somebody does to the fleet's wiring, with ip.
var damages = []struct{ name, ip string }{
	{"the link is deleted", "link del fl0"},
	{"the link is set down", "link set fl0 down"},
	{"the IPv4 routes are flushed", "-4 route flush proto 201"},
	{"the IPv6 routes are flushed", "-6 route flush proto 201"},
	{"one route is deleted", "route del 10.100.2.0/24"},
	{"one route is replaced", "route replace unreachable 10.100.2.0/24 proto 201"},
	{"the IPv4 address is deleted", "addr del 10.100.1.1/32 dev fl0"},
	{"the IPv6 address is deleted", "addr del fd99:0:0:1::1/128 dev fl0"},
	{"all addresses are deleted", "addr flush dev fl0"},
	{"an address is added", "addr add 10.9.9.9/32 dev fl0"},
	{"the MTU is changed", "link set fl0 mtu 1300"},
	{"the link is renamed", "link set fl0 name other0"},
}

func TestWhatSomebodyChangesComesBack(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true, v6: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	join(t, s, hosts)
	testutil.Run(t, hosts[0].ns, "ip", "link", "del", "box") // the addresses are fl0's alone
	want := hosts[0].state(t)
	if len(strings.Split(want, "\n")) != 2+6 {
		t.Fatalf("the host has\n%s", want)
	}
	a := run(t, hosts[0], s)
	eventually(t, "the first round", func() bool { return a.count() > 0 })
	for _, d := range damages {
		if d.name == "the link is renamed" && !testutil.KernelAtLeast(6, 2) {
			continue // the link would have to be down, and the agent would set it up again
		}
		testutil.Run(t, hosts[0].ns, "ip", strings.Fields(d.ip)...)
		var has string
		eventually(t, d.name, func() bool {
			has = hosts[0].state(t)
			return has == want && mtu(t, hosts[0]) == 1464
		})
	}
}

// mtu is that of the tunnel link.
func mtu(t testing.TB, h *host) int {
	l, err := link.Get(t.Context(), h.ns, "fl0")
	if netns.IgnoreNotExist(err) != nil {
		t.Fatal(err)
	}
	return l.MTU
}

func TestTheUnderlayIsFollowed(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	a := run(t, hosts[0], s)
	eventually(t, "the first round", func() bool { return a.count() > 0 })
	testutil.Run(t, hosts[0].ns, "ip", "link", "set", "eth0", "mtu", "1400")
	eventually(t, "the MTU of the underlay", func() bool { return mtu(t, hosts[0]) == 1364 })
	// Another link, with more room.
	try(t, second(link.Create(t.Context(), hosts[0].ns, link.Spec{
		Name: "eth1", Up: true, MTU: 9000, Kind: link.Bridge{}, Addrs: []netip.Prefix{prefix("198.51.100.1/24")},
	})))
	eventually(t, "the MTU of the other link", func() bool { return mtu(t, hosts[0]) == 8964 })
	// A default route says which of them it is.
	testutil.Run(t, hosts[0].ns, "ip", "route", "add", "default", "dev", "eth0")
	eventually(t, "the MTU of the default route's link", func() bool { return mtu(t, hosts[0]) == 1364 })
	testutil.Run(t, hosts[0].ns, "ip", "route", "add", "default", "dev", "eth1", "metric", "10")
	eventually(t, "the MTU of both default routes' links", func() bool { return mtu(t, hosts[0]) == 8964 })
	testutil.Run(t, hosts[0].ns, "ip", "route", "del", "default", "dev", "eth1")
	eventually(t, "the MTU of the default route that is left", func() bool { return mtu(t, hosts[0]) == 1364 })
}

// A default route says which links are the underlay's. No link changes when it moves to another.
func TestADefaultRouteThatMovesIsFollowed(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	h := hosts[0]
	testutil.Run(t, h.ns, "ip", "link", "add", "eth1", "mtu", "9000", "type", "bridge")
	testutil.Run(t, h.ns, "ip", "addr", "add", "198.51.100.1/24", "dev", "eth1")
	testutil.Run(t, h.ns, "ip", "link", "set", "eth1", "up")
	testutil.Run(t, h.ns, "ip", "route", "add", "default", "dev", "eth0", "metric", "7")
	run(t, h, s)
	eventually(t, "the MTU of the first", func() bool { return mtu(t, h) == 1464 })
	for range 3 { // what the kernel does with new addresses may make the first round
		testutil.Run(t, h.ns, "ip", "route", "add", "default", "dev", "eth1", "metric", "5")
		testutil.Run(t, h.ns, "ip", "route", "del", "default", "dev", "eth0", "metric", "7")
		eventually(t, "the MTU of the other", func() bool { return mtu(t, h) == 8964 })
		testutil.Run(t, h.ns, "ip", "route", "add", "default", "dev", "eth0", "metric", "7")
		testutil.Run(t, h.ns, "ip", "route", "del", "default", "dev", "eth1", "metric", "5")
		eventually(t, "the MTU of the first again", func() bool { return mtu(t, h) == 1464 })
	}
}

func TestBoxesWakeNobody(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true})
	s := snapshotOf(t, config(state.Tunnel), hosts)
	join(t, s, hosts)
	a := run(t, hosts[0], s)
	eventually(t, "the first round", func() bool { return a.count() > 0 })
	h := hosts[0]
	// The fleet's own change is a mark behind the boxes'.
	mark := func() int {
		before := a.count()
		testutil.Run(t, h.ns, "ip", "addr", "add", "10.9.9.9/32", "dev", "fl0")
		eventually(t, "the mark", func() bool { return a.count() > before && !strings.Contains(h.state(t), "10.9.9.9") })
		return a.count()
	}
	before := mark()
	for range 20 {
		testutil.Run(t, h.ns, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
		testutil.Run(t, h.ns, "ip", "link", "set", "veth0", "up")
		testutil.Run(t, h.ns, "ip", "link", "set", "veth1", "up")
		testutil.Run(t, h.ns, "ip", "link", "del", "veth0")
	}
	if rounds := mark() - before; rounds > 6 { // those that the marks make

		t.Errorf("20 boxes came and went, and the agent had %d rounds", rounds)
	}
}

func TestChangesEndWithTheContextAndTheLoop(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	items := 0
	for _, err := range h.wire.Changes(ctx) {
		if items++; items == 1 {
			if err != nil {
				t.Error(err)
			}
			cancel()
			continue
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	}
	if items < 2 {
		t.Errorf("it ended after %d items", items)
	}
	for range h.wire.Changes(t.Context()) {
		break // netnstest.Main finds what stays behind
	}
}
