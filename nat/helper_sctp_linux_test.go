package nat

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Package net has no SCTP, but a one-to-one socket of it (RFC 6458) is a stream
// socket like one of TCP, which net takes from a file.

func sctpSocket(ns *netns.NS, addr netip.Addr) (int, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return netns.Do(context.Background(), ns, func(context.Context) (int, error) {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
		return fd, os.NewSyscallError("socket", err)
	})
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

// needSCTP skips the test where the kernel has no SCTP sockets.
func needSCTP(t *testing.T, ns *netns.NS) {
	t.Helper()
	fd, err := sctpSocket(ns, netip.IPv4Unspecified())
	testutil.NeedKernel(t, 5, 10, "SCTP sockets (module sctp)", err)
	unix.Close(fd)
}

func listenSCTP(t *testing.T, ns *netns.NS, addr netip.AddrPort) net.Listener {
	t.Helper()
	fd, err := sctpSocket(ns, addr.Addr())
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// dialSCTP connects from the one address that the route chooses. An association of a
// socket that is not bound has all addresses of its host (RFC 9260, section 5.1.2), and
// the peer may send to any of them; conntrack translates the one that the first packet has.
func dialSCTP(ctx context.Context, ns *netns.NS, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	way, err := ns.Dial(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	from := way.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	way.Close()
	fd, err := sctpSocket(ns, to.Addr())
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close()
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	err = unix.Connect(fd, sockaddr(to))
	for err == unix.EINPROGRESS {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(p, 10); n > 0 {
			var code int
			if code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				err = unix.Errno(code)
			}
		} else if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}
