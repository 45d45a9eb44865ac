package nl

import "golang.org/x/sys/unix"

// join lets the socket receive the events of a group, until leave: what a dump
// is answered with carries the socket's own port, an event any other.
func (s *socket) join(group uint32) error {
	err := s.learnPort()
	if err != nil {
		return err
	}
	cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group))
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// leave ends the membership and throws away the events that are queued still: a
// later exchange could take them for its answers. A socket that cannot be
// emptied is dropped.
func (c *Conn) leave(group uint32, buf []byte) {
	s := c.sock
	if s == nil {
		return
	}
	err := s.raw.Control(func(fd uintptr) {
		s.errno = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, int(group))
	})
	if err != nil || s.errno != nil || s.drain(buf) != nil {
		c.drop()
	}
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
