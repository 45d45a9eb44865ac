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

// A Conn is a netlink connection to the kernel in one network namespace. It is
// safe for concurrent use; exchanges wait for each other, within their context.
type Conn struct {
	family int
	dial   func() (*os.File, error) // opens a socket in the namespace

	turn chan struct{} // holds one token: whoever has it has the fields below
	sock *socket       // nil when there is none, or the last one broke
	seq  uint32
	out  []byte // send buffer, kept while small
	done chan struct{}
	once sync.Once
}

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

// NewConn returns a connection of the netlink family (unix.NETLINK_ROUTE, ...)
// that opens its socket with dial, by [Dial]: when it is first used, and again after one
// broke. dial must open it in the namespace that the Conn belongs to.
func NewConn(family int, dial func() (*os.File, error)) *Conn {
	c := &Conn{family: family, dial: dial, turn: make(chan struct{}, 1), done: make(chan struct{})}
	c.turn <- struct{}{}
	return c
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

// Adopt gives the connection a socket that Dial has opened. It is called before
// the first exchange.
func (c *Conn) Adopt(f *os.File) error {
	s, err := newSocket(f, false)
	if err != nil {
		return err
	}
	c.sock = s
	return nil
}

// Close closes the socket. An exchange under way ends first; those that wait,
// and later ones, get os.ErrClosed.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.done)
		<-c.turn // never given back
		c.drop()
	})
	return nil
}

// PortID returns the number that tells the connection from others of its family
// in the namespace (netlink(7): nl_pid): events carry the number of the
// connection whose request caused them. It is another one after the socket broke
// and was replaced.
func (c *Conn) PortID(ctx context.Context) (uint32, error) {
	if err := c.acquire(ctx); err != nil {
		return 0, err
	}
	defer c.release()
	if err := c.sock.learnPort(); err != nil {
		return 0, err
	}
	return c.sock.port, nil
}

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

// acquire waits for the connection's turn and makes sure that there is a socket.
func (c *Conn) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.done:
		return os.ErrClosed
	default:
	}
	select {
	case <-c.turn:
	case <-c.done:
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	err := c.ensure()
	if err != nil {
		c.release()
	}
	return err
}

// ensure makes sure that there is a socket.
func (c *Conn) ensure() error {
	if c.sock != nil {
		return nil
	}
	f, err := c.dial()
	if err == nil {
		if err = c.Adopt(f); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	return nil
}

func (c *Conn) release() {
	if cap(c.out) > 1<<16 {
		c.out = nil
	}
	c.turn <- struct{}{}
}

// drop closes the socket; the next exchange opens another.
func (c *Conn) drop() {
	if c.sock != nil {
		c.sock.file.Close()
		c.sock = nil
	}
}

// next returns a sequence number. They wrap around; an answer is matched by its
// distance to the first of its exchange.
func (c *Conn) next() uint32 {
	c.seq++
	return c.seq
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
