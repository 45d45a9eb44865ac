package nat

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// flowNetwork adds to the batch what follows for the table from the items of a network that change.
// Without an iface it is about links or guards. Without a plan it makes one. With renew the table is rebuilt.
// added are the devices that it gets.
func (n *NAT) flowNetwork(ctx context.Context, c nft.Conn, b *nft.Batch, iface string, want []item, p *plan, renew bool) (added []string, err error) {
	had, err := n.readItems(ctx, c, setFlowtable)
	if err != nil {
		return nil, err
	}
	others := slices.DeleteFunc(slices.Clone(had), func(it item) bool { return it.network() == iface })
	networks := flowing(append(others, want...))
	if len(had)+len(networks) == 0 {
		return nil, nil
	}
	now, err := n.readFlowtable(ctx, c)
	if err != nil {
		return nil, err
	}
	if p == nil {
		if p, err = n.plan(ctx, c); err != nil {
			return nil, err
		}
	}
	devices, err := n.flowDevices(ctx, &p.Plan, networks)
	if err != nil {
		return nil, err
	}
	return without(devices, now.devices), n.changeFlowtable(b, now, networks, devices, renew)
}

// flowGuards adds to the batch what follows for the table from a change of guards. The ports may be new.
func (n *NAT) flowGuards(ctx context.Context, c nft.Conn, b *nft.Batch) error {
	_, err := n.flowNetwork(ctx, c, b, "", nil, nil, true)
	return err
}

// flowSync adds to the batch of a Sync what follows for the table. It is rebuilt with renew,
// and if a network changes.
func (s *syncTx) flowSync(ctx context.Context, b *nft.Batch, renew bool) error {
	networks := flowing(s.want)
	if len(networks) == 0 {
		return s.n.changeFlowtable(b, s.flow, nil, nil, false)
	}
	devices, err := s.n.flowDevices(ctx, &s.plan.Plan, networks)
	if err != nil {
		return err
	}
	difference := nft.NewBatch(s.n.table)
	changeItems(difference, itemsOf(s.have, kindNetwork), itemsOf(s.want, kindNetwork))
	return s.n.changeFlowtable(b, s.flow, networks, devices, renew || difference.Len() > 0)
}

// checkFlowtable checks for [Check] that the table adds flows of the networks.
func (n *NAT) checkFlowtable(ctx context.Context, c nft.Conn, nets []Network) error {
	want := make(map[string]bool)
	for _, net := range nets {
		if net.Flowtable {
			want[net.Interface] = true
		}
	}
	p, err := n.readFlowtable(ctx, c)
	switch {
	case err != nil, !p.there && len(want) == 0:
		return err
	case p.foreign:
		return fmt.Errorf("%w: another program, or a newer version of this library, has the table inet %s", ErrDamaged, n.flowTable())
	case !p.there:
		return fmt.Errorf("%w: there is no table inet %s", ErrDamaged, n.flowTable())
	case !p.whole:
		return fmt.Errorf("%w: another program changed the rules of table inet %s", ErrDamaged, n.flowTable())
	}
	have := byKey(p.have)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		for _, it := range flowItems([]string{name}) {
			if _, ok := have[it.setKey()]; !ok {
				return fmt.Errorf("%w: table inet %s lacks network %s", ErrDamaged, n.flowTable(), name)
			}
		}
	}
	return nil
}

// deleteFlowtable deletes the table, if it is there and ours.
func (n *NAT) deleteFlowtable(ctx context.Context, c nft.Conn, b *nft.Batch) error {
	p, err := n.readFlowtable(ctx, c)
	if err != nil {
		return err
	}
	return n.changeFlowtable(b, p, nil, nil, false)
}
