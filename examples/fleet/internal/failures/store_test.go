package failures

import "testing"

// The store is away for many times the hold, and then comes back without its data. Nothing changes where agents run or start, boxes
// start, a machine that boots reaches the others by what it knew, and the store gets again what it had.
func TestStoreIsAwayAndLosesItsData(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 0, 1, 1}, hold: "1s", ttl: "1s"})
	a, b, c, boots := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
	before := w.settled(w.nodes...)
	direct, tunnel := w.traffic(a, b), w.traffic(a, c)
	count := w.watch(a, b, c)

	w.must(boots.Kill())
	w.must(w.etcd.Kill())
	w.connected(0, a, b, c)

	// Agents that start meanwhile change nothing.
	w.must(b.Kill())
	w.must(b.Start())
	w.connected(0, b)

	// A machine boots.
	boots.forgetKernel()
	if w.reaches(boots, a) {
		t.Fatal("the machine that boots reaches others without its agent")
	}
	w.must(boots.Start())
	w.reach(boots, a)
	w.reach(c, boots)
	w.step("a machine boots without the store")

	// Its network fails for longer than the hold, and returns while the store is still away.
	w.must(boots.host.Cut(w.soon()))
	direct.passesFor(3 * w.hold())
	w.must(boots.host.Heal(w.soon()))
	w.reach(boots, a)
	w.step("its network is back")
	w.reach(c, boots)
	w.step("and it is reached")

	// Its agent is killed, and somebody deletes the tunnel, all without the store.
	w.must(boots.Kill())
	w.must(boots.Start())
	boots.ip("link", "del", "fl0")
	w.reach(boots, a)
	w.step("and keeps its kernel")
	count.none()
	booted := w.watch(boots)

	// A box starts on a node whose agent runs, and on one whose agent has not seen the store yet.
	w.reachBox(a.newBox(2), c.box)
	w.reachBox(b.newBox(2), c.box)

	count = w.watch(a, b, c)
	w.must(w.etcd.Lose(w.soon()))
	w.step("the store is back, and empty")
	w.connected(1, w.nodes...)
	after := w.settled(w.nodes...)
	w.same(after, w.nodes...)
	if !after.Config.Equal(*before.Config) {
		t.Errorf("the config is %+v, it was %+v", after.Config, before.Config)
	}
	if len(after.Claims) != len(before.Claims) || len(after.Dead) > 0 || len(after.Skipped) > 0 {
		t.Errorf("the store has %+v, it had %+v", after, before)
	}
	direct.passesFor(2 * w.hold())
	w.same(w.settled(w.nodes...), w.nodes...)
	count.none()
	booted.none()
	direct.whole()
	tunnel.whole()
}
