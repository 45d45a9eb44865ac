package nat

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// lookAtSource finds out whether the chain guard drops what a visitor sends, or what the box
// replies, for its source.
func (d *diagnosis) lookAtSource(ctx context.Context) error {
	if !d.there || d.local {
		return nil
	}
	nets, err := d.n.readNetworks(ctx, d.c)
	if err != nil {
		return ignoreDamage(err)
	}
	from := d.hints.From
	for i := range nets {
		s := &nets[i]
		if !from.IsValid() || from.IsLinkLocalUnicast() || d.in.Index == 0 {
			continue
		}
		switch own := d.in.Name == s.Interface; {
		case own && !s.mayBeFrom(from) && s.trusts(from):
			d.add(CauseSource, true, "network "+s.Interface, "%v comes in by %s, and is in a trusted prefix of its network: Network.Trusted says that it is outside of this host, so it has no way to the host by that link.", from, s.Interface)
		case own && !s.mayBeFrom(from):
			d.add(CauseSource, true, "network "+s.Interface, "%v comes in by %s, and is no source of its network: Network.Behind names what is behind a box.", from, s.Interface)
		case !own && s.contains(from):
			d.add(CauseSource, true, "network "+s.Interface, "%v is an address of the network on %s, and comes in by %s: it has no way to the host by another link.", from, s.Interface, d.in.Name)
		}
	}
	return d.lookAtAnswer(ctx, nets)
}

// mayBeFrom reports whether boxes of the network may send from an address.
func (n Network) mayBeFrom(a netip.Addr) bool {
	for _, p := range n.Behind {
		if p.Contains(a) {
			return true
		}
	}
	return n.contains(a)
}

// lookAtAnswer finds out whether the box replies over the link that has the address that was asked.
func (d *diagnosis) lookAtAnswer(ctx context.Context, nets []NetworkState) error {
	if d.hints.Box == nil || !d.box.IsValid() || networkOf(nets, d.box.Addr()) == nil {
		return nil
	}
	visitor, _, err := d.towards(ctx, d.hints.From, d.box.Addr().Is6())
	if err != nil || !visitor.IsValid() {
		return err
	}
	h, err := routeFrom(ctx, d.hints.Box, visitor, d.box.Addr())
	if err != nil || h.Type != unix.RTN_UNICAST {
		return err
	}
	all, err := rtnl.Addrs(ctx, d.hints.Box, unix.AF_UNSPEC)
	has := make(map[int]bool) // links with the address
	for _, a := range all {
		if a.Local.Addr() == d.box.Addr() {
			has[a.Link] = true
		}
	}
	if err == nil && len(has) > 0 && !has[h.Link()] && !has[1] { // lo is 1 in every namespace
		d.add(CauseSource, false, "address "+d.box.Addr().String(),
			"the box answers %v by another link than the one that has %v: if another network is there, that drops what has a source of this one. A rule of the box (ip rule from %v) has it answer by the right link.", visitor, d.box.Addr(), d.box.Addr())
	}
	return err
}
