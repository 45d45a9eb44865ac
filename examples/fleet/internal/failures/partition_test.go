package failures

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
)

// A network that splits changes nothing for the hold, and nothing at all on the side without the store. Beyond the hold, the side
// with the store refuses what does not answer. When the network is whole again, each route that differs is written once.
func TestNetworkSplits(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 0, 0}, hold: "3s", ttl: "1s"})
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.settled(a, b, c)
	with := []*lab.Host{w.etcd.Members[0].Host, a.host}
	without := []*lab.Host{b.host, c.host}

	// Shorter than the hold: the others' leases end, and no more.
	count := w.watch(a, b, c)
	w.must(w.Partition(w.soon(), with, without))
	within := w.traffic(b, c)
	w.until(func() error {
		s, err := w.snapshot()
		if err == nil && len(s.Alive) != 1 {
			err = fmt.Errorf("%d nodes are alive, want one", len(s.Alive))
		}
		return err
	})
	w.must(w.Partition(w.soon()))
	w.settled(a, b, c)
	w.reach(a, b)
	w.reach(c, a)
	within.end() // moving the switch's ports loses packets
	count.none()
	w.step("a short split changed nothing")

	// Longer.
	count = w.watch(b, c)
	w.must(w.Partition(w.soon(), with, without))
	within = w.traffic(b, c)
	a.sees(b, "down", isDown)
	a.sees(c, "down", isDown)
	w.step("beyond the hold, the side with the store refuses")
	within.passesFor(w.hold())
	within.whole()
	healing := w.watch(a)
	w.must(w.Partition(w.soon()))
	w.settled(a, b, c)
	a.knows(2)
	w.reach(a, b)
	w.reach(b, a)
	w.reach(c, a)
	w.settled(a, b, c)
	w.step("whole again")
	count.none()
	written := map[string]int{}
	for _, change := range healing.end()[a.host] {
		written[change.Op+" "+change.What]++
	}
	for _, n := range []*node{b, c} {
		for _, p := range n.prefixes {
			route := fmt.Sprintf("new route %v protocol 201", p)
			if written[route] != 1 {
				t.Errorf("%q came %d times, want once", route, written[route])
			}
			delete(written, route)
		}
	}
	if len(written) > 0 {
		t.Errorf("more was changed on the side with the store: %v", written)
	}
	for _, n := range []*node{b, c} {
		for _, route := range a.routes(n) {
			if strings.HasPrefix(route, "unreachable") {
				t.Errorf("a route is %q", route)
			}
		}
	}
}
