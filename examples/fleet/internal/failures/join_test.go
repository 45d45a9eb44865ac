package failures

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/netns"
)

// first is the prefix of a family that a node tries first.
func first(c state.Config, id state.ID, f netns.Family) netip.Prefix {
	for p := range c.Choices(id, f) {
		return p
	}
	return netip.Prefix{}
}

// joins starts agents in this process, one on each host, all at once, and returns what they say when each knows all others.
func joins(t *testing.T, hosts []*lab.Host, etcd *lab.Store, c state.Config, ids []state.ID) []status.State {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(hosts))
	t.Cleanup(func() {
		cancel()
		for range hosts {
			if err := <-ended; err != nil {
				t.Errorf("agent: %v", err)
			}
		}
	})
	socket := func(h *lab.Host) string { return filepath.Join(h.Dir, "agent.sock") }
	for i, h := range hosts {
		dir := filepath.Join(h.Dir, "state")
		if ids != nil {
			identity := fmt.Sprintf(`{"version":1,"fleet":"lab","id":"%v"}`, ids[i])
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(identity), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			ended <- agent.Run(ctx, agent.Options{
				Host: h.NS, Fleet: "lab", Name: h.Name, StateDir: dir, Socket: socket(h), Config: c,
				Store: &store.Config{Endpoints: strings.Split(etcd.Endpoints(), ","), Insecure: true, Dial: h.NS.Dial},
			})
		}()
	}
	all := make([]status.State, len(hosts))
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		missing := ""
		for i, h := range hosts {
			if up(all[i]) == len(hosts)-1 {
				continue
			}
			s, err := status.Get(t.Context(), socket(h))
			if all[i] = s; err != nil || up(s) < len(hosts)-1 {
				missing = fmt.Sprintf("%s knows %d: %v", h, up(s), err)
			}
		}
		if missing == "" {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
	}
}

// up is how many peers an agent that is ready has a way to.
func up(s status.State) int {
	n := 0
	for _, p := range s.Peers {
		if s.Ready && !p.Down && p.Endpoint.IsValid() {
			n++
		}
	}
	return n
}

// distinct checks that each node has a prefix of each family, that no other has, and that all the others see so.
func distinct(t *testing.T, all []status.State) {
	t.Helper()
	of := map[netip.Prefix]state.ID{}
	for _, s := range all {
		if len(s.Prefixes) != 2 {
			t.Errorf("%s has %v", s.Name, s.Prefixes)
		}
		for _, p := range s.Prefixes {
			if _, taken := of[p]; taken {
				t.Errorf("two nodes have %v", p)
			}
			of[p] = s.ID
		}
	}
	for _, s := range all {
		for _, peer := range s.Peers {
			for _, p := range peer.Prefixes {
				if of[p] != peer.ID {
					t.Errorf("%s sees %v with %s", s.Name, p, peer.Name)
				}
			}
		}
	}
}

// around checks that each host reaches the next one's addresses in the fleet.
func around(t *testing.T, hosts []*lab.Host, all []status.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i, from := range hosts {
		next := (i + 1) % len(hosts)
		for _, p := range all[next].Prefixes {
			if err := lab.Reach(ctx, from.NS, hosts[next].NS, state.Gateway(p)); err != nil {
				t.Error(err)
			}
		}
	}
}

// Two nodes whose IDs lead to the same prefixes both come up, with different ones.
func TestTwoNodesWantOnePrefix(t *testing.T) {
	t.Parallel()
	c := state.DefaultConfig()
	c.Pools = []netip.Prefix{netip.MustParsePrefix("10.100.0.0/20"), netip.MustParsePrefix("fd99::/60")} // 16 prefixes each
	ids := []state.ID{state.NewID(), state.NewID()}
	for first(c, ids[0], netns.IPv4) != first(c, ids[1], netns.IPv4) || first(c, ids[0], netns.IPv6) != first(c, ids[1], netns.IPv6) {
		ids[1] = state.NewID()
	}
	l := labtest.New(t, lab.Options{Segments: []int{3}})
	etcd, err := l.StartStore(t.Context(), l.Hosts[2])
	if err != nil {
		t.Fatal(err)
	}
	all := joins(t, l.Hosts[:2], etcd, c, ids)
	distinct(t, all)
	wanted := 0
	for _, s := range all {
		for _, p := range s.Prefixes {
			if p == first(c, ids[0], netns.IPv4) || p == first(c, ids[0], netns.IPv6) {
				wanted++
			}
		}
	}
	if wanted != 2 {
		t.Errorf("the nodes have %v and %v: want that one of them has both that it tried first", all[0].Prefixes, all[1].Prefixes)
	}
	around(t, l.Hosts[:2], all)
}

// Many nodes join at once, and share a pool in which each has one prefix and none is left.
func TestManyJoinAtOnce(t *testing.T) {
	t.Parallel()
	const nodes = 32
	c := state.DefaultConfig()
	c.Pools = []netip.Prefix{netip.MustParsePrefix("10.100.0.0/19"), netip.MustParsePrefix("fd99::/59")}
	l := labtest.New(t, lab.Options{Segments: []int{nodes / 2, nodes/2 + 1}})
	etcd, err := l.StartStore(t.Context(), l.Hosts[nodes])
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	all := joins(t, l.Hosts[:nodes], etcd, c, nil)
	t.Logf("%d nodes joined in %v", nodes, time.Since(began).Round(time.Millisecond))
	distinct(t, all)
	around(t, l.Hosts[:nodes], all)
}
