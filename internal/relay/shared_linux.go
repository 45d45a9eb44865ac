package relay

import (
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/boxwire/boxwire/internal/sockfilter"
	"golang.org/x/sys/unix"
)

// Listen returns a listener on a TCP socket that is bound to every IPv6 address and
// receives nothing, for one of the addresses. While the listener is open, the socket
// has no mark (SO_MARK): rules refuse connections to sockets with that mark. The
// listener's Close sets the mark again.
func Listen(fd int, only netip.Addr, mark uint32) (net.Listener, error) {
	const backlog = 128
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	ln, err := share(fd, only, net.FileListener)
	if err != nil {
		return nil, err
	}
	return &listener{ln.(*net.TCPListener), mark}, nil
}

// ListenPacket is Listen for a UDP socket.
func ListenPacket(fd int, only netip.Addr, mark uint32) (PacketConn, error) {
	pc, err := share(fd, only, net.FilePacketConn)
	if err != nil {
		return nil, err
	}
	return &packetConn{pc.(*net.UDPConn), mark}, nil
}

type listener struct {
	*net.TCPListener
	mark uint32
}

func (l *listener) Close() error {
	silence(l, l.mark)
	return l.TCPListener.Close()
}

type packetConn struct {
	*net.UDPConn
	mark uint32
}

func (c *packetConn) Close() error {
	silence(c, c.mark)
	return c.UDPConn.Close()
}

// share makes a value of package net of a copy of the descriptor, and lets in what is
// for the address.
func share[T io.Closer](fd int, only netip.Addr, open func(*os.File) (T, error)) (v T, err error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return v, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(dup), "shared socket")
	defer f.Close() // open makes a copy of its own
	if v, err = open(f); err != nil {
		return v, err
	}
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0))
	if err == nil {
		err = sockfilter.Only(fd, only)
	}
	if err != nil {
		v.Close()
	}
	return v, err
}

// silence makes the socket receive nothing again, sets its mark, and ends the
// connections that were not accepted.
func silence(c syscall.Conn, mark uint32) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = sockfilter.Nothing(int(fd))
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		for {
			conn, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			unix.Close(conn)
		}
	})
}
