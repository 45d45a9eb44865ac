package nat

import (
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/portlock"
)

// Proto is a transport protocol, by its number in the IP header (IANA). The zero Proto is refused.
type Proto uint8

// The protocols of published ports. SCTP needs a kernel that tracks its connections
// (CONFIG_NF_CT_PROTO_SCTP). Without that, the port is published and no packet arrives.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// ICMP in a [Pinhole] stands for echo requests, as ping sends them; with an IPv6 address, for those
// of ICMPv6. It has no ports, so a [Port] refuses it.
const ICMP Proto = 1

// String returns "tcp", "udp", "sctp", "icmp", or the number of another protocol.
func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// MaxOwner is the maximum length of an owner in bytes.
const MaxOwner = 127

// Port is a published port or port range: connections to Host arrive at Box. HostLast and BoxLast
// are for ranges only; the other fields are required. Ports compare with ==.
//
// # Overlaps
//
// Published ports of one protocol do not overlap. A wildcard port conflicts with the same port on
// any address of its family, and a range with every port in it. If [Options.Alive] reports that the
// owner of a conflicting port is gone, the port is replaced in one transaction. The table should
// hold hundreds of ranges at most.
//
// # Who reaches it
//
// A port on 127.0.0.1 is for the host itself. Packets from and to 127.0.0.0/8 are dropped on every
// link but lo; that protects the host's own services, too. Packets that the host only forwards to
// another machine are not redirected.
//
// The kernel cannot translate connections to ::1, nor those of IPv6 visitors to a box with IPv4
// only. ::1 is refused as a host address. [NAT.Proxy] relays both in the process; the box then does
// not see the visitor's address. Without a proxy, a connection to ::1 at a port that is published
// on [::] is refused at once, and so is one from a link-local address. SCTP gets no answer there.
//
// # Reservation
//
// A published host port is reserved, so that no other program of the host can bind it. A port that
// a program has bound already is refused, and the error names the program. [Options.NoReserve]
// leaves both to the caller.
//
//   - A single port, or each port of a range of up to 256, is bound by a socket that receives
//     nothing. Unpublish, [NAT.Close] and the end of the process release it. The next program's
//     Sync binds it again.
//   - Of a longer range, the ports in net.ipv4.ip_local_port_range are added to
//     net.ipv4.ip_local_reserved_ports. At least half of that range stays out of it, because the
//     setting holds for all protocols and addresses, and programs of the host need ports to connect
//     from. The set "listed" of the table records which ports were added.
//   - A NAT holds at most 4096 sockets, and at most a quarter of the descriptors that the process
//     may have. Beyond 128, it holds at most a quarter of the number of ports in
//     net.ipv4.ip_local_port_range.
//
// Beyond these limits, Publish only checks once that no socket uses the port. A program that binds
// it later gets no visitors; connections that it begins from the port work.
type Port struct {
	Proto Proto

	// Host is the address and port that visitors use. The wildcard address 0.0.0.0 or :: stands for
	// all addresses of the host of that family; a port for both families is two Ports.
	// [NAT.ExpandLink] makes the ports for all addresses of a link. 127.0.0.1 is for the host
	// itself. The host need not have the address yet. ::1, multicast and link-local addresses are
	// refused, and port 0 except by [NAT.PublishFree].
	//
	// An address belongs to the host and not to a link (RFC 1122, 3.3.4.2). So a port on the
	// address of one link is reached over every link that packets to the address come in by, e.g.
	// another uplink or a network's bridge. A firewall of the host can close it on a link.
	Host netip.AddrPort

	// HostLast is the last port of a range that begins with Host's port. 0 means a single port.
	HostLast uint16

	// Box is the address and port that the box listens on. The address has Host's family, and is
	// not unspecified, loopback, multicast or link-local. The port is not 0.
	Box netip.AddrPort

	// BoxLast is the last port in the box. 0 means that the box's range has the length of the
	// host's.
	//
	// A range with the same port numbers on both sides is one element of the table. nftables cannot
	// shift a range, so one with other numbers in the box is stored and listed as single ports.
	BoxLast uint16

	// Owner names whose port this is. The kernel stores it as the element's comment. It has 1 to
	// [MaxOwner] bytes of UTF-8, without control characters and '"'.
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

// Published is a published port with its counter.
type Published struct {
	Port

	// Connections is the number of connections (for UDP, of flows) to the port since it was
	// published. For a range it is the sum over its ports.
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

// claim is what a published port takes of the host.
func (p Port) claim() portlock.Range {
	return portlock.Range{Proto: uint8(p.Proto), Addr: p.Host.Addr(), First: p.Host.Port(), Last: p.last()}
}
