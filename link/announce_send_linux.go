package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// announcement sends what Announce announces. A packet socket can send all of it, but the kernel waits
// for a grace period when one is closed (packet_release), 10 to 30 ms, and so does a program that
// waits for the end of the process. So what the kernel itself can send goes out by ask and advertise, and the
// rest by sendPackets.
type announcement struct {
	conn  *nl.Conn
	link  Link
	noARP bool
	have  []Addr // of the link
}

// announcement reads the link.
func (l Link) announcement(ctx context.Context) (n announcement, err error) {
	if n.conn, err = route(l.ns); err != nil {
		return n, err
	}
	err = n.conn.Call(ctx, getLink("", l.Index), func(m nl.Message) error {
		err := decodeLink(&n.link, m.Body)
		n.noARP = err == nil && binary.NativeEndian.Uint32(m.Body[8:])&unix.IFF_NOARP != 0 // struct ifinfomsg
		return err
	})
	n.link.ns = l.ns
	return n, err
}

// ask announces IPv4 addresses of the link, and returns the addresses that it has not announced. It has
// the kernel resolve each by a new neighbour entry (NTF_USE), which is an ARP request for an address
// that the kernel sends from that same address: a gratuitous one. The entries go at once, before the
// kernel asks again.
func (n announcement) ask(ctx context.Context, addrs []netip.Addr) (left []netip.Addr, err error) {
	var own, added []nl.Request
	for _, a := range addrs {
		if n.asksFrom(a) {
			own = append(own, encodeNeighbour(n.link.Index, &Neighbour{Addr: a, Flags: NeighbourUse}, editAdd))
		}
	}
	if len(own) == 0 {
		return addrs, nil
	}
	failed := make([]bool, len(own)) // the table is full, for one, or another program has such an entry
	err = n.conn.ExecAll(ctx, own, func(i int, _ *nl.Error) bool { failed[i] = true; return true }, nil)
	if err != nil {
		return nil, err
	}
	i := 0
	for _, a := range addrs {
		switch {
		case !n.asksFrom(a):
			left = append(left, a)
			continue
		case failed[i]:
			left = append(left, a)
		default:
			added = append(added, encodeNeighbour(n.link.Index, &Neighbour{Addr: a}, editDelete))
		}
		i++
	}
	return left, n.conn.ExecAll(context.WithoutCancel(ctx), added, nl.IgnoreNotExist, nil)
}

// asksFrom reports whether the kernel sends an ARP request for an IPv4 address by the link from that
// address: whether it is the first address of the link in whose subnet it is (inet_select_addr).
func (n announcement) asksFrom(a netip.Addr) bool {
	if !a.Is4() || n.noARP {
		return false
	}
	at := slices.IndexFunc(n.have, func(h Addr) bool {
		subnet := h.Prefix
		if h.Peer.IsValid() {
			subnet = netip.PrefixFrom(h.Peer, h.Prefix.Bits())
		}
		return h.Flags&AddrSecondary == 0 && h.Scope <= AddrScopeLink && subnet.Masked().Contains(a)
	})
	return at >= 0 && n.have[at].Prefix.Addr() == a
}

// advertise announces IPv6 addresses by a socket for ICMPv6, and returns the addresses that it has not
// announced: those that are not the link's, for one, or where a firewall of the namespace does not let
// them pass.
func (n announcement) advertise(ctx context.Context, addrs []netip.Addr) (left []netip.Addr, err error) {
	if !slices.ContainsFunc(addrs, netip.Addr.Is6) {
		return addrs, nil
	}
	fd := -1
	oerr := nsconn.Open(ctx, n.link.ns, func() {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	})
	if oerr != nil {
		return nil, cause(oerr)
	}
	if err != nil {
		return addrs, nil // sendPackets says why
	}
	defer unix.Close(fd)
	receivesNothing := unix.ICMPv6Filter{Data: [8]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}}
	err = errors.Join(
		unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &receivesNothing),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
	)
	if err != nil {
		return addrs, nil
	}
	to := &unix.SockaddrInet6{Addr: netip.IPv6LinkLocalAllNodes().As16(), ZoneId: uint32(n.link.Index)}
	for _, a := range addrs {
		from := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16(), Ifindex: uint32(n.link.Index)})
		if a.Is4() || unix.Sendmsg(fd, advertisement(n.link.MAC, a), from, to, 0) != nil {
			left = append(left, a)
		}
	}
	return left, nil
}

// sendPackets announces addresses by a packet socket, which sends whatever it is given.
func (n announcement) sendPackets(ctx context.Context, addrs []netip.Addr) error {
	fd, err := -1, error(nil)
	oerr := nsconn.Open(ctx, n.link.ns, func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing
	})
	if oerr != nil {
		return cause(oerr)
	}
	if err == unix.EPERM {
		return privilege.Explain(os.NewSyscallError("socket", err), privilege.NetRaw.MissingIn(n.link.ns))
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	// The kernel waits for an RCU grace period there (packet_release), which nobody else needs to.
	defer func() { go unix.Close(fd) }()
	var errs []error
	for _, a := range addrs {
		to := &unix.SockaddrLinklayer{Ifindex: n.link.Index, Halen: 6}
		var packet []byte
		if a.Is4() {
			to.Protocol = htons(unix.ETH_P_ARP)
			copy(to.Addr[:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			packet = gratuitousARP(n.link.MAC, a)
		} else {
			to.Protocol = htons(unix.ETH_P_IPV6)
			copy(to.Addr[:], []byte{0x33, 0x33, 0, 0, 0, 1})
			packet = neighbourAdvertisement(n.link.MAC, a)
		}
		if err := unix.Sendto(fd, packet, 0, to); err != nil {
			errs = append(errs, fmt.Errorf("announcing %s: %w", a, os.NewSyscallError("sendto", err)))
		}
	}
	return errors.Join(errs...)
}
