package route

import (
	"fmt"
	"net/netip"
	"strings"
)

// Route is a route: what goes to Dst leaves as the other fields say. The zero
// value of every field but Dst means the default that its comment names.
type Route struct {
	// Dst is the destination, required, without host bits: "10.0.0.0/8". The
	// default routes are 0.0.0.0/0 and ::/0; see [Default].
	Dst netip.Prefix

	// Via is the gateway, of Dst's family and reachable over a link: the kernel
	// refuses others unless OnLink is set. The zero Addr is none: Dst is
	// on the link Dev itself.
	Via netip.Addr

	// Dev is the index of the link that packets leave by. 0 lets the kernel find
	// it by Via; one of the two is needed.
	Dev int

	// Src is the source address that the kernel prefers for packets of this
	// host, one that it has. The zero Addr leaves the choice to the kernel.
	Src netip.Addr

	// Metric is the priority, the lower the better. 0 is 0 for IPv4, and for
	// IPv6 the kernel's 1024.
	Metric uint32

	// Table is the routing table; 0 is [TableMain].
	Table Table

	// Type says what becomes of a packet; 0 is [Unicast]. Blackhole,
	// Unreachable, Prohibit and Throw routes have neither Via nor Dev.
	Type Type

	// Scope says how far Dst is; 0 is what ip-route(8) would choose:
	// ScopeLink for an IPv4 destination without a gateway, else ScopeUniverse.
	// IPv6 knows ScopeUniverse alone.
	Scope Scope

	// Protocol says who made the route; 0 is [ProtoStatic].
	Protocol Protocol

	// OnLink declares that Via is on the link Dev, though no route says so.
	OnLink bool
}

// Default returns the default route via a gateway, of the gateway's family.
func Default(via netip.Addr) Route {
	dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if via.Is6() {
		dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return Route{Dst: dst, Via: via}
}

// To returns the route to a destination via a gateway.
func To(dst netip.Prefix, via netip.Addr) Route { return Route{Dst: dst, Via: via} }

// String returns the route as ip-route(8) writes it, with the link's index in
// the place of its name. Defaults are left out.
func (r Route) String() string {
	var b strings.Builder
	if r.Type != 0 && r.Type != Unicast {
		b.WriteString(r.Type.String() + " ")
	}
	switch {
	case !r.Dst.IsValid():
		b.WriteString("invalid prefix")
	case r.Dst.Bits() == 0:
		b.WriteString("default")
	case r.Dst.IsSingleIP():
		b.WriteString(r.Dst.Addr().String())
	default:
		b.WriteString(r.Dst.String())
	}
	if r.Via.IsValid() {
		if r.Dst.Addr().Is4() && r.Via.Is6() {
			fmt.Fprintf(&b, " via inet6 %s", r.Via)
		} else {
			fmt.Fprintf(&b, " via %s", r.Via)
		}
	}
	if r.Dev != 0 {
		fmt.Fprintf(&b, " dev %d", r.Dev)
	}
	if r.Table != 0 && r.Table != TableMain {
		fmt.Fprintf(&b, " table %s", r.Table)
	}
	if r.Protocol != 0 {
		fmt.Fprintf(&b, " proto %s", r.Protocol)
	}
	if r.Scope != 0 && r.Scope != ScopeUniverse {
		fmt.Fprintf(&b, " scope %s", r.Scope)
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	return b.String()
}
