//go:build linux

package command

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns"
)

// soon is much less than an agent waits for anything by itself.
const soon = 4 * time.Second

// SIGTERM and SIGINT end an agent in whatever state it is, with status 0, and another one meanwhile does no harm. What it has wired
// stays.
func TestSignals(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	stuck := value(l.StartStore(t.Context(), value(l.AddHost(t.Context(), 0))(t)))(t)
	must(t, stuck.Pause())
	full := append(on(etcd), "-hold", "1h") // nobody is asked whether he is there
	for _, test := range []struct {
		name  string
		flags []string
		until func(*node) // nil: as soon as it takes signals, in the middle of what it does
	}{
		{"at the start of its store", []string{"-store", "embed"}, nil},
		{"with its own store", []string{"-store", "embed"}, func(n *node) { n.ready(0) }},
		{"without a store", []string{"-store", "http://127.0.0.1:9"}, func(n *node) { n.says(503, "the store is away") }},
		{"with a store that does not answer", on(stuck), func(n *node) { n.says(503, "no prefix") }},
		{"without a way to the store", []string{"-insecure", "-store", "http://198.18.3.250:2379"}, func(n *node) { n.says(503, "no prefix") }},
		{"while it joins", full, nil},
		{"with 100 peers", full, func(n *node) {
			poll(n.t, "100 peers", func() (bool, string) {
				up := metric(n.t, n, "boxwire_fleet_peers", map[string]string{"state": "up"})
				return up >= 100, fmt.Sprint(up, n.Output())
			})
		}},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			h := value(l.AddHost(t.Context(), 0))(t)
			fleet := h.Name // of its own: no other node joins meanwhile
			if slices.Contains(test.flags, "1h") {
				fill(t, etcd, fleet, 100)
			}
			t.Run(fmt.Sprint(test.name, " ", signal), func(t *testing.T) {
				t.Parallel()
				n := start(t, h, append(slices.Clone(test.flags), "-name", fleet)...)
				if test.until == nil {
					poll(t, "its socket is there", func() (bool, string) {
						code, _ := n.get("/ready")
						return code != 0, n.Output()
					})
				} else {
					test.until(n)
				}
				before := kernel(t, h.NS)
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				began := time.Now()
				must(t, syscall.Kill(n.Pid(), signal))
				_ = syscall.Kill(n.Pid(), syscall.SIGTERM)
				code, err := n.Wait(ctx)
				t.Logf("it ended after %v", time.Since(began))
				if code != 0 || err != nil {
					t.Errorf("status %d, %v\n%s", code, err, n.Output())
				}
				if after := kernel(t, h.NS); test.until != nil && after != before {
					t.Errorf("the kernel has\n%s\nand had\n%s", after, before)
				}
			})
		}
	}
}

// fill makes nodes of a fleet that are in the store alone.
func fill(t *testing.T, s *lab.Store, fleet string, nodes int) {
	t.Helper()
	c := value(s.Client(s.Members[0].Host))(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	var ops []clientv3.Op
	put := func(key string, v any) {
		ops = append(ops, clientv3.OpPut(state.Root(fleet)+key, string(state.Encode(v))))
	}
	config := state.DefaultConfig()
	config.TTL, config.Hold = state.Duration(2*time.Second), state.Duration(time.Hour)
	put(state.ConfigKey, config)
	for i := range nodes {
		n := state.Node{
			Version: state.Version, ID: state.ID{byte(i), 1}, Name: fmt.Sprint("n", i), MTU: 1500, Generation: 1,
			Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})},
		}
		for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
			n.Prefixes = append(n.Prefixes, config.Nth(f, uint64(i)))
		}
		for _, p := range n.Prefixes {
			put(state.ClaimKey(p), state.Claim{Version: state.Version, Node: n.ID})
		}
		put(state.NodeKey(n.ID), n)
	}
	for some := range slices.Chunk(ops, 100) { // etcd takes 128 in a transaction
		_, err := c.Txn(ctx).Then(some...).Commit()
		must(t, err)
	}
}
