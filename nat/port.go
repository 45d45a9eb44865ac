package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Proto is a transport protocol, with its number in the IP header (IANA). The
// zero Proto is none and refused.
type Proto uint8

// The protocols that have ports to publish. SCTP needs a kernel that tracks its
// connections (CONFIG_NF_CT_PROTO_SCTP); where it does not, the port is published
// and nothing arrives.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns "tcp", "udp", "sctp", or the number of another protocol.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// check refuses a protocol that has no ports to publish.
func (p Proto) check() error {
	switch p {
	case TCP, UDP, SCTP:
		return nil
	}
	return refuse.Input("the protocol is neither TCP, UDP nor SCTP (%d)", uint8(p))
}

// MaxOwner is the length of the longest owner in bytes.
const MaxOwner = 127

// Port is one published port, or a range of them: connections to Host arrive at
// Box. HostLast and BoxLast are for ranges only, the rest is required. Ports
// compare with ==.
type Port struct {
	Proto Proto

	// Host is the address and port that visitors use. The unspecified address
	// (0.0.0.0 or ::) stands for every address of the host of that family; a
	// port for both families is two Ports, one for a link's addresses is made by
	// [NAT.OnLink]. 127.0.0.1 is for the host itself. The address may be one that
	// the host does not have yet. Refused are ::1, multicast and link-local
	// addresses, and port 0 except by [NAT.PublishFree].
	Host netip.AddrPort

	// HostLast is the last port of a range that begins with Host's port. 0 is a
	// single port.
	HostLast uint16

	// Box is where the box listens: of Host's family, neither unspecified nor
	// loopback, multicast or link-local, port not 0.
	Box netip.AddrPort

	// BoxLast is the last port of the box's range, which is as long as the host's.
	// 0 stands for just that.
	//
	// A range that begins with the same port on both sides is one element of the
	// table, however long. nftables cannot shift a range, so that one with other
	// ports in the box is kept, and listed, as single ports.
	BoxLast uint16

	// Owner says whose port this is; it is kept in the kernel as the element's
	// comment. 1 to 127 bytes of UTF-8 without control characters and '"'.
	Owner string
}

// String returns the port as "tcp 0.0.0.0:8080 -> 10.88.0.2:80", and a range as
// "tcp 0.0.0.0:8000-8010 -> 10.88.0.2:9000-9010".
func (p Port) String() string {
	p = p.normal()
	return fmt.Sprintf("%v %s -> %s", p.Proto, endString(p.Host, p.HostLast), endString(p.Box, p.BoxLast))
}

func endString(ap netip.AddrPort, end uint16) string {
	if end == 0 {
		return ap.String()
	}
	return fmt.Sprintf("%v-%d", ap, end)
}

// Published is a port that is published, with what the kernel counted.
type Published struct {
	Port

	// Connections is the number of connections (for UDP, of flows) that came to
	// the port since it was published, over all ports of a range.
	Connections uint64
}

// normal is the form that ports are listed in: a range of one is a single port,
// and the end of the box's range is filled in.
func (p Port) normal() Port {
	if p.HostLast == 0 || p.HostLast == p.Host.Port() {
		if p.BoxLast == p.Box.Port() {
			p.BoxLast = 0
		}
		p.HostLast = 0
		return p
	}
	if end := int(p.Box.Port()) + p.count() - 1; p.BoxLast == 0 && p.HostLast > p.Host.Port() && end <= 65535 {
		p.BoxLast = uint16(end)
	}
	return p
}

// last is the last host port. It has a pointer, as others that are called for each of
// thousands of ports.
func (p *Port) last() uint16 {
	if p.HostLast == 0 {
		return p.Host.Port()
	}
	return p.HostLast
}

// count is the number of host ports.
func (p *Port) count() int { return int(p.last()) - int(p.Host.Port()) + 1 }

// isRange reports whether the port is kept as one element of rng.
func (p *Port) isRange() bool { return p.count() > 1 && p.Host.Port() == p.Box.Port() }

// check refuses what cannot be published.
func (p Port) check() error {
	if err := p.checkEnds(); err != nil {
		return err
	}
	return checkOwner(p.Owner)
}

