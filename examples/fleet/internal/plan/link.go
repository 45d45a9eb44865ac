package plan

import (
	"net/netip"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
)

// Link is the tunnel link of a node: it has the first address of each of the node's prefixes. In mode direct it is a bridge
// without ports, which carries nothing and only has the addresses: boxes need that kind of link anyway. The Spec has neither name nor
// alias.
func Link(cfg state.Config, prefixes []netip.Prefix, mtu int) link.Spec {
	spec := link.Spec{
		MTU: mtu, Up: true,
		IPv4: link.IPv4Conf{Forwarding: new(true)},
		// It has no neighbours, so it needs no link-local address.
		IPv6: link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)},
	}
	switch cfg.Mode {
	case state.WireGuard:
		spec.Kind = link.WireGuard{}
	case state.Direct:
		spec.Kind = link.Bridge{}
	default:
		spec.Kind = link.VXLAN{External: true, GPE: true, Port: cfg.Port, Learning: new(false)}
	}
	for _, p := range prefixes {
		a := state.Gateway(p)
		spec.Addrs = append(spec.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	return spec
}

// LinkMTU is the MTU of the tunnel link: room for the largest packet that any of the underlay's links carries. 0 is no underlay.
// The routes have the MTU of each peer.
func LinkMTU(m state.Mode, underlay []Underlay) int {
	most := 0
	for _, u := range underlay {
		for _, a := range u.Addrs {
			if mtu := u.MTU - Overhead(m, a.Addr()); mtu > most && !a.Addr().IsLinkLocalUnicast() {
				most = mtu
			}
		}
	}
	return most
}
