package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Limits of what the kernel takes for any Ethernet-like link.
const (
	maxAltNames = 65531 // bytes of all of them together, each with a header
	minMTU      = 68    // ETH_MIN_MTU, RFC 791
	maxMTU      = 65535 // ETH_MAX_MTU
	minMTUIPv6  = 1280  // RFC 8200: the kernel runs no IPv6 on a smaller link
)

// Spec says what a link should be. The zero value of every field means the
// kernel's default, but for MAC, DAD and the queues of a veth. It is a plain
// value: Create keeps nothing of it.
type Spec struct {
	// Name is the link's name, required: 1 to 15 bytes without '/', ':',
	// '%' and white space, and neither "." nor "..".
	Name string

	// NS is the namespace in which the link is made, at once and not by a
	// later move; nil means the one given to Create, and for a peer that of
	// the outer end. Where it is another one, Parent is still in the
	// namespace given to Create, and the packets of tunnels pass through
	// that: a macvlan of the host's link is made inside a box.
	NS *netns.NS

	// Index is the interface index; 0 lets the kernel choose. An
	// index that is taken in the namespace is os.ErrExist.
	Index int

	// MTU is the largest packet in bytes, 68 to 65535, and at least 1280
	// with an IPv6 address; 0 is the kind's default (1500), and for one end
	// of a pair what the other has: an end drops what is longer than its own
	// MTU without an error.
	MTU int

	// MAC is the hardware address, six bytes, unicast and not all zero. With
	// nil, Create draws a random local one and sets it, where the kernel
	// would draw one: on both ends of a pair, bridges, macvlans, dummies,
	// IFBs, TAP devices, VXLAN, Geneve and VRFs. An address that was set
	// stays. One that the kernel draws does not: systemd-udevd replaces it
	// a moment later (MACAddressPolicy= in systemd.link(5), which looks at
	// /sys/class/net/LINK/addr_assign_type), and so do the ports of a
	// bridge.
	//
	// Nil stands for another link's address where the kernel takes over
	// one: the parent's on a VLAN, an IPVLAN and a macvlan in passthru
	// mode, the first port's on a bond. Of [Other] the kernel decides.
	MAC net.HardwareAddr

	// Master is the bridge, bond or VRF that the link becomes a port of; the
	// zero Ref is none. It is in the link's own namespace.
	Master Ref

	// Port are the link's settings as the port of a bridge, BondPort those as
	// the port of a bond. They hold before the link comes up.
	Port     PortOptions
	BondPort BondPort

	// Parent is the link below, for kinds that lie on one: VLAN, Macvlan,
	// IPVLAN, their like and Other; every other kind has none. (A VXLAN's
	// is an option of it.) It is in the namespace given to Create.
	// (IFLA_LINK)
	Parent Ref

	// Up brings the link up (IFF_UP).
	Up bool

	// Kind says what to make. Required, and nil in a peer.
	Kind Kind

	// Group is a number that distinguishes links, for deleting them
	// together; 0 is the group of every link. (IFLA_GROUP)
	Group uint32

	// Alias is a text for people, up to 255 bytes (IFLA_IFALIAS), AltNames
	// are further names of up to 127 bytes that the link can be found by;
	// they are unique in the namespace, too; Linux 5.5.
	Alias    string
	AltNames []string

	// TxQueueLen is how many packets may wait to be sent; nil is the kind's
	// default. With 0 some queueing disciplines drop everything.
	TxQueueLen *int

	// TxQueues and RxQueues are numbers of queues, up to 4096. 0 is one for
	// either end of a veth, and the kernel's default for every other kind.
	// (Of a veth, Linux 5.15 and later would make one for each possible
	// processor and take all but the first out of use again: time that grows
	// with the number of processors, for what only `ethtool -L` can use. Who
	// wants that gives the number.) They cannot be changed.
	TxQueues, RxQueues int

	// How large the packets may become that the kernel handles as one when
	// sending (GSO) and receiving (GRO), in bytes, and of how many segments;
	// 0 is the default, 65536 and 65535. Above 65536 needs Linux 5.19; the
	// sizes of GRO, too; those for IPv4 alone Linux 6.3.
	GSOMaxSize, GSOMaxSegs, GROMaxSize int
	GSOIPv4MaxSize, GROIPv4MaxSize     int

	// IPv4 and IPv6 are settings of the protocols on this link.
	IPv4 IPv4Conf
	IPv6 IPv6Conf

	// Addrs are given to the link, each with the length of its subnet
	// ("10.88.0.2/16"); the host bits are the address. An IPv4 address gets
	// its subnet's broadcast address, unless the subnet is a /31 or /32.
	//
	// A link with an IPv6 address gets its link-local one with it, the one
	// that the kernel makes from the hardware address, and without
	// detection: a router asks for the neighbours of the packets that it
	// passes on from that address alone, and the kernel's own is of no use
	// for a second or two from the link's first carrier on. There is none
	// where Addrs has a link-local address, with DAD, with an AddrGenMode
	// other than AddrGenEUI64, and where Create does not know the MAC.
	//
	// An address of a link that is up can be dialled, and is found by its
	// neighbours, as soon as Create returns.
	Addrs []netip.Prefix

	// DAD asks for duplicate address detection of the IPv6 addresses in
	// Addrs. Without it they carry IFA_F_NODAD and can be bound to and used
	// as soon as Create returns: a box's address is assigned by the program
	// that makes the box, so no other host can have it, and detection would keep
	// it unusable ("tentative") for a second or more, and for ever on a
	// bridge without ports. With DAD the kernel checks first; see
	// Addr.Tentative and Addr.DADFailed. It does not concern IPv4, nor
	// link-local addresses that the kernel makes itself.
	DAD bool
}

