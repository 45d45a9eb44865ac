package nat

import (
	"context"
	"errors"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// plan is how networks change the forwarding of links. It is made before the batch is sent, and its
// settings are written after the commit.
type plan struct {
	forwarding.Plan
	facts []item // new records: the settings of links before
	gone  []item // records to delete: of links that are gone, or replaced by facts
}

// plan reads the records of the table, and plans for the networks.
func (n *NAT) plan(ctx context.Context, c nft.Conn, nets ...Network) (*plan, error) {
	r, err := n.readRecords(ctx, c)
	if err != nil {
		return nil, err
	}
	return n.planLinks(ctx, c, r, nets...)
}

// planLinks reads the links, and plans changes for those that do not forward as the networks need.
// The link of a network may be missing.
func (n *NAT) planLinks(ctx context.Context, c nft.Conn, r records, nets ...Network) (*plan, error) {
	others, err := n.linksOfOthers(ctx, c)
	if err != nil {
		return nil, err
	}
	switched, err := n.othersSwitch(ctx, c)
	if err != nil {
		return nil, err
	}
	forward := make([]forwarding.Network, len(nets))
	for i, net := range nets {
		forward[i] = forwarding.Network{Link: net.Interface, IPv4: net.has(false), IPv6: net.has(true)}
	}
	fp, err := forwarding.Make(ctx, n.ns, forward, r.changes(), forwarding.Options{Others: others, Switched: switched})
	if err != nil {
		return nil, err
	}
	p := &plan{Plan: *fp}
	fresh := make(map[setKey]bool)
	for _, c := range fp.New {
		fact := changeItem(c)
		p.facts, fresh[fact.setKey()] = append(p.facts, fact), true
	}
	bridged := make(map[string]bool)
	for _, it := range r.items {
		name := it.network()
		// A new record replaces a note of another program.
		if fresh[it.setKey()] || name != forwarding.All && !fp.Links[name] {
			p.gone = append(p.gone, it)
		}
		bridged[name] = bridged[name] || it.set == "bridged"
	}
	for _, name := range fp.Bridges {
		if !bridged[name] {
			p.facts = append(p.facts, item{"bridged", nft.Element{Key: slices.Concat(ifname(name), ifname(name))}})
		}
	}
	return p, nil
}

// record adds the records to the batch, and deletes those of links that are gone.
func (p *plan) record(b *nft.Batch) {
	deleteItems(b, p.gone)
	addItems(b, p.facts)
}

// forwardLinks makes links forward for networks that were added before, by the flowtable too, and
// reports whether one did not. With renew the flowtable is rebuilt.
func (n *NAT) forwardLinks(ctx context.Context, nets []Network, renew bool) (bool, error) {
	nets, _, err := checkNetworks(nets)
	if err != nil || len(nets) == 0 {
		return false, err
	}
	// It holds the lock: DeleteNetwork could otherwise restore a link in between and delete its
	// record, and the link would forward for strangers.
	tx := &forwardTx{nets: nets, renew: renew}
	c, err := n.lock(ctx)
	if err != nil {
		return false, err
	}
	defer n.unlock()
	if err := n.yieldLinks(ctx, c); netns.IgnoreNotExist(err) != nil {
		return false, err
	}
	err = n.run(ctx, c, tx)
	return tx.plan.Writes() || len(tx.devices) > 0, err
}

// forwardTx makes links forward for the networks that the table has.
type forwardTx struct {
	tableTx
	nets    []Network
	plan    plan     // empty where the table is being removed
	renew   bool     // the flowtable is rebuilt
	devices []string // the links that it gets
}

// Build plans, and returns the batch that records what the links were.
func (tx *forwardTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	tx.plan, tx.devices = plan{}, nil
	r, err := tx.n.readRecords(ctx, tx.c)
	if err != nil {
		return nil, err
	}
	// Another program may have deleted a network just now.
	there := slices.DeleteFunc(slices.Clone(tx.nets), func(net Network) bool { return !r.nets[net.Interface] })
	p, err := tx.n.planLinks(ctx, tx.c, r, there...)
	if err != nil {
		return nil, err
	}
	tx.plan = *p
	b := nft.NewBatch(tx.n.table)
	p.record(b)
	tx.devices, err = tx.n.flowNetwork(ctx, tx.c, b, "", nil, p, tx.renew)
	return b, err
}

// Committed reports whether the table has the records, and the flowtable the links.
func (tx *forwardTx) Committed(ctx context.Context) (bool, error) {
	r, err := tx.n.readRecords(ctx, tx.c)
	b := nft.NewBatch(tx.n.table)
	changeItems(b, r.items, replaceItems(r.items, slices.Concat(tx.plan.gone, tx.plan.facts), tx.plan.facts))
	if err != nil || b.Len() > 0 || len(tx.devices) == 0 {
		return b.Len() == 0, err
	}
	p, err := tx.n.readFlowtable(ctx, tx.c)
	return len(without(tx.devices, p.devices)) == 0, err
}

// Rollback forgets the plan.
func (tx *forwardTx) Rollback(context.Context) error {
	tx.plan, tx.devices = plan{}, nil
	return nil
}

// explain ignores a missing table. The maintainer's next repair follows its removal.
func (tx *forwardTx) explain(_ context.Context, err error) error { return netns.IgnoreNotExist(err) }

// finish writes the settings.
func (tx *forwardTx) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	return tx.n.forward(ctx, tx.c, &tx.plan)
}

// forward writes the settings of a plan whose records are in the table, and takes over the records
// that other tables have. If a setting cannot be written, it restores the others and deletes the
// records.
func (n *NAT) forward(ctx context.Context, c nft.Conn, p *plan) error {
	err := forwarding.Apply(ctx, n.ns, p.Changes)
	if err == nil {
		n.learn(p.gone, p.facts)
		return n.takeOver(ctx, c)
	}
	if rerr := forwarding.Revert(ctx, n.ns, p.Changes); rerr != nil { // the records stay, and say what to restore
		return errors.Join(err, rerr)
	}
	return errors.Join(err, n.run(ctx, c, &unrecordTx{plan: p}))
}

// unrecordTx undoes the records of a plan.
type unrecordTx struct {
	tableTx
	plan *plan
}

// Build returns the batch that undoes the records.
func (tx *unrecordTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	b := nft.NewBatch(tx.n.table)
	return b, tx.n.unrecord(ctx, tx.c, b, tx.plan)
}

// unrecord undoes record.
func (n *NAT) unrecord(ctx context.Context, c nft.Conn, b *nft.Batch, p *plan) error {
	r, err := n.readRecords(ctx, c)
	if err != nil {
		return err
	}
	changeItems(b, r.items, replaceItems(r.items, slices.Concat(p.facts, p.gone), p.gone))
	return nil
}
