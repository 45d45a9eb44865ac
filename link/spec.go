package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/netns"
)

// Limits of what the kernel takes for any Ethernet-like link.
const (
	maxAltNames = 65531 // bytes of all of them together, each with a header
	minMTU      = 68    // ETH_MIN_MTU, RFC 791
	maxMTU      = 65535 // ETH_MAX_MTU
	minMTUIPv6  = 1280  // RFC 8200: the kernel runs no IPv6 on a smaller link
)

// Spec says what a link should be. The zero value of a field is the kernel's
// default; MAC, DAD and the queues of a veth have defaults of their own. Create
// keeps no reference to a Spec.
type Spec struct {
	// Name is the link's name (IFLA_IFNAME). It is required: 1 to 15 bytes
	// without '/', ':', '%' and white space, and not ".", "..", "all" or
	// "default".
	Name string

	// NS is the namespace in which the link is made. Nil is the namespace given
	// to Create, and for a peer that of the outer end. The link is made there at
	// once and not moved there later.
	//
	// Parent is always in the namespace given to Create: a macvlan of a host's
	// link is made inside a box that way. The packets of a tunnel also pass
	// through the namespace given to Create.
	NS *netns.NS

	// Index is the interface index, 1 to 2147483647; 0 lets the kernel choose.
	// An index that is taken in the namespace is os.ErrExist.
	Index int

	// MTU is the size of the largest packet in bytes (IFLA_MTU), 68 to 65535,
	// and at least 1280 with an IPv6 address. 0 is the kind's default, 1500 for
	// most. For one end of a pair, 0 is the MTU of the other end: an end drops
	// what is longer than its own MTU without an error.
	MTU int

	// MAC is the hardware address (IFLA_ADDRESS): six bytes, unicast, not all
	// zero.
	//
	// With nil, Create draws a random local address and sets it on the kinds for
	// which the kernel would draw one: both ends of a veth pair, bridges,
	// macvlans, dummies, IFBs, TAP devices, VXLAN, Geneve, VRFs, and a netkit
	// pair in mode L2. A link keeps an address that was set. One that the kernel
	// draws changes: systemd-udevd replaces it a moment later (MACAddressPolicy=
	// in systemd.link(5) goes by /sys/class/net/LINK/addr_assign_type), and a
	// bridge takes that of a port.
	//
	// Two kinds begin with an address that the kernel draws: a TAP device, until
	// Create sets another one right after, and a bond, until it has a port. If
	// systemd-udevd looks before that, it replaces the address. A .link file with
	// MACAddressPolicy=none for their names prevents it.
	//
	// Nil is another link's address where the kernel takes that: the parent's on
	// a VLAN, an IPVLAN and a macvlan in passthru mode, the first port's on a
	// bond. For Other the kernel decides.
	MAC net.HardwareAddr

	// Master is the bridge, bond or VRF that the link becomes a port of
	// (IFLA_MASTER). It is in the link's own namespace. The zero Ref is none.
	Master Ref

	// Port has the link's settings as the port of a bridge, BondPort those as
	// the port of a bond. They are set before the link comes up. For a new
	// link without a Master both must be zero.
	Port     PortOptions
	BondPort BondPort

	// Parent is the link that this one lies on (IFLA_LINK). It is in the
	// namespace given to Create. VLAN, Macvlan, Macvtap, IPVLAN and IPVTAP need
	// one, Other may have one, every other kind must not. (The link below a
	// VXLAN is VXLAN.Underlay.)
	Parent Ref

	// Up brings the link up (IFF_UP). False leaves a new link down, and an
	// existing one in Link.Update and Ensure unchanged.
	Up bool

	// Kind is what the link is, with its options. It is required, and nil in a
	// peer.
	Kind Kind

	// Group is a number that several links may share (IFLA_GROUP); Filter
	// selects by it. 0 is the group that links are in by default.
	Group uint32

	// Alias is a text for people, up to 255 bytes (IFLA_IFALIAS). AltNames are
	// further names by which the link is found, up to 127 bytes each, unique in
	// the namespace (IFLA_ALT_IFNAME, Linux 5.5).
	Alias    string
	AltNames []string

	// TxQueueLen is how many packets may wait to be sent (IFLA_TXQLEN). Nil is
	// the kind's default. With 0, some queueing disciplines drop every packet.
	TxQueueLen *int

	// TxQueues and RxQueues are the numbers of queues, up to 4096
	// (IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES). They cannot be changed later. 0
	// is one queue for either end of a veth, and the kernel's default for every
	// other kind.
	//
	// For a veth without these numbers, Linux 5.15 and later make one queue for
	// each possible processor and then leave one in use. That takes time in
	// proportion to the processors and serves `ethtool -L` alone, so Create asks
	// for one.
	TxQueues, RxQueues int

	// GSOMaxSize and GROMaxSize limit the packets that the kernel handles as one
	// when it sends and receives, in bytes; GSOMaxSegs limits their segments.
	// The fields for IPv4 hold for IPv4 alone. 0 is the default: 65536 bytes,
	// 65535 segments. GROMaxSize and sizes above 65536 need Linux 5.19, the
	// fields for IPv4 Linux 6.3. (IFLA_GSO_MAX_SIZE and the like)
	GSOMaxSize, GSOMaxSegs, GROMaxSize int
	GSOIPv4MaxSize, GROIPv4MaxSize     int

	// IPv4 and IPv6 are the settings of the two protocols on this link.
	IPv4 IPv4Conf
	IPv6 IPv6Conf

	// Addrs are the link's addresses, each with the length of its subnet
	// ("10.88.0.2/16"); the host bits are the address. An IPv4 address gets its
	// subnet's broadcast address, unless the subnet is a /31 or /32. On a link
	// that is up, an address can be dialled and answers its neighbours as soon
	// as Create returns.
	//
	// With an IPv6 address the link also gets its link-local address, the one
	// that the kernel derives from the hardware address (EUI-64), without
	// duplicate address detection. A router sends the neighbour solicitations
	// for forwarded packets from that address, and the kernel's own is tentative
	// for a second or two after the first carrier. Create makes none if Addrs has
	// a link-local address, if DAD is set, if IPv6.AddrGenMode is not
	// AddrGenEUI64, or if it does not know the MAC.
	Addrs []netip.Prefix

	// DAD asks for duplicate address detection of the IPv6 addresses in Addrs.
	// An address is then tentative until the kernel has found no other host with
	// it; see Addr.Tentative, Addr.DADFailed and Link.WaitAddr.
	//
	// Without DAD the addresses carry IFA_F_NODAD and can be bound to as soon as
	// Create returns. The program that makes a box also assigns the box's
	// address, so no other host has it, and detection would keep it unusable for
	// a second or more, and on a bridge without ports for ever.
	//
	// DAD does not concern IPv4, nor the link-local addresses that the kernel
	// makes itself.
	DAD bool
}

// alias is a string that is sent without a NUL and reported with one.
type alias struct{ sameBytes }

func (alias) isSet(v any, zero bool) bool     { return zero || *v.(*string) != "" }
func (alias) append(b []byte, v any) []byte   { return append(b, *v.(*string)...) }
func (alias) parse(b []byte, v any, _ *store) { *v.(*string) = string(bytes.TrimRight(b, "\x00")) }

func (alias) equal(want, have []byte) bool {
	return bytes.Equal(want, bytes.TrimRight(have, "\x00"))
}

// causeError says in words what a bare errno means here. errors.Is and errors.As
// find err, and is if there is one.
type causeError struct {
	text string
	is   error // os.ErrExist and the like; may be nil
	err  error
}

func (e *causeError) Error() string { return e.text }

func (e *causeError) Unwrap() []error {
	if e.is == nil {
		return []error{e.err}
	}
	return []error{e.is, e.err}
}

// subject names a link in an error.
func subject(name string) string {
	if name == "" {
		return "link without a name"
	}
	return "link " + name
}

func subjectIndex(index int) string { return fmt.Sprintf("link with index %d", index) }
