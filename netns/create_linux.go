package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

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

// Create makes a network namespace with its loopback link up and pins it under
// its name in [Dir], where [Open] and `ip netns` find it (ip-netns(8)). It lives
// until [Delete].
//
// A name that exists is os.ErrExist, also when it is only the empty file that a
// process killed in the middle of a Create leaves; Delete removes both. A name
// that is empty, longer than 255 bytes, "." or "..", or contains '/', white
// space or control characters is os.ErrInvalid.
func Create(ctx context.Context, name string) (*NS, error) {
	err := checkName(name)
	var ns *NS
	if err == nil {
		ns, err = create(ctx, func() error { return pin(name) })
	}
	if err != nil {
		return nil, &Error{Op: "netns.Create", Subject: strconv.Quote(name), Err: err}
	}
	ns.name, ns.path = name, Dir+"/"+name
	return ns, nil
}

// create makes a namespace. pin, if not nil, is called by the thread that is in
// it, as the last step.
func create(ctx context.Context, pin func() error) (ns *NS, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", os.NewSyscallError("unshare", err))
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if ns, err = newNS(file); err != nil {
			file.Close()
			return err
		}
		// A socket opened now costs a tenth of one opened from outside.
		nc, err := nl.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		conn, err := ns.Exchange(unix.NETLINK_ROUTE)
		if err == nil {
			err = conn.Adopt(nc)
		}
		if err != nil {
			nc.Close()
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

// pin binds the calling thread's network namespace to a name.
func pin(name string) error {
	if err := prepareDir(); err != nil {
		return fmt.Errorf("preparing %s: %w", Dir, err)
	}
	path := Dir + "/" + name
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// prepareDir makes the folder of named namespaces, as `ip netns` does: a mount
// point of its own with shared propagation, so that a name deleted in one mount
// namespace is gone in all, and no copy of a mount keeps a namespace alive.
func prepareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // against others who find no mount point
		return os.NewSyscallError("flock", err)
	}
	err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		err = unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	return os.NewSyscallError("mount", err)
}

// Delete removes the name of a namespace. The namespace itself ends when its
// last handle, process and socket are gone. What a Create that was cut off left
// under the name is removed too. A name that is not there is os.ErrNotExist.
func Delete(ctx context.Context, name string) error {
	err := errors.Join(checkName(name), ctx.Err())
	if err == nil {
		err = unpin(Dir + "/" + name)
	}
	if err != nil {
		return &Error{Op: "netns.Delete", Subject: strconv.Quote(name), Err: err}
	}
	return nil
}

// Delete closes the handle and removes the namespace's name; see the function
// [Delete]. For an unnamed namespace it is the same as Close.
func (ns *NS) Delete(ctx context.Context) error {
	if ns.Name() == "" {
		return ns.Close()
	}
	if err := Delete(ctx, ns.name); err != nil {
		return err
	}
	return ns.Close()
}

// unpin removes the bind mounts at path (there may be several, one over the
// other) and then the file they were on.
func unpin(path string) error {
	const most = 64
	for range most {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == unix.EINVAL { // no mount point, or no longer
			return os.Remove(path)
		}
		if err != nil {
			return &os.PathError{Op: "umount", Path: path, Err: err}
		}
	}
	return &os.PathError{Op: "umount", Path: path, Err: fmt.Errorf("more than %d mounts over each other", most)}
}
