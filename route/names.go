package route

import (
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Type is what happens to a packet that a route matches (RTN_*).
type Type uint8

// The types of routes.
const (
	TypeUnicast     Type = 1 // sent on to the gateway or the link
	TypeLocal       Type = 2 // delivered to this host
	TypeBroadcast   Type = 3 // delivered here and sent as a broadcast
	TypeAnycast     Type = 4 // delivered here, IPv6
	TypeMulticast   Type = 5 // handled as multicast
	TypeBlackhole   Type = 6 // dropped without an error
	TypeUnreachable Type = 7 // refused: host unreachable
	TypeProhibit    Type = 8 // refused: administratively prohibited
	TypeThrow       Type = 9 // the lookup goes on at the next rule
)

var typeNames = map[Type]string{
	TypeUnicast: "unicast", TypeLocal: "local", TypeBroadcast: "broadcast", TypeAnycast: "anycast", TypeMulticast: "multicast",
	TypeBlackhole: "blackhole", TypeUnreachable: "unreachable", TypeProhibit: "prohibit", TypeThrow: "throw",
}

// String returns the name that ip-route(8) uses, or the number.
func (t Type) String() string { return enum.Name(typeNames, t) }

// MarshalText returns what String does.
func (t Type) MarshalText() ([]byte, error) { return enum.Marshal(typeNames, t) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (t *Type) UnmarshalText(text []byte) error { return enum.Unmarshal(typeNames, t, text) }

// Scope is how far away a destination is (RT_SCOPE_*). The constants are the kernel's
// numbers, except ScopeUniverse, as 0 lets the library choose.
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
func (s Scope) String() string { return enum.Name(scopeNames, s) }

// MarshalText returns what String does.
func (s Scope) MarshalText() ([]byte, error) { return enum.Marshal(scopeNames, s) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (s *Scope) UnmarshalText(text []byte) error { return enum.Unmarshal(scopeNames, s, text) }

// Protocol says who made a route, rule or next hop (RTPROT_*). The kernel stores it and,
// except for the first three, does not use it. Numbers above 4 belong to routing daemons
// and other programs (/etc/iproute2/rt_protos). The constants are the kernel's 8-bit
// numbers, except ProtoUnspec, as 0 means ProtoStatic here.
type Protocol uint16

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

	// ProtoUnspec is none (RTPROT_UNSPEC, 0): what ip-rule(8) and ip-nexthop(8)
	// write by default.
	ProtoUnspec Protocol = 1 << 8
)

var protocolNames = map[Protocol]string{
	ProtoRedirect: "redirect", ProtoKernel: "kernel", ProtoBoot: "boot", ProtoStatic: "static", ProtoRA: "ra",
	ProtoZebra: "zebra", ProtoBird: "bird", ProtoDHCP: "dhcp", ProtoBGP: "bgp", ProtoOSPF: "ospf",
	ProtoUnspec: "unspec",
}

func (p Protocol) check() error {
	if p > ProtoUnspec {
		return refuse.Input("protocol %d is out of range", p)
	}
	return nil
}

// String returns the protocol's name, or its number.
func (p Protocol) String() string { return enum.Name(protocolNames, p) }

// MarshalText returns what String does.
func (p Protocol) MarshalText() ([]byte, error) { return enum.Marshal(protocolNames, p) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (p *Protocol) UnmarshalText(text []byte) error { return enum.Unmarshal(protocolNames, p, text) }

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
func (p Preference) String() string { return enum.Name(prefNames, p) }

// MarshalText returns what String does.
func (p Preference) MarshalText() ([]byte, error) { return enum.Marshal(prefNames, p) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (p *Preference) UnmarshalText(text []byte) error { return enum.Unmarshal(prefNames, p, text) }

// Flags are what the kernel reports about a route or a hop (RTNH_F_*, RTM_F_*).
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

// A Realm classifies the packets of a route for tc-route(8) and the counters of rtacct(8).
// The zero Realm is none.
type Realm struct{ From, To uint16 }

// String returns the realms as ip-route(8) writes them: "from/to", or "to".
func (r Realm) String() string {
	to := strconv.Itoa(int(r.To))
	if r.From == 0 {
		return to
	}
	return strconv.Itoa(int(r.From)) + "/" + to
}
