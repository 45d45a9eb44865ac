package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/internal/origin"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Dial connects to an address from within the namespace. Networks and addresses
// are those of net.Dial; the connection may be used from any goroutine. Dial has
// the signature of http.Transport's DialContext.
//
// A host name is looked up from within the namespace as well, with Go's own
// resolver and the program's /etc/resolv.conf and /etc/hosts; its addresses are
// tried one after the other.
func (ns *NS) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialWith(ctx, net.Dialer{}, network, address)
}

// DialContext is [NS.Dial] by the name that interfaces of other packages ask for,
// such as golang.org/x/net/proxy.ContextDialer.
func (ns *NS) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialWith(ctx, net.Dialer{}, network, address)
}

// DialWith is [NS.Dial] with the settings of a net.Dialer: the local address,
// keep-alive, or a Control function that sets a socket's options before it
// connects. Control runs on a thread in the namespace. FallbackDelay has no
// effect, for addresses are tried one after the other; a Resolver that is set is
// used as it is, from wherever it asks.
func (ns *NS) DialWith(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	d.FallbackDelay = -1 // addresses tried in parallel would be tried outside
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout) // for all addresses together
		defer cancel()
	}
	return open(ctx, ns, "netns.Dial", network, address, d.Resolver, d.DialContext)
}

// Listen announces on an address within the namespace, as net.Listen does. The
// listener, and the connections it accepts, may be used from any goroutine.
func (ns *NS) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return ns.ListenWith(ctx, net.ListenConfig{}, network, address)
}

// ListenWith is [NS.Listen] with the settings of a net.ListenConfig. Its Control
// function, which sets a socket's options before it is bound, runs on a thread in
// the namespace.
func (ns *NS) ListenWith(ctx context.Context, lc net.ListenConfig, network, address string) (net.Listener, error) {
	return open(ctx, ns, "netns.Listen", network, address, nil, lc.Listen)
}

// ListenPacket announces on an address within the namespace, as net.ListenPacket
// does; "ip4:icmp" is a raw socket. The connection may be used from any goroutine.
func (ns *NS) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return ns.ListenPacketWith(ctx, net.ListenConfig{}, network, address)
}

// ListenPacketWith is [NS.ListenPacket] with the settings of a net.ListenConfig;
// see [NS.ListenWith].
func (ns *NS) ListenPacketWith(ctx context.Context, lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	return open(ctx, ns, "netns.ListenPacket", network, address, nil, lc.ListenPacket)
}

// Socket opens a socket of any kind in the namespace, such as a packet socket:
//
//	ns.Socket(ctx, unix.AF_PACKET, unix.SOCK_RAW, 0)
//
// The arguments are those of socket(2). The file is non-blocking for the kernel:
// its Read and Write wait without a thread and have deadlines; bind(2) and the
// like go through its SyscallConn. It is the caller's to close.
func (ns *NS) Socket(ctx context.Context, domain, typ, proto int) (*os.File, error) {
	var fd int
	var err error
	ierr := ns.inside(ctx, func() { fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto) })
	if ierr == nil {
		ierr = os.NewSyscallError("socket", err)
	}
	if ierr != nil {
		subject := fmt.Sprintf("family %d type %d protocol %d", domain, typ, proto)
		return nil, &Error{Op: "netns.Socket", NS: ns.String(), Subject: subject, Err: ierr}
	}
	origin.Note(fd)
	return os.NewFile(uintptr(fd), "socket"), nil
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
func open[T any](ctx context.Context, ns *NS, op, network, address string, r *net.Resolver, fn func(context.Context, string, string) (T, error)) (v T, err error) {
	addrs, err := ns.lookup(ctx, r, network, address)
	var errs []error
	for _, a := range addrs {
		ierr := ns.inside(ctx, func() { v, err = fn(ctx, network, a) })
		if ierr != nil {
			err = ierr
			break
		}
		if err == nil {
			noteConn(v)
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

// noteConn remembers where a connection was opened, if a leak check has asked for
// it.
func noteConn(v any) {
	if c, ok := v.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { origin.Note(int(fd)) })
		}
	}
}

// lookup turns an address into literal ones, at least one. Unix addresses,
// wildcards, and what package net refuses stay as they are.
func (ns *NS) lookup(ctx context.Context, r *net.Resolver, network, address string) ([]string, error) {
	family, _, _ := strings.Cut(network, ":")
	family = strings.TrimPrefix(strings.TrimPrefix(family, "tcp"), "udp")
	family = strings.TrimPrefix(family, "ip")
	if family != "" && family != "4" && family != "6" {
		return []string{address}, nil
	}
	host, join := address, func(ip string) string { return ip }
	if !strings.HasPrefix(network, "ip") {
		h, port, err := net.SplitHostPort(address)
		if err != nil {
			return []string{address}, nil
		}
		host, join = h, func(ip string) string { return net.JoinHostPort(ip, port) }
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return []string{address}, nil
	}
	if r == nil {
		r = &net.Resolver{PreferGo: true, Dial: ns.Dial}
	}
	ips, err := r.LookupNetIP(ctx, "ip"+family, host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = join(ip.Unmap().String())
	}
	return addrs, nil
}
