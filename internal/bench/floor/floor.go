// Package floor does the work of the bench with nothing but system calls: the
// messages are built beforehand, a send takes a prepared buffer, and an answer
// is looked at only for its error. What is slower than this is a library's own
// cost; what is not is the kernel's.
package floor

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Socket is a raw netlink socket. It is for one goroutine.
type Socket struct {
	fd   int
	seq  uint32
	buf  []byte
	kept []byte // the answers that List is made of
}

// Open opens a socket of the netlink family in the calling thread's namespace.
func Open(family int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Socket{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Send sends messages that are complete but for their sequence numbers, and
// waits for the acknowledgement of the last, which must ask for one.
func (s *Socket) Send(messages []byte) error {
	last := s.number(messages)
	if err := write(s.fd, messages); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		n, err := read(s.fd, s.buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return fmt.Errorf("malformed answer")
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				if errno := -int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 {
					return syscall.Errno(errno)
				}
				if binary.NativeEndian.Uint32(b[8:]) == last {
					return nil
				}
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// number writes sequence numbers into the messages and returns the last.
func (s *Socket) number(messages []byte) uint32 {
	for b := messages; len(b) >= unix.SizeofNlMsghdr; {
		s.seq++
		binary.NativeEndian.PutUint32(b[8:], s.seq)
		size := int(binary.NativeEndian.Uint32(b))
		b = b[min((size+3)&^3, len(b)):]
	}
	return s.seq
}

// read and write are blocking system calls without a wrapper's checks. The
// kernel answers inside the send, so that a read never waits.
func read(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR: // one with a time limit is not restarted after a signal
		default:
			return 0, errno
		}
	}
}

func write(fd int, b []byte) error {
	_, _, errno := syscall.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}
