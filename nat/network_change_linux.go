package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// networkTx has what all transactions about one network share.
type networkTx struct {
	tableTx
	iface string
	want  []item // the network's elements after the change; nil for none
	had   []item // its elements before, with the AllowTo of others that goes with it
	plan  *plan  // for the host's links
}

func (ch *networkTx) subject() string { return "network " + ch.iface }

// Committed reports whether the table holds exactly the wanted items of the network.
func (ch *networkTx) Committed(ctx context.Context) (bool, error) {
	if gone, ask, err := ch.closedAhead(ctx); ask {
		return gone, err
	}
	have, err := ch.n.held(ctx, ch.c, ch.iface)
	b := nft.NewBatch(ch.n.table)
	changeItems(b, have, ch.want)
	if err == nil {
		err = ch.n.followNetwork(ctx, ch.c, b, ch.iface, have, ch.want)
	}
	if err != nil || b.Len() > 0 {
		return false, err
	}
	all, err := ch.n.readItems(ctx, ch.c, setFlowtable)
	if err != nil {
		return false, err
	}
	p, err := ch.n.readFlowtable(ctx, ch.c)
	return p.has(flowing(all)), err
}

// follow adds to the batch what follows from the items of the network, which it changes. p is a plan of
// now; without one it makes its own.
func (ch *networkTx) follow(ctx context.Context, b *nft.Batch, have, want []item, p *plan) error {
	err := ch.n.followNetwork(ctx, ch.c, b, ch.iface, have, want)
	if err == nil {
		_, err = ch.n.flowNetwork(ctx, ch.c, b, ch.iface, want, p, b.Len() > 0)
	}
	return err
}

// followNetwork adds to the batch what follows from the items of a network that change, and is shared with
// other networks.
func (n *NAT) followNetwork(ctx context.Context, c nft.Conn, b *nft.Batch, iface string, had, want []item) error {
	if err := n.coverNetwork(ctx, c, b, iface, had, want); err != nil {
		return err
	}
	return n.quietNetwork(ctx, c, b, iface, had, want)
}

// putNetwork adds a network. With replace, it replaces an existing one.
func (n *NAT) putNetwork(ctx context.Context, op string, net Network, replace bool) error {
	tx := &putNetworkTx{replace: replace}
	tx.iface = net.Interface
	var err error
	if tx.net, err = net.checked(); err == nil {
		err = refuseFlowtable(net)
	}
	if err != nil {
		return n.fail(op, tx.subject(), err)
	}
	tx.want = tx.net.items()
	return n.transact(ctx, op, tx)
}

// putNetworkTx adds or replaces a network.
type putNetworkTx struct {
	networkTx
	net     Network // checked
	replace bool    // one that is there

	gone    []item // the policies of addresses that the network loses, with their count
	policed []item // the count of those that it keeps
}

// Build returns the batch, and plans the changes of links.
func (ch *putNetworkTx) Build(ctx context.Context, _ []*nft.Element) (b *nft.Batch, err error) {
	if ch.plan, err = ch.n.plan(ctx, ch.c, ch.net); err != nil {
		return nil, err
	}
	if ch.had, err = ch.n.held(ctx, ch.c, ch.iface); err != nil {
		return nil, err
	}
	if ch.had != nil && !ch.replace {
		return nil, refuse.As(os.ErrExist, "the interface has a network already")
	}
	if err := ch.n.overlaps(ctx, ch.c, ch.net); err != nil {
		return nil, err
	}
	b = nft.NewBatch(ch.n.table)
	if ch.net.Strict {
		there, err := ch.c.HasSet(ctx, ch.n.table, families[0].policy)
		if err != nil {
			return nil, err
		}
		if !there {
			addPolicies(b, ch.n.table)
		}
	}
	gone, policed, err := ch.n.policiesOfNetwork(ctx, ch.c, ch.iface, rangesOf(ch.had), ch.net.ranges())
	if err != nil {
		return nil, err
	}
	have, want := slices.Concat(ch.had, gone), slices.Concat(ch.want, policed)
	if first := ch.closeAhead(have, want); first != nil {
		return first, nil
	}
	changeItems(b, have, want)
	if err := ch.follow(ctx, b, have, want, ch.plan); err != nil {
		return nil, err
	}
	ch.had = append(ch.had, ch.closing.items...)
	ch.gone, ch.policed = gone, policed
	ch.plan.record(b)
	return b, nil
}

// finish writes the settings of links, and ends the flows that the network would not let begin.
func (ch *putNetworkTx) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	err := forwarding.Apply(ctx, ch.n.ns, ch.plan.Changes)
	if err == nil {
		ch.n.learn(ch.plan.gone, ch.plan.facts) // before records of others take the place of some
		err = ch.n.takeOver(ctx, ch.c)
	}
	if err == nil {
		err = ch.n.yieldLinks(ctx, ch.c)
	}
	if err != nil {
		ch.n.learn(ch.plan.facts, ch.plan.gone)
		return errors.Join(err, ch.undo(ctx))
	}
	return ch.n.explain(ctx, ch.c, ch.sweep(ctx))
}

