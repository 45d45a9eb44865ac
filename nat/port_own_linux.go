package nat

import "github.com/boxwire/boxwire/internal/nft"

// The sets own and owns, and spans, decide about source ports of packets from boxes (see the chain
// box_out): own and owns hold the boxes that may send from their published port, spans holds the
// port numbers of ranges. Single ports are looked up in pub and any.

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
	for _, p := range expand(ports) {
		if it, ok := p.ownItem(); ok {
			items = append(items, it)
		}
	}
	return items
}
