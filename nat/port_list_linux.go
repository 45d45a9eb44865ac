package nat

import (
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// ListPorts lists the published ports with their owners and counters, sorted by protocol, host address and
// port. A range with other port numbers in the box is listed as single ports. The owner of an element that
// another program added is its comment.
//
// Errors: os.ErrNotExist for a table that is gone.
func (n *NAT) ListPorts(ctx context.Context) ([]Published, error) {
	c, err := n.conn()
	if err != nil {
		return nil, n.fail("nat.ListPorts", n.String(), err)
	}
	all, err := n.list(ctx, c)
	if err != nil {
		return nil, n.fail("nat.ListPorts", n.String(), n.explain(ctx, c, err))
	}
	slices.SortFunc(all, func(a, b Published) int { return comparePorts(a.Port, b.Port) })
	return all, nil
}

// list reads the maps of published ports in one generation of the ruleset.
func (n *NAT) list(ctx context.Context, c nft.Conn) (all []Published, err error) {
	var items []item
	err = c.Steady(ctx, func(ctx context.Context) error {
		items, err = n.readItems(ctx, c, publishedSets...)
		return err
	})
	if err != nil {
		return nil, err
	}
	all = make([]Published, len(items))
	for i, it := range items {
		if all[i].Port, err = decodeItem(it); err != nil {
			return nil, err
		}
		all[i].Connections = it.elem.Packets
	}
	return all, nil
}
