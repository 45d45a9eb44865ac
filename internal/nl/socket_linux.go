package nl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/internal/origin"
	"golang.org/x/sys/unix"
)

// socket is one open netlink socket with its two system calls prepared, so that
// an exchange allocates nothing for them.
type socket struct {
	file   file
	raw    syscall.RawConn
	polled bool     // the runtime's poller knows the descriptor
	port   uint32   // 0 until learnPort
	groups []uint32 // what join has joined

	// Arguments and results of the two functions below.
	buf   []byte
	n     int
	errno error
	wait  bool // read: wait for data; otherwise EAGAIN is a result

	read, write func(fd uintptr) bool
}

// file is an *os.File or a *netlink.Conn.
type file interface {
	SyscallConn() (syscall.RawConn, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// Dial opens a socket of the given family in the calling thread's namespace,
// set up as Conn expects it.
func Dial(family int) (*os.File, error) {
	fd, err := Socket(family)
	if err != nil {
		return nil, err
	}
	return File(fd)
}

// Socket is the part of Dial that has to be done in the namespace.
func Socket(family int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	return fd, os.NewSyscallError("socket", err)
}

// File is the rest of Dial, for a descriptor that Socket has returned.
//
// The runtime's poller does not know it: the kernel answers inside the send, and
// the poller would have a thread woken for every answer that is read already.
func File(fd int) (*os.File, error) {
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

func newSocket(f file, polled bool) (*socket, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) { origin.Note(int(fd)) })
	s := &socket{file: f, raw: raw, polled: polled}
	s.read = func(fd uintptr) bool {
		s.n, s.errno = retry(func() (int, error) { return unix.Read(int(fd), s.buf) })
		return s.errno != unix.EAGAIN || !s.wait
	}
	s.write = func(fd uintptr) bool {
		s.n, s.errno = retry(func() (int, error) { return unix.Write(int(fd), s.buf) })
		return true // the kernel never makes its senders wait
	}
	return s, nil
}

// retry repeats a system call that a signal interrupts.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// send hands the kernel one datagram.
func (s *socket) send(b []byte) error {
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
func (s *socket) growSendBuffer(n int) error {
	err := s.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, n)
		}
	})
	return err
}

// recv reads one datagram into buf. The kernel answers inside the send, so that
// there is data at once nearly always; only else is the context watched. A
// cancelled wait leaves the socket unusable: the caller drops it.
func (s *socket) recv(ctx context.Context, buf []byte) ([]byte, error) {
	s.buf, s.wait = buf, false
	err := s.raw.Read(s.read)
	if err == nil && s.errno == unix.EAGAIN {
		if err = s.await(ctx); err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	s.buf = nil
	if err == nil {
		err = s.errno
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("receiving: %w", err)
	case s.n == len(buf):
		return nil, fmt.Errorf("receiving: message longer than %d bytes", len(buf))
	}
	return buf[:s.n], nil
}

// await reads when there is something to read, or until ctx is done.
func (s *socket) await(ctx context.Context) error {
	f, raw := s.file, s.raw
	if !s.polled { // then a duplicate waits
		var err error
		if f, err = s.dup(); err != nil {
			return err
		}
		defer f.Close()
		if raw, err = f.SyscallConn(); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	s.wait = true
	err := raw.Read(s.read)
	if !stop() {
		return ctx.Err()
	}
	return err
}

// dup returns a duplicate of the descriptor, which the poller knows.
func (s *socket) dup() (f *os.File, err error) {
	cerr := s.raw.Control(func(fd uintptr) {
		var other int
		if other, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			f = os.NewFile(uintptr(other), "netlink")
		}
	})
	return f, errors.Join(err, cerr)
}

// buffers are receive buffers. The kernel fills dump replies up to 32 KiB.
var buffers = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}

// learnPort finds out the port id, once.
func (s *socket) learnPort() error {
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
