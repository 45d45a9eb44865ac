package failures

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/route"
)

// An agent is cut off from the store, and from it alone. Meanwhile a node joins, one gets another MTU, one is let go, and the store forgets
// how that came. What the agent does when the store is back is that, and no more.
func TestStoreIsCompactedWhileAnAgentIsAway(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 0, 0, 1}, hold: "1s", ttl: "60s"}) // its lease lives on
	a, b, changes, leaves := w.nodes[0], w.nodes[1], w.nodes[2], w.nodes[3]
	w.settled(w.nodes...)
	s := w.traffic(a, b)
	count := w.watch(a)

	// Neither sends to the other any more.
	etcd := w.etcd.Members[0].Host
	store, self := netip.PrefixFrom(etcd.Addr4().Addr(), 32), netip.PrefixFrom(a.host.Addr4().Addr(), 32)
	w.must(route.Add(w.soon(), a.host.NS, route.Route{Dst: store, Type: route.TypeBlackhole}))
	w.must(route.Add(w.soon(), etcd.NS, route.Route{Dst: self, Type: route.TypeBlackhole}))

	joins := w.add(1)
	w.must(joins.Start())
	joins.knows(4)
	joins.plug()
	w.must(changes.host.SetMTU(w.soon(), 1400)) // one change of one key; two addresses would be more
	b.sees(changes, "one with another MTU", func(p status.Peer) bool { return p.MTU == 1400 })
	leaves.die()
	w.delete(state.AliveKey(leaves.id())) // as the end of its lease does
	w.must(forget(w, leaves))
	w.must(w.etcd.Compact(w.soon()))
	w.must(w.etcd.Members[0].Restart(w.soon())) // the old stream of changes cannot go on
	w.connected(1, b)
	w.step("the store has changed and is compacted")
	if _, err := a.peer(joins); err == nil {
		t.Error("the agent that is cut off knows the new node")
	}

	w.must(route.Delete(w.soon(), etcd.NS, route.Route{Dst: self, Type: route.TypeBlackhole}))
	w.must(route.Delete(w.soon(), a.host.NS, route.Route{Dst: store, Type: route.TypeBlackhole}))
	w.reach(a, joins)
	w.reach(a, changes)
	a.sees(changes, "one with another MTU", func(p status.Peer) bool { return p.MTU == 1400 })
	w.until(func() error {
		for _, r := range a.routes(leaves) {
			if r != "" {
				return fmt.Errorf("the node that was let go has the route %q", r)
			}
		}
		return nil
	})
	w.settled(a, b, changes, joins)
	w.step("the agent has it")

	written := map[string]int{}
	for _, c := range count.end()[a.host] {
		if !strings.Contains(c.What, store.String()) {
			written[c.Op+" "+c.What]++
		}
	}
	for what, nodes := range map[string][]*node{"new": {joins, changes}, "delete": {leaves}} {
		for _, n := range nodes {
			for _, p := range n.prefixes {
				change := fmt.Sprintf("%s route %v protocol 201", what, p)
				if written[change] != 1 {
					t.Errorf("%q came %d times, want once", change, written[change])
				}
				delete(written, change)
			}
		}
	}
	if len(written) > 0 {
		t.Errorf("more was changed: %v", written)
	}
	s.whole()
}

// forget lets go of a node as the command does.
func forget(w *world, n *node) error {
	host := w.etcd.Members[0].Host
	p := host.Program("fleet", "forget", "-name", "lab", "-store", w.etcd.Endpoints(), "-insecure", n.host.Name)
	w.must(p.Start())
	code, err := p.Wait(w.soon())
	w.must(err)
	if code != 0 {
		return fmt.Errorf("forget: %s", p.Output())
	}
	return nil
}

