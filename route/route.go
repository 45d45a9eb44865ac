package route

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Route is a route: packets to Dst leave as the other fields say. The zero value of each
// field but Dst is the default that its comment names.
type Route struct {
	// Dst is the destination, required, without host bits: "10.0.0.0/8". The
	// default routes are 0.0.0.0/0 and ::/0; see [Default].
	Dst netip.Prefix

	// From restricts the route to packets from these sources (RTA_SRC), IPv6 only. The zero
	// Prefix is any source. A kernel without CONFIG_IPV6_SUBTREES refuses it with EINVAL.
	From netip.Prefix

	// TOS restricts the route to packets with this type of service, IPv4 only. It is the
	// DSCP shifted left by two; the kernel refuses the two low bits.
	TOS uint8

	// Via is the gateway. It is of Dst's family, or IPv6 for an IPv4 destination (>= 5.2).
	// It must be reachable over a link unless OnLink is set. The zero Addr is none: Dst is
	// on the link Dev.
	Via netip.Addr

	// Dev is the index of the link that packets leave by. With 0 the kernel finds it by
	// Via. One of the two is required.
	Dev int

	// OnLink says that Via is on the link Dev, even if no route leads there.
	OnLink bool

	// Encap is the tunnel header that packets get: [IPEncap], [MPLSEncap],
	// [Seg6Encap], [Seg6LocalEncap] or [RawEncap]. nil is none.
	Encap Encap

	// Hops are the gateways of a multipath route. Via, Dev, OnLink and Encap are then
	// unset.
	Hops []Hop

	// NextHop is the id of a next-hop object ([NextHop]) that packets go to (>= 5.3). Via,
	// Dev, OnLink, Encap and Hops are then unset, in listed routes as well.
	NextHop uint32

	// Src is the source address that the kernel prefers for packets of this host; the host
	// must have it. The zero Addr leaves the choice to the kernel.
	Src netip.Addr

	// Metric is the priority; the lowest wins. 0 is 0 for IPv4, and the kernel's 1024 for
	// IPv6.
	Metric uint32

	// Table is the routing table; 0 is [TableMain]. See [TableNamed].
	Table Table

	// Type is what happens to a packet; 0 is [TypeUnicast]. Routes of the types blackhole,
	// unreachable, prohibit and throw have no Via, Dev and Hops.
	Type Type

	// Scope is how far away Dst is. 0 is the choice of ip-route(8): ScopeHost for a local
	// IPv4 destination, ScopeLink for one without a gateway, and otherwise ScopeUniverse.
	// IPv6 has ScopeUniverse only.
	Scope Scope

	// Protocol says who made the route; 0 is [ProtoStatic].
	Protocol Protocol

	// Realm classifies packets by where they come from and go to, for tc-route(8), IPv4
	// only. The Hops of a multipath route have their own.
	Realm Realm

	// Metrics are properties of the path, such as its MTU. nil is none.
	Metrics *Metrics

	// Expires is the time after which the kernel deletes the route, in whole seconds, IPv6
	// only. 0 is never. In a listed route it is the time that is left, rounded up.
	Expires time.Duration

	// Pref is the router preference of RFC 4191, IPv6 only; 0 is medium.
	Pref Preference

	// Flags are what the kernel reports about the route. They are not sent.
	Flags Flags
}

// A Hop is one gateway of a multipath route.
type Hop struct {
	Via    netip.Addr // as in [Route]
	Dev    int        // as in [Route]
	OnLink bool       // as in [Route]
	Weight int        // the share of this hop, 1 to 256, required
	Encap  Encap      // as in [Route]
	Realm  Realm      // as in [Route]
	Flags  Flags      // what the kernel reports about the hop; not sent
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

// Equal reports whether two routes are the same after defaults are filled in. It ignores
// Flags and the time that is left of Expires. A route given to [Add] may differ from the
// one that [List] returns, as the kernel fills in Dev.
func (r Route) Equal(o Route) bool {
	r, o = r.normal(), o.normal()
	return r.Dst == o.Dst && r.From == o.From && r.TOS == o.TOS && r.Via == o.Via && r.Dev == o.Dev && r.OnLink == o.OnLink &&
		r.NextHop == o.NextHop && r.Src == o.Src && r.Metric == o.Metric && r.Table == o.Table && r.Type == o.Type &&
		r.Scope == o.Scope && r.Protocol == o.Protocol && r.Realm == o.Realm && r.Pref == o.Pref &&
		(r.Expires == 0) == (o.Expires == 0) && r.Metrics.equal(o.Metrics) && equalEncap(r.Encap, o.Encap) &&
		slices.EqualFunc(r.Hops, o.Hops, Hop.equal)
}

func (h Hop) equal(o Hop) bool {
	return h.Via == o.Via && h.Dev == o.Dev && h.OnLink == o.OnLink && h.Weight == o.Weight && h.Realm == o.Realm &&
		equalEncap(h.Encap, o.Encap)
}

// is4 says which family the route is of.
func (r *Route) is4() bool { return r.Dst.Addr().Is4() }

// leadsNowhere is true for types that drop or refuse a packet, or send it to the next rule.
func (t Type) leadsNowhere() bool { return t >= TypeBlackhole && t <= TypeThrow }

// scope is the scope that a request for the route carries.
func (r *Route) scope() Scope {
	switch {
	case !r.is4():
		return ScopeUniverse
	case r.Scope != 0:
		return r.Scope
	case r.Type == TypeLocal:
		return ScopeHost
	case r.Type == 0 || r.Type == TypeUnicast || r.Type == TypeBroadcast || r.Type == TypeMulticast || r.Type == TypeAnycast:
		if !r.Via.IsValid() && r.Dev != 0 {
			return ScopeLink
		}
	}
	return ScopeUniverse
}

// normal fills in the defaults. Of one hop alone the kernel makes a plain route.
func (r Route) normal() Route {
	r.Scope = r.scope() // of a route with hops, one too: that of a gateway
	if len(r.Hops) == 1 {
		h := r.Hops[0]
		r.Hops, r.Via, r.Dev, r.OnLink, r.Encap, r.Realm = nil, h.Via, h.Dev, h.OnLink, h.Encap, h.Realm
	}
	r.Table = cmp.Or(r.Table, TableMain)
	r.Type = cmp.Or(r.Type, TypeUnicast)
	r.Protocol = cmp.Or(r.Protocol, ProtoStatic)
	if !r.is4() {
		r.Metric = cmp.Or(r.Metric, ipv6Metric)
	}
	if r.From.IsValid() && r.From.Bits() == 0 {
		r.From = netip.Prefix{}
	}
	return r
}

// ipv6Metric is what the kernel gives IPv6 routes without a metric
// (IP6_RT_PRIO_USER).
const ipv6Metric = 1024

// key identifies a route: the kernel holds one of each key, unless a request says append.
type key struct {
	table     Table
	dst, from netip.Prefix
	tos       uint8
	metric    uint32
}

func (r *Route) key() key {
	k := key{table: cmp.Or(r.Table, TableMain), dst: r.Dst, from: r.From, tos: r.TOS, metric: r.Metric}
	if !r.is4() {
		k.metric = cmp.Or(k.metric, ipv6Metric)
	}
	return k
}
