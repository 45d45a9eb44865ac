package route

import (
	"strconv"
	"strings"
)

// Type says what becomes of a packet that a route matches (RTN_*).
type Type uint8

// The types of routes.
const (
	Unicast     Type = 1 // sent on to the gateway or the link
	Local       Type = 2 // delivered to this host
	Broadcast   Type = 3 // delivered here and sent as a broadcast
	Anycast     Type = 4 // delivered here, IPv6
	Multicast   Type = 5 // handled as multicast
	Blackhole   Type = 6 // dropped in silence
	Unreachable Type = 7 // refused: host unreachable
	Prohibit    Type = 8 // refused: administratively prohibited
	Throw       Type = 9 // looked up no further in this table
)

var typeNames = map[Type]string{
	Unicast: "unicast", Local: "local", Broadcast: "broadcast", Anycast: "anycast", Multicast: "multicast",
	Blackhole: "blackhole", Unreachable: "unreachable", Prohibit: "prohibit", Throw: "throw",
}

// String returns the name that ip-route(8) uses, or the number.
func (t Type) String() string { return nameOf(typeNames, t) }

// Scope says how far away a destination is (RT_SCOPE_*). The constants are the
// kernel's numbers, but for ScopeUniverse, whose 0 means "choose" here.
type Scope uint16

// The scopes.
const (
	ScopeUniverse Scope = 1 << 8 // anywhere, by a gateway (RT_SCOPE_UNIVERSE, 0)
	ScopeSite     Scope = 200    // within the site
	ScopeLink     Scope = 253    // on the link itself
	ScopeHost     Scope = 254    // on this host
	ScopeNowhere  Scope = 255    // does not exist
)

var scopeNames = map[Scope]string{
	ScopeUniverse: "global", ScopeSite: "site", ScopeLink: "link", ScopeHost: "host", ScopeNowhere: "nowhere",
}

// String returns the name that ip-route(8) uses, or the number.
func (s Scope) String() string { return nameOf(scopeNames, s) }

// Protocol says who made a route, a rule or a next hop (RTPROT_*); the kernel
// keeps it and, but for the first three, does nothing with it. Numbers above 4
// belong to routing daemons and the like (/etc/iproute2/rt_protos).
type Protocol uint8

// The protocols that linux/rtnetlink.h reserves, and some daemons' numbers.
const (
	ProtoRedirect Protocol = 1  // an ICMP redirect
	ProtoKernel   Protocol = 2  // the kernel, for an address
	ProtoBoot     Protocol = 3  // something at boot; what ip-route(8) writes
	ProtoStatic   Protocol = 4  // the administrator: what this package writes
	ProtoRA       Protocol = 9  // a router advertisement, which the kernel took
	ProtoZebra    Protocol = 11 // FRR or Quagga
	ProtoBird     Protocol = 12 // BIRD
	ProtoDHCP     Protocol = 16 // a DHCP client
	ProtoBGP      Protocol = 186
	ProtoOSPF     Protocol = 188
)

var protocolNames = map[Protocol]string{
	ProtoRedirect: "redirect", ProtoKernel: "kernel", ProtoBoot: "boot", ProtoStatic: "static", ProtoRA: "ra",
	ProtoZebra: "zebra", ProtoBird: "bird", ProtoDHCP: "dhcp", ProtoBGP: "bgp", ProtoOSPF: "ospf",
}

// String returns the protocol's name, or its number.
func (p Protocol) String() string { return nameOf(protocolNames, p) }

// Preference is the router preference of an IPv6 route (RFC 4191,
// ICMPV6_ROUTER_PREF_*).
type Preference uint8

// The preferences.
const (
	PrefMedium Preference = 0
	PrefHigh   Preference = 1
	PrefLow    Preference = 3
)

var prefNames = map[Preference]string{PrefMedium: "medium", PrefHigh: "high", PrefLow: "low"}

// String returns the name that ip-route(8) uses, or the number.
func (p Preference) String() string { return nameOf(prefNames, p) }

// Flags is what the kernel says about a route or a hop (RTNH_F_*, RTM_F_*).
type Flags uint32

// The flags.
const (
	FlagDead          Flags = 1 << 0  // the link is down
	FlagOffload       Flags = 1 << 3  // carried out by hardware
	FlagLinkDown      Flags = 1 << 4  // the link has no carrier
	FlagUnresolved    Flags = 1 << 5  // a multicast route that is not resolved
	FlagTrap          Flags = 1 << 6  // hardware sends the packets up
	FlagRouteOffload  Flags = 1 << 14 // the route as a whole is carried out by hardware (>= 5.6)
	FlagRouteTrap     Flags = 1 << 15 // hardware sends the route's packets up (>= 5.6)
	FlagOffloadFailed Flags = 1 << 29 // hardware could not take the route (>= 5.13)
)

var flagNames = []struct {
	flag Flags
	name string
}{
	{FlagDead, "dead"}, {FlagOffload, "offload"}, {FlagLinkDown, "linkdown"},
	{FlagUnresolved, "unresolved"}, {FlagTrap, "trap"}, {FlagRouteOffload, "rt_offload"}, {FlagRouteTrap, "rt_trap"},
	{FlagOffloadFailed, "rt_offload_failed"},
}

// known are the flags that have a constant here.
const known = FlagDead | FlagOffload | FlagLinkDown | FlagUnresolved | FlagTrap |
	FlagRouteOffload | FlagRouteTrap | FlagOffloadFailed

// String returns the names of the flags, separated by spaces.
func (f Flags) String() string {
	var names []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	if rest := f &^ known; rest != 0 {
		names = append(names, "0x"+strconv.FormatUint(uint64(rest), 16))
	}
	return strings.Join(names, " ")
}

// A Realm classes the packets of a route for tc-route(8) and the counters of
// rtacct(8). The zero Realm is none.
type Realm struct{ From, To uint16 }

// String returns the realms as ip-route(8) writes them: "from/to", or "to".
func (r Realm) String() string {
	to := strconv.Itoa(int(r.To))
	if r.From == 0 {
		return to
	}
	return strconv.Itoa(int(r.From)) + "/" + to
}

func nameOf[T ~uint8 | ~uint16 | ~uint32](names map[T]string, v T) string {
	if s, ok := names[v]; ok {
		return s
	}
	return strconv.FormatUint(uint64(v), 10)
}

// valueOf is the reverse of nameOf.
func valueOf[T ~uint8 | ~uint16 | ~uint32](names map[T]string, s string, bits int) (T, bool) {
	for v, name := range names {
		if name == s {
			return v, true
		}
	}
	n, err := strconv.ParseUint(s, 0, bits)
	return T(n), err == nil
}
