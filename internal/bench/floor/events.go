package floor

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Follow opens a socket that receives a multicast group, with room for buffer
// bytes.
func Follow(group, buffer int) (*Socket, error) {
	s, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	// Without an address of its own, the socket would be taken for the kernel's.
	_ = unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	err = unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("joining group %d: %w", group, err)
	}
	return s, nil
}

// Receive waits for a datagram, for ten seconds at most, and hands its messages to each.
func (s *Socket) Receive(each func(typ uint16, body []byte)) error {
	n, err := read(s.fd, s.buf)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return fmt.Errorf("malformed message")
		}
		each(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}
