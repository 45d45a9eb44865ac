package nl

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/internal/origin"
	"golang.org/x/sys/unix"
)

// socket is what [exchangeSocket] and [Events] share: an open netlink socket with the
// system call that reads it prepared, so that a read allocates nothing.
type socket struct {
	file file
	raw  syscall.RawConn

	// Arguments and results of read.
	buf   []byte
	n     int
	errno error
	wait  bool // for data; otherwise EAGAIN is a result
	read  func(fd uintptr) bool
}

// file is an *os.File or a *netlink.Conn.
type file interface {
	SyscallConn() (syscall.RawConn, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// init prepares the socket; receive is the system call.
func (s *socket) init(f file, receive func(fd int, b []byte) (int, error)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { origin.Note(int(fd)) })
	s.file, s.raw = f, raw
	s.read = func(fd uintptr) bool {
		s.n, s.errno = retry(func() (int, error) { return receive(int(fd), s.buf) })
		return s.errno != unix.EAGAIN || !s.wait
	}
	return nil
}

// retry repeats a system call that a signal interrupts.
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}

// recv reads one datagram into buf. Where there is none yet, await waits for it. A
// cancelled wait leaves the socket unusable: the caller drops it.
func (s *socket) recv(ctx context.Context, buf []byte, await func(context.Context) error) ([]byte, error) {
	s.buf, s.wait = buf, false
	err := s.raw.Read(s.read)
	if err == nil && s.errno == unix.EAGAIN {
		if err = await(ctx); err != nil && ctx.Err() != nil {
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

// await reads when there is something to read, or until ctx is done. The runtime's
// poller has to know f, which raw belongs to.
func (s *socket) await(ctx context.Context, f file, raw syscall.RawConn) error {
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	s.wait = true
	err := raw.Read(s.read)
	if !stop() {
		return ctx.Err()
	}
	return err
}

// drain reads until nothing is queued.
func (s *socket) drain(buf []byte) error {
	for {
		s.buf, s.wait = buf, false
		err := s.raw.Read(s.read)
		s.buf = nil
		switch {
		case err != nil:
			return err
		case s.errno == unix.EAGAIN:
			return nil
		case s.errno != nil && s.errno != unix.ENOBUFS:
			return s.errno
		}
	}
}

// buffers are receive buffers. The kernel fills dump replies up to 32 KiB.
var buffers = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}