// check refuses what the kernel would refuse without saying why, and what it
// would accept and ignore. ns is the namespace given to Create.
func (s *Spec) check(ns *netns.NS) error {
	if ns == nil {
		return refuse.Input("the namespace is nil")
	}
	if err := s.checkCommon(); err != nil {
		return err
	}
	outer := s
	if s.NS == nil {
		outer = new(*s)
		outer.NS = ns
	}
	return checkKind(s.Kind, outer)
}

// common walks over the attributes that a message to make or change a link has
// for either end of a pair; the kernel reads them in no particular order.
func (s *Spec) common() []field {
	return []field{
		{3, "IFLA_IFNAME", &s.Name, sureText},
		{4, "IFLA_MTU", &s.MTU, u32},
		{1, "IFLA_ADDRESS", &s.MAC, hardware{}},
		{27, "IFLA_GROUP", &s.Group, u32},
		{13, "IFLA_TXQLEN", &s.TxQueueLen, u32},
		{31, "IFLA_NUM_TX_QUEUES", &s.TxQueues, sureU32},
		{32, "IFLA_NUM_RX_QUEUES", &s.RxQueues, sureU32},
		{41, "IFLA_GSO_MAX_SIZE", &s.GSOMaxSize, u32},
		{40, "IFLA_GSO_MAX_SEGS", &s.GSOMaxSegs, u32},
		{58, "IFLA_GRO_MAX_SIZE", &s.GROMaxSize, u32},
		{63, "IFLA_GSO_IPV4_MAX_SIZE", &s.GSOIPv4MaxSize, u32},
		{64, "IFLA_GRO_IPV4_MAX_SIZE", &s.GROIPv4MaxSize, u32},
	}
}

// Forms of attributes that every kernel takes or refuses. Without others, a new link
// need not be compared with what was asked for.
var (
	sureText  = &special{codec: text{}, sure: true}
	sureAlias = &special{codec: alias{}, sure: true}
	sureU8    = &special{codec: u8, sure: true}
	sureU32   = &special{codec: u32, sure: true}
)

func (s *Spec) mtu() []field { return []field{{4, "IFLA_MTU", &s.MTU, u32}} }

// late are those that the kernel accepts in the message that makes a link and then
// ignores.
func (s *Spec) late() []field { return []field{{20, "IFLA_IFALIAS", &s.Alias, sureAlias}} }

// alias is a string that the kernel reports with a NUL and takes without.
type alias struct{ sameBytes }

func (alias) isSet(v any, zero bool) bool     { return zero || *v.(*string) != "" }
func (alias) append(b []byte, v any) []byte   { return append(b, *v.(*string)...) }
func (alias) parse(b []byte, v any, _ *store) { *v.(*string) = string(bytes.TrimRight(b, "\x00")) }

