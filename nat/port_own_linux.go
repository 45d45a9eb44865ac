package nat

import (
	"context"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// The sets here decide about source ports of packets from boxes (see the chain box_out): own and
// owns hold the boxes that may send from their published port, spans holds the port numbers of
// ranges. Single ports are looked up in pub and any.

// ownItem returns the element that lets a box send from its published port. ok is false if there is
// none: for TCP, because a box does not connect from a port that it listens on; for a port with
// another number in the box; and for a port on a single address, because the source address outside
// is not known yet.
func (p *Port) ownItem() (it item, ok bool) {
	if p.Proto == TCP || !p.Host.Addr().IsUnspecified() || p.Host.Port() != p.Box.Port() {
		return it, false
	}
	f := familyOf(p.Box.Addr())
	e := nft.Element{Key: appendKey(nil, p.Box.Addr(), p.Proto, p.Host.Port())}
	if !p.isRange() {
		return item{f.own, e}, true
	}
	e.KeyEnd = appendKey(nil, p.Box.Addr(), p.Proto, p.last())
	return item{f.owns, e}, true
}

// ownItems returns the elements of own and owns for the ports.
func ownItems(ports []Port) (items []item) {
	for p := range eachSingle(ports) {
		if it, ok := p.ownItem(); ok {
			items = append(items, it)
		}
	}
	return items
}

// spans reports whether the port is a range on a single address.
func (p Port) spans() bool { return p.isRange() && !p.Host.Addr().IsUnspecified() }

// spanItems returns the elements of spans for the published ports. It merges ranges: those on
// different addresses may overlap, elements may not.
func spanItems(ports []Port) (items []item) {
	sets := make(map[Proto]*portSet)
	for _, p := range ports {
		if p.spans() {
			if sets[p.Proto] == nil {
				sets[p.Proto] = new(portSet)
			}
			sets[p.Proto].add(p.Host.Port(), p.last())
		}
	}
	for _, proto := range []Proto{TCP, UDP, SCTP} {
		if s := sets[proto]; s != nil {
			for first, last := range s.runs {
				items = append(items, item{"spans", nft.Element{Key: appendKey(nil, netip.Addr{}, proto, first), KeyEnd: appendKey(nil, netip.Addr{}, proto, last)}})
			}
		}
	}
	return items
}

// respan adds to the batch how spans changes with the published ports.
func (n *NAT) respan(ctx context.Context, c nft.Conn, b *nft.Batch, gone, add []Port) error {
	if !slices.ContainsFunc(gone, Port.spans) && !slices.ContainsFunc(add, Port.spans) {
		return nil
	}
	after, err := n.rangesAfter(ctx, c, gone, add)
	if err != nil {
		return err
	}
	have, err := n.readItems(ctx, c, "spans")
	if err == nil {
		changeItems(b, have, spanItems(after))
	}
	return err
}

// rangesAfter returns the published ranges after a change, and all ports that it adds.
func (n *NAT) rangesAfter(ctx context.Context, c nft.Conn, gone, add []Port) ([]Port, error) {
	items, err := n.readItems(ctx, c, rangeSets...)
	if err != nil {
		return nil, err
	}
	there, err := decodeItems(items)
	if err != nil {
		return nil, err
	}
	left := make(map[setKey]bool, len(gone))
	for _, it := range portItems(gone) {
		left[it.setKey()] = true
	}
	after := slices.Clone(add)
	for i, p := range there {
		if !left[items[i].setKey()] {
			after = append(after, p)
		}
	}
	return after, nil
}
