package nat

import (
	"context"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
)

// Ranges are few. So what follows from them is computed from all of them with each change: the set
// spans, which holds the port numbers of ranges, and the ports in net.ipv4.ip_local_reserved_ports.

// isLong reports whether the port is a range that the setting reserves.
func (p Port) isLong() bool { return p.isRange() && p.count() > portlock.MaxRange }

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

// changeRanges adds to the batch what follows from ranges, and plans the change of the setting. It
// reads nothing if no range changes.
func (tx *portsTx) changeRanges(ctx context.Context, b *nft.Batch) error {
	spans := slices.ContainsFunc(tx.gone, Port.spans) || slices.ContainsFunc(tx.add, Port.spans)
	long := !tx.n.unreserved && (slices.ContainsFunc(tx.gone, Port.isLong) || slices.ContainsFunc(tx.add, Port.isLong))
	if !spans && !long {
		return nil
	}
	after, err := tx.rangesAfter(ctx)
	if err != nil {
		return err
	}
	if spans {
		have, err := tx.n.readItems(ctx, tx.c, "spans")
		if err != nil {
			return err
		}
		changeItems(b, have, spanItems(after))
	}
	if !long {
		return nil
	}
	recorded, err := tx.n.readItems(ctx, tx.c, "listed")
	if err != nil {
		return err
	}
	if tx.reserved, err = tx.n.planReserved(ctx, after, recorded); tx.reserved != nil {
		changeItems(b, recorded, tx.reserved.record)
	}
	return err
}

// rangesAfter returns the published ranges after the change, and all ports that it adds.
func (tx *portsTx) rangesAfter(ctx context.Context) ([]Port, error) {
	items, err := tx.n.readItems(ctx, tx.c, rangeSets...)
	if err != nil {
		return nil, err
	}
	there, err := decodeItems(items)
	if err != nil {
		return nil, err
	}
	gone := byKey(portItems(tx.gone))
	after := slices.Clone(tx.add)
	for i, p := range there {
		if _, ok := gone[items[i].setKey()]; !ok {
			after = append(after, p)
		}
	}
	return after, nil
}
