package netns

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// New makes an unnamed network namespace with its loopback link up. It lives until the
// handle and every socket opened in it are closed and no process is in it, or until the
// program ends. A handle that is forgotten stays open.
//
// A missing privilege is os.ErrPermission. A limit on the number of namespaces is
// syscall.ENOSPC, and the error names it.
func New(ctx context.Context) (*NS, error) {
	ns, err := create(ctx, nil)
	if err != nil {
		return nil, &Error{Op: "netns.New", Err: err}
	}
	return ns, nil
}

// create makes a namespace. pin, if not nil, is called by the thread that is in
// it, as the last step.
func create(ctx context.Context, pin func() error) (ns *NS, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = inNewNS(func() (err error) {
		if ns, err = newNS(); err == nil && pin != nil {
			err = pin()
		}
		return err
	})
	if err != nil {
		ns.Close()
		return nil, err
	}
	ns.note()
	return ns, nil
}

// unshareNet puts the calling thread into a new network namespace.
func unshareNet() error {
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		return nil
	}
	hint := ""
	switch err {
	case unix.EPERM:
		hint = privilege.SysAdmin.Missing()
	case unix.ENOSPC:
		hint = limit.Namespaces("net")
	}
	return privilege.Explain(fmt.Errorf("making a network namespace: %w", os.NewSyscallError("unshare", err)), hint)
}

// newNS makes a handle of the calling thread's new namespace and sets the loopback
// link up. The caller closes the handle, which an error may come with.
func newNS() (*NS, error) {
	// The thread is in the namespace: the socket needs no setns(2).
	socket, err := nl.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	fd, err := socketNetFd(socket)
	if err != nil {
		fd, err = selfNetFd()
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	id, err := statID(fd)
	if err != nil {
		socket.Close()
		unix.Close(fd)
		return nil, err
	}
	ns := handleOf(fd, id)
	return ns, ns.loopbackUp(socket)
}

// socketNetFd opens the network namespace of a socket (SIOCGSKNS, for those with
// CAP_NET_ADMIN). It takes half the time that a file in /proc takes.
func socketNetFd(socket *os.File) (fd int, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(s uintptr) { fd, err = unix.IoctlRetInt(int(s), unix.SIOCGSKNS) })
	return fd, errors.Join(err, cerr)
}

// loopbackUp sets lo up, by a socket in the namespace, which is the handle's from then on.
//
// It is one ioctl (netdevice(7)), which netlink sockets take, too, and no netlink exchange:
// a program that only makes namespaces does not contain the code of one.
func (ns *NS) loopbackUp(socket *os.File) error {
	conn, err := ns.conn(unix.NETLINK_ROUTE)
	if err == nil {
		err = setUp(socket, "lo")
		if errors.Is(err, unix.EPERM) {
			err = privilege.Explain(err, privilege.NetAdmin.MissingIn(ns))
		}
		if err != nil {
			err = fmt.Errorf("setting lo up: %w", err)
		}
	}
	if err == nil {
		err = conn.Adopt(socket)
	}
	if err != nil {
		socket.Close()
	}
	return err
}

// setUp sets a link of the socket's namespace up, which has no other flags to keep.
func setUp(socket *os.File, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	cerr := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.SIOCSIFFLAGS, req) })
	return errors.Join(os.NewSyscallError("ioctl SIOCSIFFLAGS", err), cerr)
}
