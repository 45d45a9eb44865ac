package failures

import (
	"testing"
	"time"
)

// Neither another leader of the store nor a leader whose disk stalls for longer than the leases changes anything. Nor do all
// members that stall together, after which all leases are gone.
func TestLeaderChangesAndDisksStall(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}, members: 3, hold: "2s", ttl: "1s"})
	a, b := w.nodes[0], w.nodes[1]
	w.settled(a, b)
	s := w.traffic(a, b)
	count := w.watch(a, b)

	leader, err := w.etcd.Leader(w.soon())
	w.must(err)
	for _, m := range w.etcd.Members {
		if m != leader {
			w.must(w.etcd.MoveLeader(w.soon(), m))
			break
		}
	}
	s.passesFor(w.hold())
	w.settled(a, b)
	w.step("another member leads")

	leader, err = w.etcd.Leader(w.soon())
	w.must(err)
	w.must(leader.Pause())
	s.passesFor(2 * time.Second) // two leases
	w.must(leader.Resume())
	w.must(w.etcd.WaitReady(w.soon()))
	w.settled(a, b)
	w.step("the leader's disk has stalled")

	w.must(w.etcd.Pause())
	s.passesFor(2 * time.Second)
	w.must(w.etcd.Resume())
	w.must(w.etcd.WaitReady(w.soon()))
	w.settled(a, b)
	w.step("all disks have stalled")
	s.passesFor(w.hold())

	after := w.settled(a, b)
	w.same(after, a, b)
	if len(after.Dead) > 0 {
		t.Errorf("the store has %+v as dead", after.Dead)
	}
	count.none()
	s.whole()
}
