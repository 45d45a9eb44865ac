package nl

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// join opens a socket if there is none, and lets it receive the events of
// groups, until leave. What a dump is answered with carries the socket's own port,
// an event any other.
func (c *Conn) join(groups []uint32) error {
	if err := c.ensure(); err != nil {
		return err
	}
	s := c.sock
	if slices.Equal(s.groups, groups) {
		return nil
	}
	if err := s.learnPort(); err != nil {
		return err
	}
	var err error
	cerr := s.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20) // takes CAP_NET_ADMIN
		for _, g := range groups {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g)))
		}
	})
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	s.groups = groups
	return nil
}

// leave ends the membership and throws away the events that are queued still: a
// later exchange could take them for its answers. A socket that cannot be
// emptied is dropped.
func (c *Conn) leave(groups []uint32, buf []byte) {
	s := c.sock
	if s == nil || !slices.Equal(s.groups, groups) {
		return
	}
	s.groups = nil
	err := s.raw.Control(func(fd uintptr) {
		s.errno = nil
		for _, g := range groups {
			s.errno = errors.Join(s.errno, unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, int(g)))
		}
	})
	if err != nil || s.errno != nil || s.drain(buf) != nil {
		c.drop()
	}
}
