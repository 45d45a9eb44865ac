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
	run := errand
	if pin != nil {
		run = onOurThread // it mounts, where the process does
	}
	err = run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", os.NewSyscallError("unshare", err))
		}
		// A socket opened now costs a tenth of one opened from outside.
		f, err := nl.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		var conn *nl.Conn
		if ns, err = ofSocket(f); err == nil {
			conn, err = ns.Exchange(unix.NETLINK_ROUTE)
		}
		if err == nil {
			err = conn.Adopt(f)
		}
		if err != nil {
			f.Close()
			return err
		}
		if err := loopbackUp(ctx, conn); err != nil {
			return fmt.Errorf("setting lo up: %w", err)
		}
		if pin != nil {
			return pin()
		}
		return nil
	})
	if err != nil {
		ns.Close()
		return nil, err
	}
	ns.note()
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
