package route

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// check refuses what the kernel would refuse without saying why, or take for
// something else. A route to delete need not say where it leads.
func (r Route) check(del bool) error {
	switch {
	case !r.Dst.IsValid():
		return refuse.Input("the destination is no valid prefix")
	case r.Dst.Addr().Is4In6():
		return refuse.Input("the destination is IPv4 written as IPv6; use its IPv4 form")
	case r.Dst != r.Dst.Masked():
		return refuse.Input("the destination %s has host bits set; the prefix is %s", r.Dst, r.Dst.Masked())
	case r.Dev < 0 || int64(r.Dev) > 1<<31-1:
		return refuse.Input("dev %d is not the index of a link", r.Dev)
	case r.Scope > ScopeUniverse:
		return refuse.Input("scope %d is out of range", r.Scope)
	}
	if err := checkAddr("gateway", r.Via, r.Dst); err != nil {
		return err
	}
	if err := checkAddr("preferred source", r.Src, r.Dst); err != nil {
		return err
	}
	switch r.Type {
	case 0, Unicast, Local, Broadcast, Anycast, Multicast:
		if !del && !r.Via.IsValid() && r.Dev == 0 {
			return refuse.Input("neither a gateway nor a link is given")
		}
	case Blackhole, Unreachable, Prohibit, Throw:
		if r.Via.IsValid() {
			return refuse.Input("a route of type %s has no gateway", r.Type)
		}
	default:
		return refuse.Input("type %d is unknown", r.Type)
	}
	if r.OnLink && (!r.Via.IsValid() || r.Dev == 0) {
		return refuse.Input("onlink needs a gateway and a link")
	}
	return nil
}

// checkAddr checks an address that may be left out.
func checkAddr(what string, a netip.Addr, dst netip.Prefix) error {
	switch {
	case !a.IsValid():
		return nil
	case a.Is4In6():
		return refuse.Input("the %s %s is IPv4 written as IPv6; use %s", what, a, a.Unmap())
	case a.Is4() != dst.Addr().Is4():
		return refuse.Input("the %s %s is of another family than the destination %s", what, a, dst)
	case a.Zone() != "":
		return refuse.Input("the %s %s has a zone; give the link as Dev", what, a)
	case a.IsUnspecified():
		return refuse.Input("the %s is the unspecified address", what)
	case a.IsMulticast():
		return refuse.Input("the %s %s is a multicast address", what, a)
	}
	return nil
}

// checkAll checks the routes of one call; i says which one is refused.
func checkAll(routes []Route, del bool) (i int, err error) {
	seen := make(map[Route]bool, len(routes))
	for i, r := range routes {
		if err := r.check(del); err != nil {
			return i, err
		}
		if seen[r] {
			return i, refuse.Input("the route appears twice")
		}
		seen[r] = true
	}
	return 0, nil
}
