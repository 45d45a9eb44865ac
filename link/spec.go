package link

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Limits of what the kernel takes for any Ethernet-like link.
const (
	maxName    = 15    // IFNAMSIZ - 1
	minMTU     = 68    // ETH_MIN_MTU, RFC 791
	maxMTU     = 65535 // ETH_MAX_MTU
	minMTUIPv6 = 1280  // RFC 8200: the kernel runs no IPv6 on a smaller link
)

// Spec says what a link should be. The zero value of every field means the
// kernel's default. It is a plain value: Create keeps nothing of it.
type Spec struct {
	// Name is the link's name, required: 1 to 15 bytes without '/', ':',
	// '%' and white space, and neither "." nor "..".
	Name string

	// NS is the namespace of a veth's peer; nil means that of the outer
	// end. In the outer spec it may be left nil, and must otherwise be the
	// namespace that is given to Create.
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

	// Master is the index of the bridge that the link becomes a port of; 0
	// is none. It is meant in the link's own namespace.
	Master int

	// Up brings the link up (IFF_UP).
	Up bool

	// Kind says what to make: Bridge or Veth. Required, and nil in a peer.
	Kind Kind

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
	if s.NS != nil && !s.NS.Equal(ns) {
		return refuse.Input("Spec.NS names another namespace (%s) than the call; only a peer has one of its own", s.NS)
	}
	if err := s.checkCommon(); err != nil {
		return err
	}
	switch s.Kind.(type) {
	case Bridge, Veth:
	case nil:
		return refuse.Input("no Kind is given")
	default: // a pointer to a kind, or a struct that embeds one
		return refuse.Input("Kind is a %T: give a plain value such as link.Bridge{}", s.Kind)
	}
	outer := *s
	outer.NS = ns
	return s.Kind.check(&outer)
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

// checkName refuses what dev_valid_name in the kernel refuses, and '%', which
// the kernel would take for a pattern to fill in ("web%d").
func checkName(name string) error {
	switch {
	case name == "":
		return refuse.Input("the link's name is empty")
	case len(name) > maxName:
		return refuse.Input("the link's name %q has %d bytes; at most %d are possible", name, len(name), maxName)
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
