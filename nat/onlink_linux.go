package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// OnLink returns the port once for each address that a link of the host has now, of
// the port's family and without link-local ones, for [NAT.Publish]. The port's own
// host address is unspecified (0.0.0.0 or ::). Addresses that the link gets or loses
// later change nothing of what is published; a program that follows them publishes
// with [NAT.Sync].
//
// A link that does not exist, or has no such address, is os.ErrNotExist.
func (n *NAT) OnLink(ctx context.Context, link string, port Port) ([]Port, error) {
	subject := fmt.Sprintf("%v on link %s", port, link)
	err := checkOnLink(link, port)
	if err != nil {
		return nil, n.fail("nat.OnLink", subject, err)
	}
	addrs, err := n.linkAddrs(ctx, link, port.Host.Addr().Is6())
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("the link has no address that could be used: %w", os.ErrNotExist)
	}
	if err != nil {
		return nil, n.fail("nat.OnLink", subject, err)
	}
	ports := make([]Port, len(addrs))
	for i, a := range addrs {
		ports[i] = port
		ports[i].Host = netip.AddrPortFrom(a, port.Host.Port())
	}
	return ports, nil
}

// linkAddrs reads the addresses of a link.
func (n *NAT) linkAddrs(ctx context.Context, link string, v6 bool) (addrs []netip.Addr, err error) {
	index, err := n.linkIndex(ctx, link)
	if err != nil {
		return nil, err
	}
	c, err := n.ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	body := make([]byte, unix.SizeofIfAddrmsg)
	if body[0] = unix.AF_INET; v6 {
		body[0] = unix.AF_INET6
	}
	err = c.Dump(ctx, nl.Request{Type: unix.RTM_GETADDR, Body: body}, func() { addrs = nil }, func(m nl.Message) error {
		a, at, err := decodeLinkAddr(m.Body)
		if err == nil && at == index && a.IsValid() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && a != netip.IPv6Loopback() {
			addrs = append(addrs, a)
		}
		return err
	})
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), err
}

// linkIndex is the index of a link.
func (n *NAT) linkIndex(ctx context.Context, link string) (index int, err error) {
	c, err := n.ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, err
	}
	body := nl.AppendString(make([]byte, unix.SizeofIfInfomsg, 64), unix.IFLA_IFNAME, link)
	body = nl.AppendU32(body, unix.IFLA_EXT_MASK, skipStats)
	err = c.Call(ctx, nl.Request{Type: unix.RTM_GETLINK, Body: body}, func(m nl.Message) error {
		l, _, err := decodeLink(m.Body)
		index = l.index
		return err
	})
	return index, err
}

// decodeLinkAddr reads the address in a NEWADDR message, and the link that has it.
func decodeLinkAddr(b []byte) (a netip.Addr, index int, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0, errors.New("malformed reply: an address without its header")
	}
	index = int(int32(binary.NativeEndian.Uint32(b[4:]))) // struct ifaddrmsg
	w := nl.Walk(b[unix.SizeofIfAddrmsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFA_LOCAL: // of a point-to-point link, IFA_ADDRESS is the peer's
			a, _ = netip.AddrFromSlice(w.Data())
		case unix.IFA_ADDRESS:
			if !a.IsValid() {
				a, _ = netip.AddrFromSlice(w.Data())
			}
		}
	}
	return a, index, w.Err()
}