func (alias) equal(want, have []byte) bool {
	return bytes.Equal(want, bytes.TrimRight(have, "\x00"))
}

// checkCommon checks what the outer end and a peer have in common.
func (s *Spec) checkCommon() error {
	if err := linkname.Check(s.Name); err != nil {
		return err
	}
	if s.Name == "all" || s.Name == "default" {
		return refuse.Input("a link cannot be named %q: its settings would stand where those of all links do (net.ipv4.conf.%s)", s.Name, s.Name)
	}
	if s.Index < 0 || s.Index > 1<<31-1 {
		return refuse.Input("index %d is out of range (1 to 2147483647, or 0)", s.Index)
	}
	if err := s.Master.check("master"); err != nil {
		return err
	}
	if s.Master.Index != 0 && s.Master.Index == s.Index {
		return refuse.Input("the link is its own master (index %d)", s.Index)
	}
	if s.MTU != 0 && (s.MTU < minMTU || s.MTU > maxMTU) {
		return refuse.Input("MTU %d is out of range (%d to %d, or 0 for the default)", s.MTU, minMTU, maxMTU)
	}
	if err := checkMAC(s.MAC); err != nil {
		return err
	}
	if err := s.checkRest(); err != nil {
		return err
	}
	if err := checkAddrs(s.Addrs); err != nil {
		return err
	}
	if s.MTU != 0 && s.MTU < minMTUIPv6 {
		if i := slices.IndexFunc(s.Addrs, isIPv6); i >= 0 {
			return refuse.Input("MTU %d is too small for the IPv6 address %s (at least %d)", s.MTU, s.Addrs[i], minMTUIPv6)
		}
	}
	return nil
}

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

// checkRest checks what a plain link does not have.
func (s *Spec) checkRest() error {
	if err := s.Parent.check("parent"); err != nil {
		return err
	}
	if s.TxQueues < 0 || s.TxQueues > 4096 || s.RxQueues < 0 || s.RxQueues > 4096 {
		return refuse.Input("%d and %d queues are out of range (1 to 4096, or 0 for the default)", s.TxQueues, s.RxQueues)
	}
	if len(s.Alias) > 255 {
		return refuse.Input("the alias has %d bytes; at most 255 are possible", len(s.Alias))
	}
	if strings.ContainsRune(s.Alias, 0) {
		return refuse.Input("the alias %q has a NUL", s.Alias)
	}
	size := 0
	for i, name := range s.AltNames {
		// The kernel takes them in one attribute, whose length has 16 bits.
		if size += 4 + (len(name)+1+3)&^3; size > maxAltNames {
			return refuse.Input("%d alternative names are more than fit into one message", len(s.AltNames))
		}
		if err := linkname.CheckAlt(name); err != nil {
			return &causeError{text: "alternative name: " + err.Error(), err: err}
		}
		if name == s.Name || slices.Contains(s.AltNames[:i], name) {
			return refuse.Input("the name %q appears twice", name)
		}
	}
	if s.Master == (Ref{}) && (s.Port != (PortOptions{}) || s.BondPort != (BondPort{})) {
		return refuse.Input("a link without a Master is no port: Port and BondPort must be zero")
	}
	if err := s.Port.check(); err != nil {
		return err
	}
	if err := checkFields(s.common()); err != nil {
		return err
	}
	if s.BondPort == (BondPort{}) && s.IPv4 == (IPv4Conf{}) && s.IPv6 == (IPv6Conf{}) {
		return nil
	}
	for _, fields := range [][]field{s.BondPort.fields(), s.IPv4.fields(), s.IPv6.attributes(), s.IPv6.sysctls()} {
		if err := checkFields(fields); err != nil {
			return err
		}
	}
	return s.IPv6.check()
}

func checkMAC(mac net.HardwareAddr) error {
	if mac == nil {
		return nil
	}
	if len(mac) != 6 {
		return refuse.Input("the hardware address %q has %d bytes, not 6", mac, len(mac))
	}
	if mac[0]&1 != 0 {
		return refuse.Input("the hardware address %s is a multicast address", mac)
	}
	for _, b := range mac {
		if b != 0 {
			return nil
		}
	}
	return refuse.Input("the hardware address %s is all zero", mac)
}

// causeError says in words what a bare errno means here. err stays reachable
// for errors.Is and errors.As, and so does is, when there is one.
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
