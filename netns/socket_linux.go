package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/mdlayher/netlink"
)

// Dial connects to an address from within the namespace. Networks and addresses
// are those of net.Dial; the connection may be used from any goroutine. Dial has
// the signature of http.Transport's DialContext.
//
// A host name is looked up from within the namespace as well, with Go's own
// resolver and the program's /etc/resolv.conf and /etc/hosts; its addresses are
// tried one after the other.
func (ns *NS) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{FallbackDelay: -1} // addresses tried in parallel would be tried outside
	return open(ctx, ns, "netns.Dial", network, address, d.DialContext)
}

// Listen announces on an address within the namespace, as net.Listen does. The
// listener, and the connections it accepts, may be used from any goroutine.
func (ns *NS) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return open(ctx, ns, "netns.Listen", network, address, new(net.ListenConfig).Listen)
}

// ListenPacket announces on an address within the namespace, as net.ListenPacket
// does. The connection may be used from any goroutine.
func (ns *NS) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return open(ctx, ns, "netns.ListenPacket", network, address, new(net.ListenConfig).ListenPacket)
}

// DialNetlink opens a netlink connection in the namespace, of the family
// unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER and so on; cfg may be nil. It is
// for packages that speak netlink themselves: the connection is theirs to close,
// and may be used from any goroutine. cfg.NetNS must be 0, for the namespace is
// this one.
func (ns *NS) DialNetlink(ctx context.Context, family int, cfg *netlink.Config) (*netlink.Conn, error) {
	var conn *netlink.Conn
	var err error
	if cfg != nil && cfg.NetNS != 0 {
		err = refuse.Input("the configuration names another namespace")
	} else if ierr := ns.inside(ctx, func() { conn, err = netlink.Dial(family, cfg) }); ierr != nil {
		err = ierr
	}
	if err != nil {
		return nil, &Error{Op: "netns.DialNetlink", NS: ns.String(), Err: err}
	}
	return conn, nil
}

// open looks up the address and calls fn, on a thread in the namespace, with one
// literal address after the other until it succeeds. Given a literal address,
// package net opens the socket on the thread it is called on.
func open[T any](ctx context.Context, ns *NS, op, network, address string, fn func(context.Context, string, string) (T, error)) (v T, err error) {
	addrs, err := ns.lookup(ctx, network, address)
	var errs []error
	for _, a := range addrs {
		ierr := ns.inside(ctx, func() { v, err = fn(ctx, network, a) })
		if ierr != nil {
			err = ierr
			break
		}
		if err == nil {
			return v, nil
		}
		errs = append(errs, err)
	}
	if len(errs) > 1 {
		err = errors.Join(errs...)
	}
	var zero T
	return zero, &Error{Op: op, NS: ns.String(), Subject: network + " " + address, Err: err}
}

// lookup turns an address into literal ones, at least one.
func (ns *NS) lookup(ctx context.Context, network, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || len(network) < 3 || network[:2] == "un" {
		return []string{address}, nil // unix, raw IP, a wildcard, or package net's to refuse
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{address}, nil
	}
	family := "ip"
	switch network[len(network)-1] {
	case '4', '6':
		family += network[len(network)-1:]
	}
	r := net.Resolver{PreferGo: true, Dial: ns.Dial}
	ips, err := r.LookupNetIP(ctx, family, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.Unmap().String(), port)
	}
	return addrs, nil
}
