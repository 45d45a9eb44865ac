package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// endpoint chooses where the tunnel's packets to a peer go: the first of the peer's endpoints whose family this node has and that is
// usable. One that is not does not hide the others: a bridge with the same address on each host is such a one. mtu is that of the path
// between the two, as far as the two know it. why says why there is none: what is wrong with the first.
func (p *planning) endpoint(n state.Node) (a netip.Addr, mtu int, why string) {
	for _, e := range n.Endpoints {
		mtu := p.mtuTo(e)
		if mtu == 0 {
			continue
		}
		bad := p.unusable(e)
		if bad == "" {
			return e, min(mtu, n.MTU), ""
		}
		why = cmp.Or(why, bad)
	}
	if why != "" {
		return a, 0, why
	}
	return a, 0, fmt.Sprintf("none of its endpoints %v is of a family that this node has", n.Endpoints)
}

// mtuTo is the MTU of the link that leads to an address: of the link that it is on, else the smallest of all links that have an
// address of its family. 0 is no such link.
func (p *planning) mtuTo(e netip.Addr) int {
	if u := p.on(e); u != nil {
		return u.MTU
	}
	least := 0
	for i := range p.self.Underlay {
		if u := &p.self.Underlay[i]; u.has(e) && (least == 0 || u.MTU < least) {
			least = u.MTU
		}
	}
	return least
}

// neighbour finds the peer's endpoint that can be a gateway to dst: the first usable one on a link of this node. An IPv4 prefix may
// have an IPv6 gateway, and not the other way round. on is nil if there is none. why is what is wrong with the first on a link, if there
// is one.
func (p *planning) neighbour(n state.Node, dst netip.Prefix) (gateway netip.Addr, on *Underlay, why string) {
	for _, e := range n.Endpoints {
		if dst.Addr().Is6() && e.Is4() {
			continue
		}
		if u := p.on(e); u != nil {
			bad := p.unusable(e)
			if bad == "" {
				return e, u, ""
			}
			why = cmp.Or(why, bad)
		}
	}
	return netip.Addr{}, nil, why
}

// on finds the link whose subnet an address is in, the longest if there are several.
func (p *planning) on(e netip.Addr) *Underlay {
	var best *Underlay
	bits := -1
	for i := range p.self.Underlay {
		for _, a := range p.self.Underlay[i].Addrs {
			if a.Bits() > bits && a.Masked().Contains(e) {
				best, bits = &p.self.Underlay[i], a.Bits()
			}
		}
	}
	return best
}

// unusable says why packets to a peer cannot go to an address.
func (p *planning) unusable(e netip.Addr) string {
	for _, u := range p.self.Underlay {
		for _, a := range u.Addrs {
			switch {
			case a.Addr() == e:
				return fmt.Sprintf("its endpoint %v is this node's own address, on link %s", e, u.Name)
			case e.Is4() && a.Addr().Is4() && a.Bits() < 31 && (e == a.Masked().Addr() || a.Contains(e) && !a.Contains(e.Next())):
				return fmt.Sprintf("its endpoint %v is no host's address in %v, on link %s", e, a.Masked(), u.Name)
			}
		}
	}
	for _, pool := range p.config.Pools {
		if pool.Contains(e) {
			return fmt.Sprintf("its endpoint %v is in the fleet's pool %v: the tunnel would lead into itself", e, pool)
		}
	}
	return ""
}

// has reports whether the link has an address from which e can be reached beyond the link.
func (u *Underlay) has(e netip.Addr) bool {
	return slices.ContainsFunc(u.Addrs, func(a netip.Prefix) bool {
		return a.Addr().Is4() == e.Is4() && !a.Addr().IsLinkLocalUnicast()
	})
}

// Overhead is how many bytes a mode adds to a packet that goes to an endpoint: the outer IP header, UDP and the tunnel's own.
func Overhead(m state.Mode, outer netip.Addr) int {
	ip := 20
	if outer.Is6() {
		ip = 40
	}
	switch m {
	case state.Direct:
		return 0
	case state.WireGuard:
		return ip + 8 + 16 + 16 // header and authentication tag
	}
	return ip + 8 + 8 // GPE has no inner Ethernet header
}

// LeastMTU is the smallest MTU that a family of addresses works with.
func LeastMTU(a netip.Addr) int {
	if a.Is6() {
		return 1280 // RFC 8200
	}
	return 68 // RFC 791
}