// undo undoes the change, when a setting could not be written.
func (ch *putNetworkTx) undo(ctx context.Context) error {
	back := &undoNetworkTx{networkTx: ch.networkTx, gone: ch.gone, policed: ch.policed}
	back.want, back.had, back.closing = ch.had, ch.want, closing{}
	back.reverted = forwarding.Revert(ctx, ch.n.ns, ch.plan.Changes)
	if err := errors.Join(back.reverted, ch.n.run(ctx, ch.c, back)); err != nil {
		return fmt.Errorf("undoing the change: %w", err)
	}
	return nil
}

// undoNetworkTx undoes a putNetworkTx.
type undoNetworkTx struct {
	networkTx
	gone, policed []item // as putNetworkTx has them
	reverted      error  // the error of restoring settings; the records stay then
}

// Build returns the batch that restores the former network.
func (ch *undoNetworkTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	have, err := ch.n.held(ctx, ch.c, ch.iface)
	if err != nil {
		return nil, err
	}
	b := nft.NewBatch(ch.n.table)
	changeItems(b, slices.Concat(have, ch.policed), slices.Concat(ch.want, ch.gone))
	// The plan of the change may have links that have gone since.
	if err := ch.follow(ctx, b, have, ch.want, nil); err != nil {
		return nil, err
	}
	if ch.reverted == nil {
		err = ch.n.unrecord(ctx, ch.c, b, ch.plan)
	}
	return b, err
}

// deleteNetworkTx deletes a network, and the AllowTo of other networks that name it.
type deleteNetworkTx struct{ networkTx }

// Build returns the batch that deletes the network.
func (ch *deleteNetworkTx) Build(ctx context.Context, _ []*nft.Element) (b *nft.Batch, err error) {
	n, c := ch.n, ch.c
	if ch.had, err = n.held(ctx, c, ch.iface); err != nil {
		return nil, err
	}
	if ch.had == nil {
		if err := n.gone(ctx, c); err != nil {
			return nil, err
		}
		return nil, refuse.As(os.ErrNotExist, "the interface has no network")
	}
	pairs, err := c.Elements(ctx, n.table, "pair")
	if err != nil {
		return nil, err
	}
	for _, e := range pairs {
		if from, to := pairOf(e.Key); to == ch.iface && from != ch.iface {
			ch.had = append(ch.had, item{"pair", e})
		}
	}
	if ch.plan, err = n.plan(ctx, c); err != nil {
		return nil, err
	}
	gone, _, err := n.policiesOfNetwork(ctx, c, ch.iface, rangesOf(ch.had), nil)
	if err != nil {
		return nil, err
	}
	b = nft.NewBatch(n.table)
	changeItems(b, slices.Concat(ch.had, gone), nil)
	if err := ch.follow(ctx, b, ch.had, nil, ch.plan); err != nil {
		return nil, err
	}
	ch.plan.record(b)
	return b, n.revoke(ctx, c, b, ch.iface)
}

// finish ends the network's flows and restores the links.
func (ch *deleteNetworkTx) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if err := errors.Join(ch.sweep(ctx), ch.n.restoreLinks(ctx, ch.c)); err != nil {
		return fmt.Errorf("the network is removed, but: %w", err)
	}
	return nil
}

// sweep ends the flows that the change made stale. If nothing is tracked or nothing changed, it
// reads nothing.
func (ch *networkTx) sweep(ctx context.Context) error {
	b := nft.NewBatch(ch.n.table)
	if changeItems(b, ch.had, ch.want); b.Len() == 0 {
		return nil
	}
	table, err := ch.n.flows()
	if err != nil {
		return err
	}
	if any, err := table.Any(ctx); err != nil || !any {
		return notEnded(err)
	}
	now, err := ch.n.readItems(ctx, ch.c, setsOfKind(kindNetwork, kindOwned, kindFact)...)
	if err != nil {
		return notEnded(err)
	}
	limited, err := ch.n.readPart(ctx, ch.c, func(f *family46) []string { return []string{f.out.limited} })
	if err != nil {
		return notEnded(err)
	}
	now = append(now, limited...)
	s := sweep{n: ch.n, had: replaceItems(now, ch.want, ch.had), is: now}
	return s.run(ctx)
}

// replaceItems returns items without out and with in.
func replaceItems(items, out, in []item) []item {
	gone := byKey(out)
	all := make([]item, 0, len(items)+len(in))
	for _, it := range items {
		if _, ok := gone[it.setKey()]; !ok {
			all = append(all, it)
		}
	}
	return append(all, in...)
}
