package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/boxwire/boxwire/internal/filelock"
	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// naming is held while this process makes or removes a name. A name takes two steps, a file
// and a mount, and other goroutines must not see it between them. Other processes may; the
// errors of the steps show what they do in between.
var naming sync.Mutex

// mostTries bounds how often a step is taken again that another process has undone,
// and the mounts that may lie over each other.
const mostTries = 64

// pin binds the namespace file to a name.
func (d Dir) pin(ctx context.Context, name, file string) error {
	if err := d.prepare(ctx); err != nil {
		return fmt.Errorf("preparing %s: %w", d.root(), err)
	}
	naming.Lock()
	defer naming.Unlock()
	path := d.path(name)
	var err error
	for range mostTries {
		var target *os.File
		target, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
		if errors.Is(err, fs.ErrExist) {
			return explainName(ctx, path, err)
		}
		if err != nil {
			return err
		}
		target.Close()
		err = mount(file, path, unix.MS_BIND)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOENT) { // else another process took it for what a create leaves
			os.Remove(path)
			return err
		}
	}
	return err
}

func mount(source, path string, flags uintptr) error {
	if err := unix.Mount(source, path, "none", flags, ""); err != nil {
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// prepare makes the directory; DefaultDir as `ip netns` does: a mount point of its own with
// shared propagation, so that a name deleted in one mount namespace is gone in
// all. Once it is a mount point, the lock is left alone: every user who may read the
// directory can hold it.
func (d Dir) prepare(ctx context.Context) error {
	if err := os.MkdirAll(d.root(), 0o755); err != nil {
		return err
	}
	if d.root() != DefaultDir {
		return nil
	}
	const shared = unix.MS_SHARED | unix.MS_REC
	err := mount("", DefaultDir, shared)
	if !errors.Is(err, unix.EINVAL) { // it is a mount point
		return err
	}
	unlock, err := filelock.Directory(ctx, DefaultDir) // `ip netns` takes this lock, too
	if err != nil {
		return fmt.Errorf("waiting for the lock of the directory: %w", err)
	}
	defer unlock()
	err = mount("", DefaultDir, shared)
	if errors.Is(err, unix.EINVAL) {
		if err = mount(DefaultDir, DefaultDir, unix.MS_BIND|unix.MS_REC); err == nil {
			err = mount("", DefaultDir, shared)
		}
	}
	return err
}

// explainNaming says what is missing to give and take names: room for a mount, CAP_SYS_ADMIN for the
// mounts (mount(2)), and CAP_DAC_OVERRIDE for another user's directory.
func explainNaming(err error) error {
	var path *os.PathError
	if !errors.As(err, &path) {
		return err
	}
	hint := ""
	switch path.Err {
	case unix.ENOSPC:
		if path.Op == "mount" {
			hint = limit.Setting("fs.mount-max")
		}
	case unix.EPERM:
		if path.Op == "mount" || path.Op == "umount" {
			hint = privilege.SysAdmin.MissingOverMounts()
		}
	case unix.EACCES:
		if hint = privilege.SysAdmin.MissingOverMounts(); hint == "" {
			hint = privilege.DACOverride.Missing()
		}
	}
	return privilege.Explain(err, hint)
}
