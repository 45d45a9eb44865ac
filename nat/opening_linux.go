package nat

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// AddOpening opens ports of boxes in one transaction: all of them or none. Each
// box's address has to be in a subnet of a network that was added.
//
// Ports that are open already are os.ErrExist, and the error names their holder;
// an address of no network is os.ErrNotExist.
func (n *NAT) AddOpening(ctx context.Context, openings ...Opening) error {
	return n.changeOpenings(ctx, "nat.AddOpening", openings, true)
}

// RemoveOpening closes ports of boxes in one transaction: all of them or none.
// Connections that exist go on; no new ones arrive.
//
// What is not open as given is os.ErrNotExist; what another owner opened is
// os.ErrPermission.
func (n *NAT) RemoveOpening(ctx context.Context, openings ...Opening) error {
	return n.changeOpenings(ctx, "nat.RemoveOpening", openings, false)
}

func (n *NAT) changeOpenings(ctx context.Context, op string, openings []Opening, add bool) error {
	if o, err := checkOpenings(openings); err != nil {
		return n.fail(op, o.String(), err)
	}
	if len(openings) == 0 {
		return nil
	}
	subject := openings[0].String()
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) (err error) {
		subject, err = n.commitOpenings(ctx, c, openings, add)
		return n.explain(ctx, c, err)
	})
	return n.fail(op, subject, err)
}

func (n *NAT) commitOpenings(ctx context.Context, c nft.Conn, openings []Opening, add bool) (subject string, err error) {
	subject = openings[0].String()
	items := make([]item, len(openings))
	for i, o := range openings {
		items[i] = o.item()
	}
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		open, subnets, err := n.readOpenings(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, o := range openings {
			subject = o.String()
			if add {
				err = canOpen(o, open, subnets)
			} else {
				err = canClose(o, open)
			}
			if err != nil {
				return nil, err
			}
		}
		b := nft.NewBatch(n.table)
		if add {
			addItems(b, items)
		} else {
			deleteItems(b, items)
		}
		return b, nil
	}, func(ctx context.Context) (bool, error) {
		open, _, err := n.readOpenings(ctx, c)
		done := !slices.ContainsFunc(openings, func(o Opening) bool { return (canClose(o, open) == nil) != add })
		return done, err
	})
	return subject, err
}

// readOpenings reads what is open, and all networks' subnets.
func (n *NAT) readOpenings(ctx context.Context, c nft.Conn) (open []Opening, subnets []netip.Prefix, err error) {
	for _, f := range families {
		elems, err := c.Elements(ctx, n.table, f.route)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range elems {
			o, err := decodeOpening(e)
			if err != nil {
				return nil, nil, fmt.Errorf("set %s: %w", f.route, err)
			}
			open = append(open, o)
		}
		if elems, err = c.Elements(ctx, n.table, f.same); err != nil {
			return nil, nil, err
		}
		for _, e := range elems {
			subnet, _, err := decodeSame(e)
			if err != nil {
				return nil, nil, fmt.Errorf("set %s: %w", f.same, err)
			}
			subnets = append(subnets, subnet)
		}
	}
	return open, subnets, nil
}

func canOpen(o Opening, open []Opening, subnets []netip.Prefix) error {
	for _, held := range open {
		if held.overlaps(o) {
			return fmt.Errorf("%v is opened by %q: %w", held, held.Owner, os.ErrExist)
		}
	}
	for _, s := range subnets {
		if s.Contains(o.Box.Addr()) {
			return nil
		}
	}
	return fmt.Errorf("the address %v is in no network's subnet: %w", o.Box.Addr(), os.ErrNotExist)
}

func canClose(o Opening, open []Opening) error {
	for _, held := range open {
		if held.Proto != o.Proto || held.Box != o.Box || held.last() != o.last() {
			continue
		}
		if held.Owner != o.Owner {
			return fmt.Errorf("the opening belongs to %q, not to %q: %w", held.Owner, o.Owner, os.ErrPermission)
		}
		return nil
	}
	return fmt.Errorf("the opening is not there: %w", os.ErrNotExist)
}
