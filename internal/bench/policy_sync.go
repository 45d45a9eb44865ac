package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/nat"
)

var policySyncRow = row{
	name: "policy-sync",
	work: "apply the policies of 50 boxes with 50 rules each, every rule with a peer of its own, from nothing",
	unit: "time",
	n:    20,
	run: func(ctx context.Context, b *bout) (err error) {
		const boxes, rules = 50, 50
		policies := distinctPolicies(boxes, rules)
		var all []*contender
		defer func() { err = errors.Join(err, closeAll(all)) }() // of an error before they take turns
		ours, each, err := boxwireSync(ctx, policies)
		if err != nil {
			return err
		}
		all = append(all, ours)
		bare, err := floorSync(ctx, boxes, each)
		if err != nil {
			return err
		}
		all = append(all, bare)
		peers, err := b.chainPeers()
		if err != nil {
			return err
		}
		for _, peer := range peers {
			c, err := peerSync(ctx, peer, policies)
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		turns := all
		all = nil
		if err := b.interleave(ctx, b.n, turns...); err != nil {
			return err
		}
		b.claim(nameBoxwire+", in ms", micro(median(b.figures[nameBoxwire]))/1000, 500, false)
		b.explain(nameBoxwire, nameFloor)
		b.brief(fmt.Sprintf("apply %s rules of %d boxes from nothing", thousands(boxes*rules), boxes), nameBoxwire, nameFloor,
			[2]string{"`nft -f`, a rule a rule", nftChains.name}, [2]string{"`iptables-restore`", iptablesChains.name})
		b.note("Boxwire also makes its table, the network and its forwarding, and looks for older flows. The floor makes a table with one hash set, and adds the %d elements that the policies take.", boxes*each)
		return nil
	},
}

// distinctPolicies are policies whose rules have no peer in common.
func distinctPolicies(boxes, rules int) []nat.Policy {
	all := make([]nat.Policy, boxes)
	for i := range all {
		allow := make([]nat.Rule, rules)
		for j := range allow {
			peer := netip.AddrFrom4([4]byte{198, 18, byte(i), byte(1 + j)})
			allow[j] = nat.Rule{Proto: nat.TCP, Peer: netip.PrefixFrom(peer, 32), Port: 443}
		}
		all[i] = nat.Policy{Box: []netip.Addr{boxAddr(i).Addr()}, Owner: "bench", Egress: &nat.Rules{Allow: allow}}
	}
	return all
}

// boxwireSync also returns how many elements a box takes.
func boxwireSync(ctx context.Context, policies []nat.Policy) (c *contender, each int, err error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	state := nat.State{Networks: []nat.Network{policyNetwork}, Policies: policies}
	if t.gw, err = police(ctx, t.ns, policies); err != nil {
		return nil, 0, err
	}
	elements, err := t.elements()
	if err == nil {
		err = t.gw.Delete(ctx)
	}
	if err != nil {
		return nil, 0, err
	}
	return &contender{name: nameBoxwire, close: t.close, round: timed(
		func(ctx context.Context) error { return t.gw.Sync(ctx, state) },
		func(context.Context) error {
			n, err := t.elements()
			if err == nil && n != elements {
				err = fmt.Errorf("the policies have %d elements, want %d", n, elements)
			}
			return err
		},
		func(ctx context.Context) error { return t.gw.Delete(ctx) },
	)}, elements / len(policies), nil
}

// floorSync makes a set with as many elements.
func floorSync(ctx context.Context, boxes, each int) (*contender, error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, err
	}
	table, add := floor.NewSet(floorTable, floorSet, ruleKeyLen), floor.Batch(floorTable, true, floorElements(0, boxes, each))
	del := floor.DeleteTable(floorTable)
	return &contender{name: nameFloor, close: t.close, round: timed(
		func(context.Context) error { return errors.Join(t.sock.Batch(table), t.sock.Batch(add)) },
		func(context.Context) error {
			n, err := t.sock.CountElements(floorTable, floorSet)
			if err == nil && n != boxes*each {
				err = fmt.Errorf("the set has %d elements, want %d", n, boxes*each)
			}
			return err
		},
		func(context.Context) error { return t.sock.Batch(del) },
	)}, nil
}

// peerSync writes a chain for each box, and deletes all.
func peerSync(ctx context.Context, peer *chainPeer, policies []nat.Policy) (*contender, error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, err
	}
	add := peer.write(chains{verb: "add", whole: true, policies: policies})
	del := peer.write(chains{verb: "delete", whole: true, policies: policies})
	return &contender{name: peer.name, close: t.close, round: timed(
		func(ctx context.Context) error { return peer.run(ctx, t.ns, add) },
		func(ctx context.Context) error { return peer.written(ctx, t.ns, policies[len(policies)-1]) },
		func(ctx context.Context) error { return peer.run(ctx, t.ns, del) },
	)}, nil
}
