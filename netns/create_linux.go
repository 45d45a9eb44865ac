package netns

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// New makes an unnamed network namespace with its loopback link up. It lives
// until the handle and every socket opened in it are closed and no process is
// in it. Without the privilege the error is os.ErrPermission.
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
	var n newborn
	if pin == nil {
		// The errand only makes the namespace and its descriptors. It has the smallest
		// stack that there is: for the rest, that would be copied twice into a larger one,
		// which takes longer than the rest does.
		if err = errand(n.unshare); err == nil {
			ns, err = n.furnish(ctx)
		}
	} else {
		err = onOurThread(func() (err error) { // it mounts, where the process does
			if err = n.unshare(); err == nil {
				ns, err = n.furnish(ctx)
			}
			if err == nil {
				err = pin()
			}
			return err
		})
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	ns.note()
	return ns, nil
}

// newborn has the descriptors of a new namespace: its own and a netlink socket's.
type newborn struct{ ns, socket int }

// unshare puts the calling thread into a new namespace and opens its descriptors, of
// which an error leaves none open.
func (n *newborn) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace: %w", os.NewSyscallError("unshare", err))
	}
	// A socket opened now costs a tenth of one opened from outside.
	var err error
	if n.socket, err = nl.Socket(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	// It leads to the namespace in half the time that the thread's file in /proc
	// takes, for those with CAP_NET_ADMIN.
	if n.ns, err = unix.IoctlRetInt(n.socket, unix.SIOCGSKNS); err != nil {
		n.ns, err = selfNetFd()
	}
	if err != nil {
		unix.Close(n.socket)
	}
	return err
}

// furnish makes a handle of the descriptors, which has them from then on, and sets
// the loopback link up. The handle is the caller's to close, also beside an error.
func (n *newborn) furnish(ctx context.Context) (*NS, error) {
	f, err := nl.File(n.socket)
	if err != nil {
		unix.Close(n.ns)
		return nil, err
	}
	id, err := statID(n.ns)
	if err != nil {
		unix.Close(n.ns)
		f.Close()
		return nil, err
	}
	ns := handleOf(n.ns, id)
	conn, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err == nil {
		err = conn.Adopt(f)
	}
	if err != nil {
		f.Close()
		return ns, err
	}
	if err := loopbackUp(ctx, conn); err != nil {
		return ns, fmt.Errorf("setting lo up: %w", err)
	}
	return ns, nil
}

// loopbackUp sets the link with index 1, which is lo in every namespace, up.
func loopbackUp(ctx context.Context, conn *nl.Conn) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], 1)
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	return conn.Call(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: body}, nil)
}
