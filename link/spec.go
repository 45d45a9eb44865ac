package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Limits of what the kernel takes for any Ethernet-like link.
const (
	maxName    = 15    // IFNAMSIZ - 1
	maxAltName = 127   // ALTIFNAMSIZ - 1
	minMTU     = 68    // ETH_MIN_MTU, RFC 791
	maxMTU     = 65535 // ETH_MAX_MTU
	minMTUIPv6 = 1280  // RFC 8200: the kernel runs no IPv6 on a smaller link
)

// Spec says what a link should be. The zero value of every field means the
// kernel's default, but for DAD and the queues of a veth. It is a plain value:
// Create keeps nothing of it.
type Spec struct {
	// Name is the link's name, required: 1 to 15 bytes without '/', ':',
	// '%' and white space, and neither "." nor "..".
	Name string

	// NS is the namespace in which the link is made, at once and not by a
	// later move; nil means the one given to Create, and for a peer that of
	// the outer end. Where it is another one, Parent is still meant in the
	// namespace given to Create, and the packets of tunnels pass through
	// that: a macvlan of the host's link is made inside a box.
	NS *netns.NS

	// Index is the wished-for interface index; 0 lets the kernel choose. An
	// index that is taken in the namespace is os.ErrExist.
	Index int

	// MTU is the largest packet in bytes, 68 to 65535, and at least 1280
	// with an IPv6 address; 0 is the kind's default (1500).
	MTU int

	// MAC is the hardware address, six bytes, unicast and not all zero; nil
	// lets the kernel draw a random one.
	MAC net.HardwareAddr

	// Master is the index of the bridge, bond or VRF that the link becomes
	// a port of; 0 is none. It is meant in the link's own namespace.
	Master int

	// Port are the link's settings as the port of a bridge, BondPort those as
	// the port of a bond. They hold before the link comes up.
	Port     PortOptions
	BondPort BondPort

	// Parent is the index of the link below, for kinds that lie on one:
	// VLAN, Macvlan, IPVLAN and their like. It is meant in the namespace
	// given to Create. (IFLA_LINK)
	Parent int

	// Up brings the link up (IFF_UP).
	Up bool

	// Kind says what to make. Required, and nil in a peer.
	Kind Kind

	// Group is a number that links can be told apart by, for deleting them
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
	Addrs []netip.Prefix

	// DAD asks for duplicate address detection of the IPv6 addresses in
	// Addrs. Without it they carry IFA_F_NODAD and can be bound to and used
	// as soon as Create returns: a box's address is assigned by whoever
	// makes the box, so nobody else can have it, and detection would keep
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
func (s *Spec) common(o *options) {
	text(o, 3, "IFLA_IFNAME", &s.Name)
	s.mtu(o)
	hardware(o, 1, "IFLA_ADDRESS", &s.MAC)
	number(o, 27, "IFLA_GROUP", 4, &s.Group)
	numberp(o, 13, "IFLA_TXQLEN", 4, &s.TxQueueLen)
	number(o, 31, "IFLA_NUM_TX_QUEUES", 4, &s.TxQueues)
	number(o, 32, "IFLA_NUM_RX_QUEUES", 4, &s.RxQueues)
	number(o, 41, "IFLA_GSO_MAX_SIZE", 4, &s.GSOMaxSize)
	number(o, 40, "IFLA_GSO_MAX_SEGS", 4, &s.GSOMaxSegs)
	number(o, 58, "IFLA_GRO_MAX_SIZE", 4, &s.GROMaxSize)
	number(o, 63, "IFLA_GSO_IPV4_MAX_SIZE", 4, &s.GSOIPv4MaxSize)
	number(o, 64, "IFLA_GRO_IPV4_MAX_SIZE", 4, &s.GROIPv4MaxSize)
}

func (s *Spec) mtu(o *options) { number(o, 4, "IFLA_MTU", 4, &s.MTU) }

// later walks over those that the kernel accepts in the message that makes a link
// and then ignores.
func (s *Spec) later(o *options) {
	o.custom(20, "IFLA_IFALIAS", s.Alias != "" || o.zero,
		func() []byte { return []byte(s.Alias) },
		func(b []byte) { s.Alias = string(bytes.TrimRight(b, "\x00")) },
		func(want, have []byte) bool { return bytes.Equal(want, bytes.TrimRight(have, "\x00")) })
}

// checkCommon checks what the outer end and a peer have in common.
func (s *Spec) checkCommon() error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if s.Index < 0 || s.Index > 1<<31-1 {
		return refuse.Input("index %d is out of range (1 to 2147483647, or 0)", s.Index)
	}
	if s.Master < 0 || s.Master > 1<<31-1 {
		return refuse.Input("master %d is not an index (1 to 2147483647, or 0 for none)", s.Master)
	}
	if s.Master != 0 && s.Master == s.Index {
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
		for _, p := range s.Addrs {
			if p.Addr().Is6() {
				return refuse.Input("MTU %d is too small for the IPv6 address %s (at least %d)", s.MTU, p, minMTUIPv6)
			}
		}
	}
	return nil
}

// checkRest checks what a plain link does not have.
func (s *Spec) checkRest() error {
	if s.Parent < 0 || s.Parent > 1<<31-1 {
		return refuse.Input("parent %d is not an index (1 to 2147483647, or 0 for none)", s.Parent)
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
	for i, name := range s.AltNames {
		if err := checkLongName(name, maxAltName); err != nil {
			return &causeError{text: "alternative name: " + err.Error(), err: err}
		}
		if name == s.Name || slices.Contains(s.AltNames[:i], name) {
			return refuse.Input("the name %q appears twice", name)
		}
	}
	if s.Master == 0 && (s.Port != (PortOptions{}) || s.BondPort != (BondPort{})) {
		return refuse.Input("a link without a Master is no port: Port and BondPort must be zero")
	}
	if err := s.Port.check(); err != nil {
		return err
	}
	o := options{do: check}
	s.common(&o)
	s.BondPort.options(&o)
	s.IPv4.options(&o)
	s.IPv6.attributes(&o)
	s.IPv6.sysctls(&o)
	if o.err != nil {
		return o.err
	}
	return s.IPv6.check()
}

// checkName refuses what dev_valid_name in the kernel refuses, and '%', which
// the kernel would take for a pattern to fill in ("web%d").
func checkName(name string) error { return checkLongName(name, maxName) }

func checkLongName(name string, most int) error {
	switch {
	case name == "":
		return refuse.Input("the link's name is empty")
	case len(name) > most:
		return refuse.Input("the link's name %q has %d bytes; at most %d are possible", name, len(name), most)
	case name == "." || name == "..":
		return refuse.Input("the link's name must not be %q", name)
	case strings.ContainsAny(name, "/:%"):
		return refuse.Input("the link's name %q has a character that is not allowed ('/', ':' or '%%')", name)
	}
	for _, r := range name {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return refuse.Input("the link's name %q has white space or a control character", name)
		}
	}
	// The kernel judges single bytes as Latin-1, where 0xa0 is a space; some
	// letters end in it in UTF-8.
	if strings.IndexByte(name, 0xa0) >= 0 {
		return refuse.Input("the link's name %q has a byte that the kernel takes for white space (0xa0)", name)
	}
	return nil
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
