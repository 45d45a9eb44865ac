package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Create makes a network namespace with its loopback link up and pins it under
// its name in [Dir], where [Open] and `ip netns` find it (ip-netns(8)). It lives
// until [Delete].
//
// A name that exists is os.ErrExist, also when it is only the empty file that a
// process killed in the middle of a Create leaves; Delete removes both. A name
// that is empty, longer than 255 bytes, "." or "..", or contains '/', white
// space or control characters is os.ErrInvalid.
func Create(ctx context.Context, name string) (*NS, error) { return Folder("").Create(ctx, name) }

// Create is the function [Create] for this folder.
func (f Folder) Create(ctx context.Context, name string) (*NS, error) {
	err := f.check(name)
	var ns *NS
	if err == nil {
		ns, err = create(ctx, func() error { return f.pin(name, "/proc/thread-self/ns/net") })
	}
	if err != nil {
		return nil, &Error{Op: "netns.Create", Subject: f.subject(name), Err: err}
	}
	ns.name, ns.path = name, f.path(name)
	return ns, nil
}

// Pin gives a namespace that exists already a name in [Dir], and returns another
// handle on it that knows the name. From then on it lives until [Delete]. A
// process's namespace is pinned with the handle that [OpenPid] gives. Errors are
// those of [Create].
func Pin(ctx context.Context, ns *NS, name string) (*NS, error) {
	return Folder("").Pin(ctx, ns, name)
}

// Pin is the function [Pin] for this folder.
func (f Folder) Pin(ctx context.Context, ns *NS, name string) (*NS, error) {
	named, err := f.pinHandle(ctx, ns, name)
	if err != nil {
		return nil, &Error{Op: "netns.Pin", NS: ns.String(), Subject: f.subject(name), Err: err}
	}
	return named, nil
}

func (f Folder) pinHandle(ctx context.Context, ns *NS, name string) (*NS, error) {
	if err := errors.Join(f.check(name), ctx.Err()); err != nil {
		return nil, err
	}
	named, err := ns.dup()
	if err != nil {
		return nil, err
	}
	err = named.WithFd(func(fd int) error { return f.pin(name, fmt.Sprintf("/proc/self/fd/%d", fd)) })
	if err != nil {
		named.Close()
		return nil, err
	}
	named.name, named.path = name, f.path(name)
	return named, nil
}

// Rename gives a named namespace of [Dir] another name. It has the new name
// before it loses the old one; a program that is killed in between leaves it
// with both. Handles that are open keep the name they were opened with. An
// unknown name is os.ErrNotExist, a new one that is taken os.ErrExist.
func Rename(ctx context.Context, from, to string) error { return Folder("").Rename(ctx, from, to) }

// Rename is the function [Rename] for this folder.
func (f Folder) Rename(ctx context.Context, from, to string) error {
	if err := f.rename(ctx, from, to); err != nil {
		return &Error{Op: "netns.Rename", Subject: f.subject(from) + " to " + f.subject(to), Err: err}
	}
	return nil
}

func (f Folder) rename(ctx context.Context, from, to string) error {
	if err := errors.Join(f.check(from, to), ctx.Err()); err != nil {
		return err
	}
	ns, err := openFile(f.path(from))
	if err != nil {
		return err
	}
	defer ns.Close()
	named, err := f.pinHandle(ctx, ns, to)
	if err != nil {
		return err
	}
	defer named.Close()
	if err := unpin(f.path(from)); err != nil {
		return errors.Join(err, unpin(f.path(to)))
	}
	return nil
}

// Delete removes the name of a namespace. The namespace itself ends when its
// last handle, process and socket are gone; [NS.Holders] says which they are.
// What a Create that was cut off left under the name is removed too. A name that
// is not there is os.ErrNotExist, and a file with content os.ErrInvalid.
func Delete(ctx context.Context, name string) error { return Folder("").Delete(ctx, name) }

// Delete is the function [Delete] for this folder.
func (f Folder) Delete(ctx context.Context, name string) error {
	err := errors.Join(f.check(name), ctx.Err())
	if err == nil {
		err = unpin(f.path(name))
	}
	if err != nil {
		return &Error{Op: "netns.Delete", Subject: f.subject(name), Err: err}
	}
	return nil
}

// pin binds the namespace file to a name.
func (f Folder) pin(name, file string) error {
	if err := f.prepare(); err != nil {
		return fmt.Errorf("preparing %s: %w", f.dir(), err)
	}
	path := f.path(name)
	target, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, fs.ErrExist) {
		if ns, oerr := openFile(path); errors.Is(oerr, ErrNotNamespace) {
			err = fmt.Errorf("%w (%s)", err, cutOff)
		} else {
			ns.Close()
		}
	}
	if err != nil {
		return err
	}
	target.Close()
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// cutOff says what a file is that has the name of a namespace and is none.
const cutOff = "the file is what a create that was cut off leaves; Delete removes it"

// prepare makes the folder; Dir as `ip netns` does: a mount point of its own with
// shared propagation, so that a name deleted in one mount namespace is gone in
// all.
func (f Folder) prepare() error {
	if err := os.MkdirAll(f.dir(), 0o755); err != nil {
		return err
	}
	if f.dir() != Dir {
		return nil
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

// unpin removes the bind mounts at path (there may be several, one over the
// other) and then the file they were on.
func unpin(path string) error {
	const most = 64
	for range most {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == unix.EINVAL { // no mount point, or no longer
			return removeName(path)
		}
		if err != nil {
			return &os.PathError{Op: "umount", Path: path, Err: err}
		}
	}
	return &os.PathError{Op: "umount", Path: path, Err: fmt.Errorf("more than %d mounts over each other", most)}
}

// removeName removes what a name leaves without its mount, an empty file, and a
// link to a namespace file, which others put where `ip netns` looks.
func removeName(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case fi.Mode()&os.ModeSymlink != 0:
	case !fi.Mode().IsRegular():
		return errNotA(kindOf(fi.Mode()))
	case fi.Size() > 0:
		return errNotA("file with content")
	}
	return os.Remove(path)
}
