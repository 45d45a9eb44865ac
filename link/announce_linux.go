package link

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Announce informs the link's neighbours that the addresses are at its hardware
// address. It is for an address that has moved here from another box: neighbours
// replace the hardware address that they have cached. Without addresses it
// announces all usable addresses of the link.
//
// IPv4 goes out as a gratuitous ARP request (RFC 5227, section 3), IPv6 as an
// unsolicited neighbour advertisement with the override flag (RFC 4861, section
// 7.2.6), each once. A neighbour that has no entry for an address makes none.
//
// Announce first waits until packets pass both ways, as [Link.WaitReachable] does,
// so none of them is lost. The link must be up and have an Ethernet address.
// Announce needs CAP_NET_RAW over the namespace.
func (l Link) Announce(ctx context.Context, addrs ...netip.Addr) error {
	err := l.bound()
	if err == nil {
		err = l.announce(ctx, addrs)
	}
	return fail.New("link.Announce", l.ns, l.subject(), err)
}

func (l Link) announce(ctx context.Context, addrs []netip.Addr) error {
	for _, a := range addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return refuse.Input("%v is not an address to announce; no zone, IPv4 not as IPv6", a)
		}
	}
	n, err := l.announcement(ctx)
	switch {
	case err != nil:
		return err
	case len(n.link.MAC) != 6 || n.link.Name == "lo":
		return refuse.Input("the link has no Ethernet address")
	case !n.link.Up:
		return &causeError{text: "the link is down and so has no carrier", err: unix.ENETDOWN}
	}
	if err := l.waitReachable(ctx); err != nil {
		return err
	}
	if n.have, err = l.addrs(ctx); err != nil {
		return err
	}
	if len(addrs) == 0 {
		for _, a := range n.have {
			if !a.Tentative() && !a.DADFailed() && a.Scope != AddrScopeHost {
				addrs = append(addrs, a.Prefix.Addr())
			}
		}
	}
	left, err := n.ask(ctx, addrs)
	if err == nil {
		left, err = n.advertise(ctx, left)
	}
	if err != nil || len(left) == 0 {
		return err
	}
	return n.sendPackets(ctx, left)
}

// gratuitousARP returns an ARP request of a host for its own address, RFC 826.
func gratuitousARP(mac net.HardwareAddr, a netip.Addr) []byte {
	ip := a.As4()
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, sizes of their addresses, request
	b = append(append(b, mac...), ip[:]...)
	b = append(b, make([]byte, 6)...)
	return append(b, ip[:]...)
}

// neighbourAdvertisement returns an IPv6 packet to all nodes, RFC 4861, section
// 4.4.
func neighbourAdvertisement(mac net.HardwareAddr, a netip.Addr) []byte {
	const size = 32 // of the ICMPv6 message
	ip := a.As16()
	all := netip.IPv6LinkLocalAllNodes().As16()
	b := []byte{0x60, 0, 0, 0, 0, size, unix.IPPROTO_ICMPV6, hops}
	b = append(append(b, ip[:]...), all[:]...)
	b = append(b, advertisement(mac, a)...)
	// The checksum covers both addresses, the length and the protocol as well.
	sum := checksum(b[8:]) + size + unix.IPPROTO_ICMPV6
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[42:], ^uint16(sum))
	return b
}

// advertisement returns the ICMPv6 message of it, without the checksum.
func advertisement(mac net.HardwareAddr, a netip.Addr) []byte {
	ip := a.As16()
	b := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, override
	b = append(b, ip[:]...)
	return append(append(b, 2, 1), mac...) // option: target link-layer address, in units of 8 bytes
}

// hops is the hop limit that shows that no router passed a packet on.
const hops = 255

// checksum adds up 16-bit words, RFC 1071; b has an even length.
func checksum(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}
