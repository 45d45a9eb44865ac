package nat

import (
	"context"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// AddPinholes opens ports of boxes in one transaction: all of them or none. The address of each box
// must be in a subnet of a network.
//
// Errors: os.ErrExist for a port that is open already, with the owner; os.ErrNotExist for an
// address that is in no network; os.ErrInvalid for bad input.
func (n *NAT) AddPinholes(ctx context.Context, pinholes ...Pinhole) error {
	return n.changePinholes(ctx, "nat.AddPinholes", pinholes, true)
}

// DeletePinholes closes ports of boxes in one transaction: all of them or none. New connections do
// not get in any more. Existing ones go on until the network is deleted. They also end when
// [NAT.SetNetwork] or [NAT.Sync] sets the network without the pinhole, and when a removed or
// damaged table is rebuilt, because nothing then shows that a pinhole let them in.
//
// Errors: os.ErrNotExist for a pinhole that is not there as given; os.ErrPermission for one of
// another owner; os.ErrInvalid for bad input.
func (n *NAT) DeletePinholes(ctx context.Context, pinholes ...Pinhole) error {
	return n.changePinholes(ctx, "nat.DeletePinholes", pinholes, false)
}

func (n *NAT) changePinholes(ctx context.Context, op string, pinholes []Pinhole, add bool) error {
	if o, err := checkPinholes(pinholes); err != nil {
		return n.fail(op, o.String(), err)
	}
	if len(pinholes) == 0 {
		return nil
	}
	return n.transact(ctx, op, &pinholesTx{pinholes: pinholes, add: add, at: pinholes[0]})
}

// pinholesTx adds or deletes pinholes.
type pinholesTx struct {
	tableTx
	pinholes []Pinhole
	add      bool
	at       Pinhole // the one that an error is about
}

func (tx *pinholesTx) subject() string { return tx.at.String() }

// Build returns the batch, if all pinholes can be added or deleted.
func (tx *pinholesTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	open, nets, err := tx.n.readPinholes(ctx, tx.c)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(tx.pinholes))
	for i, o := range tx.pinholes {
		tx.at, items[i] = o, o.item()
		if tx.add {
			err = canOpen(o, open, nets)
		} else {
			err = canClose(o, open)
		}
		if err != nil {
			return nil, err
		}
	}
	b := nft.NewBatch(tx.n.table)
	if tx.add {
		addItems(b, items)
	} else {
		deleteItems(b, items)
	}
	return b, nil
}

// Committed reports whether all pinholes are there or, for a deletion, none is.
func (tx *pinholesTx) Committed(ctx context.Context) (bool, error) {
	open, _, err := tx.n.readPinholes(ctx, tx.c)
	undone := slices.ContainsFunc(tx.pinholes, func(o Pinhole) bool { return (canClose(o, open) == nil) != tx.add })
	return !undone, err
}

// readPinholes reads the pinholes, and the addresses of all networks.
func (n *NAT) readPinholes(ctx context.Context, c nft.Conn) (open []Pinhole, nets []addrRange, err error) {
	items, err := n.readItems(ctx, c, pinholeSets...)
	if err != nil {
		return nil, nil, err
	}
	for _, it := range items {
		o, err := decodePinhole(it)
		if err != nil {
			return nil, nil, err
		}
		open = append(open, o)
	}
	for _, f := range families {
		elems, err := c.Elements(ctx, n.table, f.same)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range elems {
			own, err := decodeAddrs(item{f.same, e})
			if err != nil {
				return nil, nil, err
			}
			nets = append(nets, own.addrRange)
		}
	}
	return open, nets, nil
}

func canOpen(o Pinhole, open []Pinhole, nets []addrRange) error {
	for _, held := range open {
		if held.overlaps(o) {
			return refuse.As(os.ErrExist, "%v is opened by %q", held, held.Owner)
		}
	}
	if slices.ContainsFunc(nets, func(r addrRange) bool { return r.contains(o.Box.Addr()) }) {
		return nil
	}
	return refuse.As(os.ErrNotExist, "the address %v is in no network's subnet", o.Box.Addr())
}

func canClose(o Pinhole, open []Pinhole) error {
	for _, held := range open {
		if held.Proto != o.Proto || held.Box != o.Box || held.last() != o.last() {
			continue
		}
		if held.Owner != o.Owner {
			return refuse.As(os.ErrPermission, "the pinhole belongs to %q, not to %q", held.Owner, o.Owner)
		}
		return nil
	}
	return refuse.As(os.ErrNotExist, "the pinhole is not there")
}
