package failures

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
)

// follows waits until the routes of some nodes to a moved one have what is wanted, and says how long after a time that was.
func (w *world) follows(what string, since time.Time, to *node, has func(n *node, route string) bool, nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		w.until(func() error {
			for _, route := range n.routes(to) {
				if !has(n, route) {
					return fmt.Errorf("%s: %s has the route %q", what, n.Name, route)
				}
			}
			return nil
		})
	}
	w.step(fmt.Sprintf("%s: peers followed after %v", what, time.Since(since).Round(time.Millisecond)))
}

// A node that gets other addresses, another MTU, or another link, keeps its prefix; its peers follow by the event, on its own link
// and beyond a router. So does a node that was off while it was moved.
func TestNodeMoves(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 0, 1}})
	moves, near, far := w.nodes[0], w.nodes[1], w.nodes[2]
	w.settled(w.nodes...)
	direct, tunnel := w.traffic(moves, near), w.traffic(moves, far)
	flows := func() {
		t.Helper()
		direct.passes(100)
		tunnel.passes(100)
		w.same(w.settled(w.nodes...), moves)
	}
	// The near one's routes lead by the address of the route's family, the far one's by IPv4.
	leads := func(n *node, route string) bool {
		if n == near && strings.HasPrefix(route, "fd99:") {
			return strings.Contains(route, " via "+moves.host.Addr6().Addr().String()+" ")
		}
		return strings.Contains(route, " "+moves.host.Addr4().Addr().String()+" ")
	}

	w.must(moves.host.ChangeAddrs(w.soon()))
	w.follows("another address", time.Now(), moves, leads, near, far)
	flows()

	w.must(moves.host.SetMTU(w.soon(), 1400))
	w.follows("another MTU", time.Now(), moves, func(n *node, route string) bool {
		if n == near {
			return strings.Contains(route, " mtu 1400")
		}
		return strings.Contains(route, " mtu 1364")
	}, near, far)
	flows()

	w.must(moves.host.RenameUplink(w.soon(), "wan0"))
	flows()
	w.step("another name of the link: packets pass")

	w.must(moves.host.ReplaceUplink(w.soon(), "wan1"))
	replaced := time.Now()
	flows()
	w.follows("another link", replaced, near, func(_ *node, route string) bool { return strings.Contains(route, " dev wan1 ") }, moves)

	w.must(moves.Kill())
	w.must(moves.host.ChangeAddrs(w.soon()))
	started := time.Now()
	w.must(moves.Start())
	w.follows("another address while the agent was off", started, moves, leads, near, far)
	flows()
	direct.end()
	tunnel.end()
}

// A link that is deleted, routes that are flushed, addresses that are removed, a link that is taken down: the agent brings all of it
// back by the event.
func TestKernelIsChangedByOthers(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}})
	a, b := w.nodes[0], w.nodes[1]
	w.settled(a, b)
	s := w.traffic(a, b)
	own := a.prefixes[0].Addr().Next().String()
	before := w.kernel(a)
	for _, test := range []struct{ what, commands string }{
		{"the link is deleted", "link del fl0"},
		{"the routes are flushed", "-4 route flush proto 201; -6 route flush proto 201"},
		{"one route is deleted", "route del " + b.prefixes[0].String()},
		{"a route is changed", "route replace unreachable " + b.prefixes[0].String() + " proto 201"},
		{"an address is removed", "addr del " + own + "/32 dev fl0"},
		{"all addresses are removed", "addr flush dev fl0"},
		{"the link is down", "link set fl0 down"},
		{"the link's MTU is small", "link set fl0 mtu 1300"},
		{"the link is renamed", "link set fl0 name other0"},
	} {
		if strings.Contains(test.commands, " name ") && !testutil.KernelAtLeast(6, 2) {
			continue // a link that is up keeps its name
		}
		for command := range strings.SplitSeq(test.commands, "; ") {
			a.ip(strings.Fields(command)...)
		}
		began := time.Now()
		w.until(func() error {
			if now := w.kernel(a); !slices.Equal(now, before) {
				return fmt.Errorf("%s: the kernel has\n%s\nit had\n%s", test.what, strings.Join(now, "\n"), strings.Join(before, "\n"))
			}
			return nil
		})
		back := time.Since(began)
		s.passes(50)
		w.step(fmt.Sprintf("%s: back after %v", test.what, back.Round(time.Millisecond)))
	}
	w.settled(a, b)
	s.end()
}
