package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/bench/floor"
)

var policyChangeRow = row{
	name: "policy-change",
	work: "set the policy of one box, with 10 rules, beside 10, 1,000 and 10,000 boxes with 10 rules each",
	unit: "change",
	n:    40,
	run: func(ctx context.Context, b *bout) error {
		sizes := []int{10, b.size(1000, 50), b.size(10_000, 200)}
		each, err := changeByCalls(ctx, b, sizes)
		if err != nil {
			return err
		}
		if err := changeByPrograms(ctx, b, sizes); err != nil {
			return err
		}
		few, many, most := sizes[0], sizes[1], sizes[2]
		for _, boxes := range sizes[1:] {
			b.atMost(besides(nameBoxwire, boxes), besides(nameBoxwire, few), 1.3)
		}
		ours, bare := besides(nameBoxwire, most), besides(nameFloor, most)
		b.claim(ours+", in ms", micro(median(b.figures[ours]))/1000, 1, false)
		b.brief("set the policy of a box beside "+thousands(most)+" others, 10 rules each", ours, bare,
			[2]string{"`nft -f`, a rule a rule", besides(nftChains.name, most)},
			[2]string{"`iptables-restore`, beside " + thousands(many), besides(iptablesChains.name, many)})
		b.note("The floor adds to a hash set the %d elements that the policy of a box takes, in one transaction of bare system calls: it takes no lock, reads nothing and looks for no flows. %s / %s is %.2f.",
			each, ours, bare, pairRatio(b.figures[ours], b.figures[bare]))
		b.note("The others write a chain for the box, which nft finds with a map and iptables with a rule for each box. The kernel checks all chains of a table at each change of a rule, and iptables reads them all: it was not tried beside more than %d boxes.", iptablesMost)
		return nil
	},
}

func besides(who string, boxes int) string { return fmt.Sprintf("%s, beside %d", who, boxes) }

// changeByCalls lets those that make system calls take turns. It returns how many elements a box
// takes.
func changeByCalls(ctx context.Context, b *bout, sizes []int) (each int, err error) {
	var all []*contender
	for _, boxes := range sizes {
		var ours, bare *contender
		if ours, each, err = boxwireChange(ctx, besides(nameBoxwire, boxes), boxes); err != nil {
			return 0, errors.Join(err, closeAll(all))
		}
		all = append(all, ours)
		if bare, err = floorChange(ctx, besides(nameFloor, boxes), boxes, each); err != nil {
			return 0, errors.Join(err, closeAll(all))
		}
		all = append(all, bare)
	}
	return each, b.interleave(ctx, b.n*b.size(10, 1), all...)
}

// changeByPrograms lets those that start processes take turns, apart from the others as in publish.
func changeByPrograms(ctx context.Context, b *bout, sizes []int) error {
	peers, err := b.chainPeers()
	if err != nil {
		return err
	}
	var all []*contender
	for _, peer := range peers {
		for _, boxes := range sizes {
			if peer == &iptablesChains && boxes > iptablesMost {
				continue
			}
			c, err := peerChange(ctx, peer, besides(peer.name, boxes), boxes)
			if err != nil {
				return errors.Join(err, closeAll(all))
			}
			all = append(all, c)
		}
	}
	return b.interleave(ctx, max(b.n/4, 1), all...)
}

// iptablesMost is beside how many boxes iptables is measured: more would take minutes.
const iptablesMost = 1000

// boxwireChange also returns how many elements a box takes.
func boxwireChange(ctx context.Context, name string, boxes int) (c *contender, each int, err error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.gw, err = police(ctx, t.ns, policiesOf(boxes)); err != nil {
		return nil, 0, err
	}
	before, err := t.elements()
	if err != nil {
		return nil, 0, err
	}
	fresh := boxAddr(boxes).Addr()
	policy, key := policyOf(fresh), ruleKey(fresh)
	c = &contender{name: name, close: t.close, round: timed(
		func(ctx context.Context) error { return t.gw.SetPolicies(ctx, policy) },
		func(context.Context) error { return t.sock.HasElement(nftTable, "out4", key) },
		func(ctx context.Context) error { return t.gw.DeletePolicies(ctx, fresh) },
	)}
	if before%boxes != 0 {
		err = fmt.Errorf("%d boxes take %d elements", boxes, before)
	}
	return c, before / boxes, err
}

// floorChange adds as many elements to a set that is alone in its table.
func floorChange(ctx context.Context, name string, boxes, each int) (*contender, error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.fill(boxes, each); err != nil {
		return nil, errors.Join(err, t.close())
	}
	fresh := floorElements(boxes, 1, each)
	add, del := floor.Batch(floorTable, true, fresh), floor.Batch(floorTable, false, fresh)
	return &contender{name: name, close: t.close, round: timed(
		func(context.Context) error { return t.sock.Batch(add) },
		func(context.Context) error { return t.sock.HasElement(floorTable, floorSet, fresh.Keys[each-1]) },
		func(context.Context) error { return t.sock.Batch(del) },
	)}, nil
}

// peerChange writes a chain beside others.
func peerChange(ctx context.Context, peer *chainPeer, name string, boxes int) (*contender, error) {
	t, err := newPolicyTable(ctx)
	if err != nil {
		return nil, err
	}
	all := policiesOf(boxes + 1)
	one := all[boxes:]
	if err := peer.run(ctx, t.ns, peer.write(chains{verb: "add", whole: true, policies: all[:boxes]})); err != nil {
		return nil, errors.Join(err, t.close())
	}
	add, del := peer.write(chains{verb: "add", policies: one}), peer.write(chains{verb: "delete", policies: one})
	looked := false // once: nft lists all that there is for it
	return &contender{name: name, close: t.close, round: timed(
		func(ctx context.Context) error { return peer.run(ctx, t.ns, add) },
		func(ctx context.Context) error {
			if looked {
				return nil
			}
			looked = true
			return peer.written(ctx, t.ns, one[0])
		},
		func(ctx context.Context) error { return peer.run(ctx, t.ns, del) },
	)}, nil
}
