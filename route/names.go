package route

import "strconv"

// Table is the number of a routing table (linux/rtnetlink.h: RT_TABLE_*), any
// 32-bit number.
type Table uint32

// The tables that every namespace has.
const (
	TableDefault Table = 253 // empty; looked at last
	TableMain    Table = 254 // where routes go unless told otherwise
	TableLocal   Table = 255 // the kernel's own: local and broadcast addresses
)

// String returns the table's name, or its number.
func (t Table) String() string {
	switch t {
	case TableDefault:
		return "default"
	case TableMain:
		return "main"
	case TableLocal:
		return "local"
	}
	return strconv.FormatUint(uint64(t), 10)
}

// Type says what becomes of a packet that a route matches (RTN_*).
type Type uint8

// The types of routes.
const (
	Unicast     Type = 1 // sent on to the gateway or the link
	Local       Type = 2 // delivered to this host; the kernel makes these
	Broadcast   Type = 3 // delivered here and sent as a broadcast; the kernel's
	Anycast     Type = 4 // delivered here, IPv6; the kernel's
	Multicast   Type = 5 // handled as multicast; the kernel's
	Blackhole   Type = 6 // dropped in silence
	Unreachable Type = 7 // refused: host unreachable
	Prohibit    Type = 8 // refused: administratively prohibited
	Throw       Type = 9 // looked up no further in this table
)

var typeNames = [...]string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw"}

// String returns the name that ip-route(8) uses.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return strconv.Itoa(int(t))
}

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

// String returns the name that ip-route(8) uses.
func (s Scope) String() string {
	switch s {
	case ScopeUniverse:
		return "global"
	case ScopeSite:
		return "site"
	case ScopeLink:
		return "link"
	case ScopeHost:
		return "host"
	case ScopeNowhere:
		return "nowhere"
	}
	return strconv.Itoa(int(s))
}

// Protocol says who made a route (RTPROT_*); the kernel keeps it and does
// nothing with it. Numbers above 4 belong to routing daemons
// (/etc/iproute2/rt_protos).
type Protocol uint8

// The protocols that linux/rtnetlink.h reserves, and some daemons' numbers.
const (
	ProtoRedirect Protocol = 1  // an ICMP redirect
	ProtoKernel   Protocol = 2  // the kernel, for an address
	ProtoBoot     Protocol = 3  // something at boot; what ip-route(8) writes
	ProtoStatic   Protocol = 4  // the administrator: what this package writes
	ProtoRA       Protocol = 9  // a router advertisement
	ProtoDHCP     Protocol = 16 // a DHCP client
)

// String returns the protocol's name, or its number.
func (p Protocol) String() string {
	switch p {
	case ProtoRedirect:
		return "redirect"
	case ProtoKernel:
		return "kernel"
	case ProtoBoot:
		return "boot"
	case ProtoStatic:
		return "static"
	case ProtoRA:
		return "ra"
	case ProtoDHCP:
		return "dhcp"
	}
	return strconv.Itoa(int(p))
}
