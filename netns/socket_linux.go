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
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Dial connects to an address from within the namespace. Networks and addresses are those
// of net.Dial. The connection may be used from any goroutine. Dial has the signature of
// http.Transport's DialContext.
//
// A host name is looked up from within the namespace as well, by Go's own resolver with the
// program's /etc/resolv.conf and /etc/hosts. Its addresses are tried one after the other.
func (ns *NS) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialWith(ctx, net.Dialer{}, network, address)
}

// DialContext is [NS.Dial] under the name that some interfaces require, such as
// golang.org/x/net/proxy.ContextDialer.
func (ns *NS) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialWith(ctx, net.Dialer{}, network, address)
}

// DialWith is [NS.Dial] with the settings of a net.Dialer: the local address, keep-alive,
// or a Control function that sets a socket's options before it connects. Control runs on a
// thread in the namespace. FallbackDelay has no effect, as addresses are tried one after
// the other. A Resolver is used unchanged, in whatever namespace it sends its queries.
func (ns *NS) DialWith(ctx context.Context, d net.Dialer, network, address string) (net.Conn, error) {
	d.FallbackDelay = -1 // addresses tried in parallel would be tried outside
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout) // for all addresses together
		defer cancel()
	}
	foreign := d.Control != nil || d.ControlContext != nil
	return open(ctx, ns, foreign, "netns.Dial", network, address, d.Resolver, d.DialContext)
}

// Listen listens on an address within the namespace, as net.Listen does. The listener and
// the connections that it accepts may be used from any goroutine.
func (ns *NS) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return ns.ListenWith(ctx, net.ListenConfig{}, network, address)
}

// ListenWith is [NS.Listen] with the settings of a net.ListenConfig. Its Control function
// sets a socket's options before it is bound, and runs on a thread in the namespace.
func (ns *NS) ListenWith(ctx context.Context, lc net.ListenConfig, network, address string) (net.Listener, error) {
	return open(ctx, ns, lc.Control != nil, "netns.Listen", network, address, nil, lc.Listen)
}

// ListenPacket listens on an address within the namespace, as net.ListenPacket does.
// "ip4:icmp" is a raw socket. The connection may be used from any goroutine.
func (ns *NS) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return ns.ListenPacketWith(ctx, net.ListenConfig{}, network, address)
}

// ListenPacketWith is [NS.ListenPacket] with the settings of a net.ListenConfig;
// see [NS.ListenWith].
func (ns *NS) ListenPacketWith(ctx context.Context, lc net.ListenConfig, network, address string) (net.PacketConn, error) {
	return open(ctx, ns, lc.Control != nil, "netns.ListenPacket", network, address, nil, lc.ListenPacket)
}

// Socket opens a socket of any kind in the namespace, such as a packet socket:
//
//	ns.Socket(ctx, unix.AF_PACKET, unix.SOCK_RAW, 0)
//
// The arguments are those of socket(2). The caller closes the file. The socket is
// non-blocking: the file's Read and Write wait without occupying a thread and obey
// deadlines. Use its SyscallConn for bind(2) and the like.
func (ns *NS) Socket(ctx context.Context, domain, typ, proto int) (*os.File, error) {
	var fd int
	var err error
	ierr := ns.open(ctx, func() { fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto) })
	if ierr == nil {
		ierr = ns.explainSocket(os.NewSyscallError("socket", err), "")
	}
	if ierr != nil {
		subject := fmt.Sprintf("family %d type %d protocol %d", domain, typ, proto)
		return nil, &Error{Op: "netns.Socket", NS: ns.String(), Subject: subject, Err: ierr}
	}
	origin.Note(fd)
	return os.NewFile(uintptr(fd), "socket"), nil
}

// DialNetlink opens a netlink connection of a family in the namespace: unix.NETLINK_ROUTE,
// unix.NETLINK_NETFILTER and so on. It is for packages that speak netlink themselves, such
// as jsimonetti/rtnetlink and google/nftables. The caller closes the connection, and may
// use it from any goroutine. cfg may be nil. cfg.NetNS must be 0, as the namespace is this
// one.
func (ns *NS) DialNetlink(ctx context.Context, family int, cfg *netlink.Config) (*netlink.Conn, error) {
	var conn *netlink.Conn
	var err error
	if cfg != nil && cfg.NetNS != 0 {
		err = refuse.Input("the configuration names another namespace")
	} else if ierr := ns.open(ctx, func() { conn, err = netlink.Dial(family, cfg) }); ierr != nil {
		err = ierr
	} else if errors.Is(err, unix.EPERM) { // a group of netfilter's, say
		err = privilege.Explain(err, privilege.NetAdmin.MissingIn(ns))
	}
	if err != nil {
		return nil, &Error{Op: "netns.DialNetlink", NS: ns.String(), Err: err}
	}
	return conn, nil
}

// open looks up the address and calls fn, on a thread in the namespace, with one
// literal address after the other until it succeeds. Given a literal address,
// package net opens the socket on the thread it is called on. With foreign, code of the
// caller runs there, too.
func open[T any](ctx context.Context, ns *NS, foreign bool, op, network, address string, r *net.Resolver, fn func(context.Context, string, string) (T, error)) (v T, err error) {
	addrs, err := ns.lookup(ctx, r, network, address)
	enter := ns.open
	if foreign {
		enter = ns.inside
	}
	var errs []error
	for _, a := range addrs {
		ierr := enter(ctx, func() { v, err = fn(ctx, network, a) })
		if ierr != nil {
			err = ierr
			break
		}
		if err == nil {
			noteConn(v)
			return v, nil
		}
		err = ns.explainSocket(err, network)
		errs = append(errs, err)
	}
	if len(errs) > 1 {
		err = errors.Join(errs...)
	}
	var zero T
	return zero, &Error{Op: op, NS: ns.String(), Subject: network + " " + address, Err: err}
}

// explainSocket says which capability it takes to open a raw or packet socket
// (raw(7), packet(7)), or to bind one to a port below net.ipv4.ip_unprivileged_port_start.
func (ns *NS) explainSocket(err error, network string) error {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return err
	}
	switch {
	case call.Err == unix.EPERM && call.Syscall == "socket":
		return privilege.Explain(err, privilege.NetRaw.MissingIn(ns))
	case call.Err == unix.EACCES && call.Syscall == "bind" && !strings.HasPrefix(network, "unix"):
		return privilege.Explain(err, privilege.NetBindService.MissingIn(ns))
	}
	return err
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
		// Package net hides from errors.Is why its resolver's sockets cannot be opened.
		if err := ns.open(ctx, func() {}); err != nil {
			return nil, err
		}
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
