package nat

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// ExpandLink returns one port for each address of a link of the host, for [NAT.Publish]. It takes
// the addresses of the port's family that the link has now, except link-local ones. The host
// address of the given port must be unspecified (0.0.0.0 or ::). What is published does not change
// when the link gets or loses an address. A program that follows the addresses calls [NAT.Sync].
//
// Errors: os.ErrNotExist for a link that does not exist or has no such address; os.ErrInvalid for
// bad input.
func (n *NAT) ExpandLink(ctx context.Context, link string, port Port) ([]Port, error) {
	subject := fmt.Sprintf("%v on link %s", port, link)
	err := checkExpandLink(link, port)
	if err != nil {
		return nil, n.fail("nat.ExpandLink", subject, err)
	}
	addrs, err := n.linkAddrs(ctx, link, port.Host.Addr().Is6())
	if err == nil && len(addrs) == 0 {
		err = refuse.As(os.ErrNotExist, "the link has no address that could be used")
	}
	if err != nil {
		return nil, n.fail("nat.ExpandLink", subject, err)
	}
	ports := make([]Port, len(addrs))
	for i, a := range addrs {
		ports[i] = port
		ports[i].Host = netip.AddrPortFrom(a, port.Host.Port())
	}
	return ports, nil
}

// linkAddrs reads the addresses of a link that a port can be published on.
func (n *NAT) linkAddrs(ctx context.Context, link string, v6 bool) (addrs []netip.Addr, err error) {
	l, err := rtnl.LinkByName(ctx, n.ns, link)
	if err != nil {
		return nil, err
	}
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	all, err := rtnl.Addrs(ctx, n.ns, family)
	for _, one := range all {
		a := one.Local.Addr()
		if one.Link == l.Index && a.IsValid() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && a != netip.IPv6Loopback() {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), err
}