// What is no key of the fleet, or has no valid value, is named and ignored, whoever wrote it.
func TestGarbageInTheStore(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}})
	a, b := w.nodes[0], w.nodes[1]
	before := w.settled(a, b)
	s := w.traffic(a, b)
	count := w.watch(a, b)

	stranger := state.NewID()
	free := netip.MustParsePrefix("10.100.255.0/24")
	for _, n := range []*node{a, b} {
		if slices.Contains(n.prefixes, free) {
			free = netip.MustParsePrefix("10.100.254.0/24")
		}
	}
	garbage := map[string]string{
		"what":                                  "x",
		"node/x":                                "{}",
		state.NodeKey(stranger):                 `{"version":1`,
		state.AliveKey(stranger):                "",
		state.DeadKey(b.id()):                   "yesterday",
		state.ClaimKey(free):                    "mine",
		"claim/default":                         string(state.Encode(state.Claim{Version: 1, Node: stranger})),
		"node/" + strings.Repeat("0", 31) + "1": strings.Replace(string(state.Encode(before.Nodes[b.id()])), b.id().String(), strings.Repeat("0", 31)+"1", 1),
	}
	for key, value := range garbage {
		w.put(key, value)
	}
	for _, n := range []*node{a, b} {
		w.until(func() error {
			skipped, err := n.metric("skipped")
			if err == nil && int(skipped) != len(garbage) {
				err = fmt.Errorf("%s skips %v keys, want %d", n.Name, skipped, len(garbage))
			}
			return err
		})
		for key := range garbage {
			w.must(n.WaitOutput(w.soon(), "key="+key+" "))
		}
	}
	w.reach(a, b)
	count.none()

	// A node in whose key is garbage writes it again, and its peers keep its routes meanwhile.
	count = w.watch(a, b)
	w.put(state.NodeKey(b.id()), "garbage")
	w.same(w.settled(a, b), a, b)
	w.put(state.AliveKey(b.id()), "garbage")
	w.same(w.settled(a, b), a, b)
	// Garbage in the config does not end those that run.
	w.put(state.ConfigKey, `{"version":1,"pools":["10.0.0.0/8"]}`)
	w.must(b.WaitOutput(w.soon(), "key="+state.ConfigKey+" "))
	w.must(a.WaitOutput(w.soon(), "key="+state.ConfigKey+" "))
	w.put(state.NodeKey(b.id()), "garbage") // the agent writes it, and looks at the config before
	s.passesFor(w.hold())
	for _, n := range []*node{a, b} {
		if _, err := n.state(); err != nil {
			t.Error(err)
		}
	}
	w.delete(state.ConfigKey) // a person has seen it in the log
	after := w.settled(a, b)
	w.same(after, a, b)
	if !after.Config.Equal(*before.Config) {
		t.Errorf("the config is %+v, it was %+v", after.Config, before.Config)
	}
	count.none()
	s.whole()
}

// Keys that are deleted by hand come back, and nothing else happens.
func TestKeysAreDeletedByHand(t *testing.T) {
	w := newWorld(t, spec{nodes: []int{0, 1}})
	a, b := w.nodes[0], w.nodes[1]
	before := w.settled(a, b)
	s := w.traffic(a, b)
	count := w.watch(a, b)
	id := b.id()
	for _, key := range []string{state.NodeKey(id), state.ClaimKey(b.prefixes[0]), state.AliveKey(id), state.ConfigKey} {
		w.delete(key)
		after := w.settled(a, b)
		w.same(after, a, b)
		for _, p := range b.prefixes {
			if after.Claims[p] != id {
				t.Errorf("after %s was deleted, %v is %v's", key, p, after.Claims[p])
			}
		}
		if !after.Config.Equal(*before.Config) {
			t.Errorf("after %s was deleted, the config is %+v", key, after.Config)
		}
		w.step("back: " + key)
	}
	// All at once.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := w.client.Delete(ctx, state.Root("lab"), clientv3.WithPrefix())
	w.must(err)
	w.same(w.settled(a, b), a, b)
	w.step("back: everything")
	s.passesFor(w.hold())
	count.none()
	s.whole()
}
