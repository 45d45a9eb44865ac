package failures

import (
	"os"
	"path/filepath"
	"testing"
)

// An agent that is killed, and one that is replaced by another version, changes nothing in any kernel, and no packet is lost.
func TestAgentIsKilledAndUpgraded(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 0, 1}})
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	w.settled(w.nodes...)
	direct, tunnel := w.traffic(a, b), w.traffic(a, c)
	count := w.watch(a, b, c)

	w.must(a.Kill())
	direct.passes(100)
	w.must(a.Start())
	a.knows(2)
	w.settled(w.nodes...)

	if status, err := a.Stop(w.soon()); status != 0 || err != nil {
		t.Errorf("SIGTERM ended the agent with status %d, %v", status, err)
	}
	direct.passes(100)
	w.must(a.Start())
	a.knows(2)
	w.same(w.settled(w.nodes...), w.nodes...)

	tunnel.passes(100)
	count.none()
	direct.whole()
	tunnel.whole()
}

// An agent that was killed before it had kept anything, and whose node was let go meanwhile, finds its prefixes in the kernel.
func TestAgentFindsItsPrefixesInTheKernel(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}, ttl: "1s"})
	a, b := w.nodes[0], w.nodes[1]
	w.settled(a, b)
	w.must(b.Kill())
	w.must(os.RemoveAll(filepath.Join(b.dir, "last.json"))) // it may have had no time to keep it
	w.until(func() error { return forget(w, b) })
	w.must(b.Start())
	w.same(w.settled(a, b), b)
	w.reach(a, b)
}
