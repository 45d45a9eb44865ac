package nl

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// exchangeSocket is the socket of a Conn. The runtime's poller does not know it: the
// kernel answers inside the send, and the poller would wake a thread for every answer
// that is read already.
type exchangeSocket struct {
	socket
	port   uint32   // 0 until learnPort
	groups []uint32 // what join has joined

	// write sends buf.
	write func(fd uintptr) bool
}

// Dial opens a socket of the given family in the calling thread's namespace,
// set up as Conn expects it.
//
// The runtime's poller does not know it: the kernel answers inside the send, and
// the poller would have a thread woken for every answer that is read already.
func Dial(family int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1); err != nil {
			f.Close()
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	// Connected to port 0, the socket takes messages from the kernel only.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("connect", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

func newExchangeSocket(f file) (*exchangeSocket, error) {
	s := &exchangeSocket{}
	if err := s.init(f, unix.Read); err != nil {
		return nil, err
	}
	s.write = func(fd uintptr) bool {
		s.n, s.errno = retry(func() (int, error) { return unix.Write(int(fd), s.buf) })
		return true // the kernel never makes its senders wait
	}
	return s, nil
}

// send hands the kernel one datagram.
func (s *exchangeSocket) send(b []byte) error {
	if len(b) > 1<<16 {
		if err := s.growSendBuffer(len(b)); err != nil {
			return err
		}
	}
	s.buf = b
	err := s.raw.Write(s.write)
	s.buf = nil
	if err == nil {
		err = s.errno
	}
	if err == unix.EMSGSIZE {
		return fmt.Errorf("sending %d bytes at once: the setting net.core.wmem_max allows no more to a user without CAP_NET_ADMIN on the machine: %w", len(b), err)
	}
	if err != nil {
		return fmt.Errorf("sending %d bytes: %w", len(b), err)
	}
	return nil
}

// growSendBuffer makes room for a datagram: without the privilege to exceed
// net.core.wmem_max, up to that.
func (s *exchangeSocket) growSendBuffer(n int) error {
	err := s.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, n)
		}
	})
	return err
}

// recv reads one datagram into buf. Nearly always there is one at once.
func (s *exchangeSocket) recv(ctx context.Context, buf []byte) ([]byte, error) {
	return s.socket.recv(ctx, buf, s.awaitDup)
}

// awaitDup waits with a duplicate of the descriptor, which the poller knows.
func (s *exchangeSocket) awaitDup(ctx context.Context) error {
	f, err := s.dup()
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return s.await(ctx, f, raw)
}

// dup returns a duplicate of the descriptor, which the poller knows.
func (s *exchangeSocket) dup() (f *os.File, err error) {
	cerr := s.raw.Control(func(fd uintptr) {
		var other int
		if other, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			f = os.NewFile(uintptr(other), "netlink")
		}
	})
	return f, errors.Join(err, cerr)
}

// learnPort finds out the port id, once.
func (s *exchangeSocket) learnPort() error {
	if s.port != 0 {
		return nil
	}
	var name unix.Sockaddr
	var err error
	cerr := s.raw.Control(func(fd uintptr) { name, err = unix.Getsockname(int(fd)) })
	if err = errors.Join(err, cerr); err != nil {
		return err
	}
	s.port = name.(*unix.SockaddrNetlink).Pid
	return nil
}
