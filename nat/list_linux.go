package nat

import (
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// List returns what is published, sorted by protocol, host address and port.
// Elements that another program added are listed with whatever comment they
// have for an owner. Ports of a range that is shifted are listed one by one.
func (n *NAT) List(ctx context.Context) ([]Published, error) {
	c, err := n.conn()
	if err != nil {
		return nil, n.fail("nat.List", n.String(), err)
	}
	all, err := n.list(ctx, c)
	if err != nil {
		return nil, n.fail("nat.List", n.String(), n.explain(ctx, c, err))
	}
	slices.SortFunc(all, func(a, b Published) int { return comparePorts(a.Port, b.Port) })
	return all, nil
}

// list reads the maps in one state of the ruleset.
func (n *NAT) list(ctx context.Context, c nft.Conn) (all []Published, err error) {
	err = c.Steady(ctx, func(ctx context.Context) error {
		all = nil
		return n.eachPort(ctx, c, func(it item) error {
			p, err := decodeItem(it)
			all = append(all, Published{Port: p, Connections: it.elem.Packets})
			return err
		})
	})
	return all, err
}

// eachPort reads the maps of published ports.
func (n *NAT) eachPort(ctx context.Context, c nft.Conn, fn func(item) error) error {
	for _, f := range families {
		for _, set := range []string{f.pub, f.any, f.rng} {
			elems, err := c.Elements(ctx, n.table, set)
			if err != nil {
				return err
			}
			for _, e := range elems {
				if err := fn(item{set, e}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
