//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/wire"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

var applyRow = row{
	name: "apply", rounds: 40, run: runApply,
	work: "1,000 peers with an IPv4 and an IPv6 prefix each are planned and applied to a kernel that has none of them, and again to one that has all, as after a restart",
}

// A kernel is a namespace with an uplink, for a snapshot of many peers.
type kernel struct {
	ns       *netns.NS
	wire     *wire.Wire
	snapshot *state.Snapshot
	self     state.Node
}

// newKernel makes a namespace for a snapshot of that many peers.
func newKernel(ctx context.Context, peers int) (*kernel, error) {
	config := fleetConfig()
	k := &kernel{snapshot: &state.Snapshot{Config: &config, Nodes: map[state.ID]state.Node{}, Claims: map[netip.Prefix]state.ID{}}}
	for i := range peers + 1 {
		n := recorded(i)
		n.Prefixes = []netip.Prefix{config.Nth(netns.IPv4, uint64(i)), config.Nth(netns.IPv6, uint64(i))}
		for _, p := range n.Prefixes {
			k.snapshot.Claims[p] = n.ID
		}
		k.snapshot.Nodes[n.ID] = n
		if i == 0 {
			k.self = n
		}
	}
	var err error
	if k.ns, err = netns.New(ctx); err != nil {
		return nil, err
	}
	_, err = link.Create(ctx, k.ns, link.Spec{
		Name: "eth0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{netip.PrefixFrom(k.self.Endpoints[0], 15)},
	})
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	k.restart()
	return k, nil
}

func (k *kernel) close() error { return k.ns.Close() }

// restart forgets all that the program knows of the kernel.
func (k *kernel) restart() { k.wire = wire.New(k.ns, wire.Options{}) }

// apply is an agent's round from a snapshot to the kernel.
func (k *kernel) apply(ctx context.Context) (wire.Changes, plan.Plan, error) {
	self, err := k.wire.Self(ctx, k.self.ID, *k.snapshot.Config, k.self.Prefixes)
	if err != nil {
		return wire.Changes{}, plan.Plan{}, err
	}
	p := plan.For(k.snapshot, self, nil, nil)
	did, err := k.wire.Apply(ctx, p)
	return did, p, err
}

// clear deletes routes and tunnel link.
func (k *kernel) clear(ctx context.Context) error {
	if _, err := route.Flush(ctx, k.ns, route.Filter{Protocol: owner}); err != nil {
		return err
	}
	l, err := link.Get(ctx, k.ns, wire.DefaultLink)
	if err != nil {
		return err
	}
	return l.Delete(ctx)
}

// recorded is what the store has of a node without an agent. Its prefixes are to be claimed.
func recorded(i int) state.Node {
	id := state.NewID()
	return state.Node{
		Version: state.Version, ID: id, Name: fmt.Sprintf("recorded%d", i), MTU: 1500, Generation: 1,
		Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}).Next()},
	}
}

const (
	applyAll   = "boxwire, all new"
	applyFloor = "bare netlink: the same routes in few large batches"
	applyNone  = "boxwire, restart with nothing to do"
	dumpFloor  = "bare netlink: a dump of the same routes, unread"
	planOnly   = "boxwire, the plan alone"
)

func runApply(ctx context.Context, b *bout) (err error) {
	peers := b.size(1000, 100)
	k, err := newKernel(ctx, peers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	for i := range warmUp + b.rounds {
		if err := k.applyRound(ctx, b, i >= warmUp, peers); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("%d peers applied, median", peers), applyAll, 0.5, 100)
	b.atMost("restart with nothing to do, median", applyNone, 0.5, 20)
	b.note("%s / bare netlink: %s (median of the ratios of single rounds). It reads links, addresses, sysctls and routes first, makes the tunnel link, plans, and writes the difference.",
		applyAll, number(b.ratio(applyAll, applyFloor)))
	return nil
}

// warmUp is how many rounds come before the first that counts.
const warmUp = 2

// applyRound does the work once each way.
func (k *kernel) applyRound(ctx context.Context, b *bout, counts bool, peers int) error {
	took := func(name string, began time.Time) {
		if counts {
			b.took(name, time.Since(began))
		}
	}
	k.restart()
	began := time.Now()
	did, p, err := k.apply(ctx)
	took(applyAll, began)
	if err != nil {
		return err
	}
	if did.Routes.Added != len(p.Routes) || len(p.Routes) < 2*peers {
		return fmt.Errorf("%v of %d routes of %d peers", did, len(p.Routes), peers)
	}
	k.restart()
	began = time.Now()
	did, p, err = k.apply(ctx)
	took(applyNone, began)
	if err == nil && did.Any() {
		err = fmt.Errorf("nothing differs, and it did: %v", did)
	}
	if err != nil {
		return err
	}
	began = time.Now()
	if err := dump(ctx, k.ns); err != nil {
		return err
	}
	took(dumpFloor, began)
	tunnel, err := link.Get(ctx, k.ns, wire.DefaultLink)
	if err != nil {
		return err
	}
	underlay, err := k.wire.Underlay(ctx, *k.snapshot.Config)
	if err != nil {
		return err
	}
	began = time.Now()
	plan.For(k.snapshot, plan.Self{ID: k.self.ID, Prefixes: k.self.Prefixes, Tunnel: tunnel.Index, Underlay: underlay}, nil, nil)
	took(planOnly, began)

	// The floor, in the same namespace with the same link.
	if _, err := route.Flush(ctx, k.ns, route.Filter{Protocol: owner}); err != nil {
		return err
	}
	batches, err := encode(p.Routes)
	if err != nil {
		return err
	}
	began = time.Now()
	if err := send(ctx, k.ns, batches); err != nil {
		return err
	}
	took(applyFloor, began)
	has, err := route.List(ctx, k.ns, route.Filter{Protocol: owner})
	if err != nil {
		return err
	}
	if len(has) != len(p.Routes) {
		return fmt.Errorf("bare netlink made %d of %d routes", len(has), len(p.Routes))
	}
	// They are the same: the library finds nothing to do.
	if did, _, err := k.apply(ctx); err != nil || did.Any() {
		return fmt.Errorf("bare netlink made other routes: %v %w", did, err)
	}
	return k.clear(ctx)
}
