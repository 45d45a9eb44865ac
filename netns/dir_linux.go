package netns

import (
	"context"
	"errors"
	"fmt"
)

// Create makes a network namespace with its loopback link up and pins it under a name in
// [DefaultDir], where [Open] and `ip netns` find it (ip-netns(8)). It lives until [Delete].
//
// A name that exists is os.ErrExist. That includes the empty file that an interrupted
// Create leaves, which Delete removes and [Ensure] takes over, and a name that only another
// mount namespace has. A name is os.ErrInvalid if it is empty, longer than 255 bytes, "."
// or "..", or contains '/', white space or control characters.
func Create(ctx context.Context, name string) (*NS, error) { return Dir("").Create(ctx, name) }

// Create is the function [Create] for this directory.
func (d Dir) Create(ctx context.Context, name string) (*NS, error) {
	err := d.check(name)
	var ns *NS
	if err == nil {
		ns, err = create(ctx, func() error { return d.pin(ctx, name, "/proc/thread-self/ns/net") })
	}
	if err != nil {
		return nil, &Error{Op: "netns.Create", Subject: d.subject(name), Err: explainNaming(err)}
	}
	ns.name, ns.path = name, d.path(name)
	return ns, nil
}

// Pin gives an existing namespace a name in [DefaultDir], and returns another handle on it
// that knows the name. The namespace then lives until [Delete]. The handle that [OpenPid]
// returns pins a process's namespace. Errors are those of [Create].
func Pin(ctx context.Context, ns *NS, name string) (*NS, error) {
	return Dir("").Pin(ctx, ns, name)
}

// Pin is the function [Pin] for this directory.
func (d Dir) Pin(ctx context.Context, ns *NS, name string) (*NS, error) {
	named, err := d.pinHandle(ctx, ns, name)
	if err != nil {
		return nil, &Error{Op: "netns.Pin", NS: ns.String(), Subject: d.subject(name), Err: explainNaming(err)}
	}
	return named, nil
}

func (d Dir) pinHandle(ctx context.Context, ns *NS, name string) (*NS, error) {
	if err := errors.Join(d.check(name), ctx.Err()); err != nil {
		return nil, err
	}
	named, err := ns.dup()
	if err != nil {
		return nil, err
	}
	err = named.WithFd(func(fd int) error { return d.pin(ctx, name, fmt.Sprintf("/proc/self/fd/%d", fd)) })
	if err != nil {
		named.Close()
		return nil, err
	}
	named.name, named.path = name, d.path(name)
	return named, nil
}

// Rename gives a named namespace of [DefaultDir] another name. The new name is there before
// the old one goes; a program that is killed in between leaves both. Open handles keep the
// name they were opened with. An unknown name is os.ErrNotExist, a new one that is taken
// os.ErrExist.
func Rename(ctx context.Context, from, to string) error { return Dir("").Rename(ctx, from, to) }

// Rename is the function [Rename] for this directory.
func (d Dir) Rename(ctx context.Context, from, to string) error {
	if err := d.rename(ctx, from, to); err != nil {
		return &Error{Op: "netns.Rename", Subject: d.subject(from) + " to " + d.subject(to), Err: explainNaming(err)}
	}
	return nil
}

func (d Dir) rename(ctx context.Context, from, to string) error {
	if err := errors.Join(d.check(from, to), ctx.Err()); err != nil {
		return err
	}
	ns, err := openFile(d.path(from))
	if err != nil {
		return err
	}
	defer ns.Close()
	named, err := d.pinHandle(ctx, ns, to)
	if err != nil {
		return err
	}
	defer named.Close()
	if err := unpin(ctx, d.path(from)); err != nil {
		return errors.Join(err, unpin(context.WithoutCancel(ctx), d.path(to)))
	}
	return nil
}

// Delete removes the name of a namespace. The namespace itself ends when its last handle,
// process and socket are gone; [NS.Holders] lists them. Delete also removes the empty file
// that an interrupted Create leaves.
//
// A missing name is os.ErrNotExist, and a file with content os.ErrInvalid. After an error
// the name is there as before. A directory that is mounted read-only is syscall.EROFS.
//
// The name may be mounted in another mount namespace only, and removing its file would
// unmount it there. Delete refuses that with syscall.EBUSY if a process in that mount
// namespace is visible in /proc.
func Delete(ctx context.Context, name string) error { return Dir("").Delete(ctx, name) }

// Delete is the function [Delete] for this directory.
func (d Dir) Delete(ctx context.Context, name string) error {
	err := errors.Join(d.check(name), ctx.Err())
	if err == nil {
		err = unpin(ctx, d.path(name))
	}
	if err != nil {
		return &Error{Op: "netns.Delete", Subject: d.subject(name), Err: explainNaming(err)}
	}
	return nil
}