// checkEnds checks all but the owner.
func (p *Port) checkEnds() error {
	if err := p.Proto.check(); err != nil {
		return err
	}
	if err := checkEnd("host", p.Host, true); err != nil {
		return err
	}
	if err := checkEnd("box", p.Box, false); err != nil {
		return err
	}
	if p.Host.Addr().Is4() != p.Box.Addr().Is4() {
		return refuse.Input("the host address %v and the box address %v are of different families", p.Host.Addr(), p.Box.Addr())
	}
	return p.checkRange()
}

// checkFree is checkPorts for ports of which some have no host port yet.
func checkFree(ports []Port) (Port, error) {
	var fixed []Port
	for _, p := range ports {
		if p.Host.Port() != 0 {
			fixed = append(fixed, p)
			continue
		}
		if p.HostLast != 0 || p.BoxLast != 0 {
			return p, refuse.Input("a range needs its first host port")
		}
		p.Host = netip.AddrPortFrom(p.Host.Addr(), 1)
		if err := p.check(); err != nil {
			return p, err
		}
	}
	return checkPorts(fixed)
}

// checkOnLink checks a port that is to be published on a link's addresses.
func checkOnLink(link string, p Port) error {
	switch {
	case link == "":
		return refuse.Input("the link name is empty")
	case len(link) > 15:
		return refuse.Input("the link name %q has %d bytes, 15 is the most", link, len(link))
	case p.Host.Addr().IsValid() && !p.Host.Addr().IsUnspecified():
		return refuse.Input("the host address is %v and not left open (0.0.0.0 or ::)", p.Host.Addr())
	}
	_, err := checkFree([]Port{p})
	return err
}

func (p *Port) checkRange() error {
	switch host, box := p.Host.Port(), p.Box.Port(); {
	case p.HostLast != 0 && p.HostLast < host:
		return refuse.Input("the host's range ends (%d) before it begins (%d)", p.HostLast, host)
	case p.BoxLast != 0 && p.BoxLast < box:
		return refuse.Input("the box's range ends (%d) before it begins (%d)", p.BoxLast, box)
	case p.BoxLast != 0 && int(p.BoxLast)-int(box)+1 != p.count():
		return refuse.Input("the ranges differ in length: %d ports on the host, %d in the box", p.count(), int(p.BoxLast)-int(box)+1)
	case int(box)+p.count()-1 > 65535:
		return refuse.Input("the box's range of %d ports from %d on ends after 65535", p.count(), box)
	}
	return nil
}

// checkEnd checks one end of a port; host says which.
func checkEnd(what string, ap netip.AddrPort, host bool) error {
	a := ap.Addr()
	bad := func(why string) error { return refuse.Input("the %s address %v %s", what, a, why) }
	switch {
	case !a.IsValid():
		return refuse.Input("the %s address is missing", what)
	case ap.Port() == 0 && host:
		return refuse.Input("the host port is 0: PublishFree chooses one")
	case ap.Port() == 0:
		return refuse.Input("the box port is 0")
	case a.Is4In6():
		return bad("is an IPv4 address in IPv6 form: use Unmap")
	case a.Zone() != "":
		return bad("has a zone")
	case a.IsMulticast():
		return bad("is multicast")
	case a.IsLinkLocalUnicast():
		return bad("is link-local")
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad("is the broadcast address")
	case host && a == netip.IPv6Loopback():
		return bad("cannot be published: the kernel does not translate connections to it")
	case !host && a.IsUnspecified():
		return bad("is unspecified")
	case !host && a.IsLoopback():
		return bad("is a loopback address: the box's own is not reachable from outside the box")
	}
	return nil
}

func checkOwner(owner string) error {
	switch {
	case owner == "":
		return refuse.Input("the owner is empty")
	case len(owner) > MaxOwner:
		return refuse.Input("the owner has %d bytes, %d is the most", len(owner), MaxOwner)
	case !utf8.ValidString(owner):
		return refuse.Input("the owner %q is not UTF-8", owner)
	case strings.ContainsFunc(owner, unicode.IsControl):
		return refuse.Input("the owner %q contains a control character", owner)
	case strings.ContainsRune(owner, '"'):
		return refuse.Input("the owner %q contains a quotation mark, which nft could not read back", owner)
	}
	return nil
}
