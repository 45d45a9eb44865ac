package route

import (
	"net/netip"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// check refuses what the kernel would refuse without a reason, or misread. A route to
// delete need not say where it leads.
func (r Route) check(del bool) error {
	if err := checkPrefix("destination", r.Dst); err != nil {
		return err
	}
	if r.From.IsValid() {
		if r.is4() {
			return refuse.Input("only IPv6 routes depend on the source; use a rule")
		}
		if err := checkPrefix("source", r.From); err != nil {
			return err
		}
		if r.From.Addr().Is4() {
			return refuse.Input("the source %s is of another family than the destination %s", r.From, r.Dst)
		}
	}
	if err := r.Protocol.check(); err != nil {
		return err
	}
	if err := checkAddr("preferred source", r.Src, r.Dst.Addr()); err != nil {
		return err
	}
	switch {
	case r.Scope > ScopeUniverse:
		return refuse.Input("scope %d is out of range", r.Scope)
	case r.Type > TypeThrow:
		return refuse.Input("type %d is unknown", r.Type)
	case r.TOS&3 != 0:
		return refuse.Input("the type of service %#x has one of the two low bits, which are not DSCP's", r.TOS)
	case r.TOS != 0 && !r.is4():
		return refuse.Input("IPv6 routes have no type of service; use a rule")
	case r.Realm != Realm{} && !r.is4():
		return refuse.Input("IPv6 routes have no realm")
	case r.Pref != PrefMedium && r.Pref != PrefHigh && r.Pref != PrefLow:
		return refuse.Input("preference %d is unknown", r.Pref)
	case r.Pref != PrefMedium && r.is4():
		return refuse.Input("IPv4 routes have no preference")
	case r.Expires != 0 && r.is4():
		return refuse.Input("IPv4 routes do not expire")
	case r.Expires < 0 || r.Expires%time.Second != 0 || r.Expires > maxExpiry:
		return refuse.Input("expires %v is not whole seconds up to %v", r.Expires, maxExpiry)
	}
	if err := r.Metrics.check(); err != nil {
		return err
	}
	return r.checkLead(del)
}

// maxExpiry is what the kernel can count in ticks of any of its clocks.
const maxExpiry = 1 << 21 * time.Second

// checkLead checks where the route leads.
func (r *Route) checkLead(del bool) error {
	one := r.Via.IsValid() || r.Dev != 0 || r.OnLink || r.Encap != nil
	switch {
	case r.Type.leadsNowhere() && (one || len(r.Hops) > 0):
		return refuse.Input("a route of type %s has no gateway and no link", r.Type)
	case r.NextHop != 0 && (one || len(r.Hops) > 0):
		return refuse.Input("the next-hop object %d says where the route leads: give no gateway and no link besides", r.NextHop)
	case one && len(r.Hops) > 0:
		return refuse.Input("a multipath route has its gateways and links in Hops alone")
	case r.Realm != Realm{} && len(r.Hops) > 0:
		return refuse.Input("a multipath route has its realms in Hops")
	}
	for i := range r.Hops {
		if err := r.Hops[i].check(r); err != nil {
			return err
		}
	}
	if len(r.Hops) > 0 || r.NextHop != 0 {
		return nil
	}
	if !del && !r.Type.leadsNowhere() && !r.Via.IsValid() && r.Dev == 0 {
		return refuse.Input("neither a gateway nor a link is given")
	}
	return checkHop(r.Dst.Addr(), r.Via, r.Dev, r.OnLink, r.Encap)
}

func (h *Hop) check(r *Route) error {
	switch {
	case h.Weight < 1 || h.Weight > 256:
		return refuse.Input("weight %d of a hop is not from 1 to 256", h.Weight)
	case !h.Via.IsValid() && h.Dev == 0:
		return refuse.Input("a hop has neither a gateway nor a link")
	case h.Realm != Realm{} && !r.is4():
		return refuse.Input("IPv6 routes have no realm")
	}
	return checkHop(r.Dst.Addr(), h.Via, h.Dev, h.OnLink, h.Encap)
}

// checkHop checks one gateway for destinations like dst.
func checkHop(dst, via netip.Addr, dev int, onlink bool, e Encap) error {
	if !isIndex(dev) {
		return refuse.Input("dev %d is not the index of a link", dev)
	}
	if onlink && (!via.IsValid() || dev == 0) {
		return refuse.Input("onlink needs a gateway and a link")
	}
	if dst.Is4() && via.Is6() {
		dst = netip.IPv6Unspecified() // IPv4 by an IPv6 gateway
	}
	if err := checkAddr("gateway", via, dst); err != nil {
		return err
	}
	if e != nil {
		return e.check()
	}
	return nil
}

// checkPrefix checks a prefix that has to be given.
func checkPrefix(what string, p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return refuse.Input("the %s is no valid prefix", what)
	case p.Addr().Is4In6():
		return refuse.Input("the %s is IPv4 written as IPv6; use its IPv4 form", what)
	case p != p.Masked():
		return refuse.Input("the %s %s has host bits set; the prefix is %s", what, p, p.Masked())
	}
	return nil
}

// checkAddr checks an address that may be left out.
func checkAddr(what string, a, dst netip.Addr) error {
	switch {
	case !a.IsValid():
		return nil
	case a.Is4In6():
		return refuse.Input("the %s %s is IPv4 written as IPv6; use %s", what, a, a.Unmap())
	case a.Is4() != dst.Is4():
		return refuse.Input("the %s %s is of another family than the destination", what, a)
	case a.Zone() != "":
		return refuse.Input("the %s %s has a zone; give the link as Dev", what, a)
	case a.IsUnspecified():
		return refuse.Input("the %s is the unspecified address", what)
	case a.IsMulticast():
		return refuse.Input("the %s %s is a multicast address", what, a)
	}
	return nil
}

func (m *Metrics) check() error {
	if m == nil {
		return nil
	}
	var has Locks
	for i, d := range metrics {
		if d.duration != nil {
			if v := *d.duration(m); v < 0 || v%d.step != 0 || v/d.step > 1<<32-1 {
				return refuse.Input("%s %v is not a multiple of %v that fits 32 bits", d.name, v, d.step)
			}
		}
		if m.value(i) != 0 {
			has |= 1 << d.attr
		}
	}
	if m.Congestion != "" {
		has |= LockCongestion
	}
	switch {
	case m.HopLimit > 255:
		return refuse.Input("hoplimit %d is above 255", m.HopLimit)
	case len(m.Congestion) > 15 || strings.ContainsAny(m.Congestion, " \t\n\r\v\f\x00") || m.Congestion == "lock":
		return refuse.Input("the congestion control algorithm %q is no name of up to 15 bytes", m.Congestion)
	case m.Lock&^has != 0:
		return refuse.Input("a metric is locked that is not given (%#x)", uint32(m.Lock&^has))
	}
	return nil
}

// checkAll checks the routes of one call; i says which one is refused. Routes
// with one key replace each other, so that they are refused unless they are
// appended.
func checkAll(routes []Route, v verb) (i int, err error) {
	var seen map[key]bool
	if v != verbAppend && v != verbDelete && len(routes) > 1 {
		seen = make(map[key]bool, len(routes))
	}
	for i := range routes {
		if err := routes[i].check(v == verbDelete); err != nil {
			return i, err
		}
		if seen == nil {
			continue
		}
		k := routes[i].key()
		if seen[k] {
			return i, refuse.Input("the destination appears twice in one table with one metric")
		}
		seen[k] = true
	}
	return 0, nil
}
