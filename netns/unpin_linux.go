package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/internal/plain"
	"golang.org/x/sys/unix"
)

// unpin removes the bind mounts at path (there may be several, one over the
// other) and then the file they were on. After an error all is there as before.
func unpin(ctx context.Context, path string) error {
	naming.Lock()
	defer naming.Unlock()
	// In a directory that is mounted read-only, say, the file would stay.
	if err := unix.Faccessat(unix.AT_FDCWD, filepath.Dir(path), unix.W_OK, unix.AT_EACCESS); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	r := removal{path: path}
	defer r.close()
	err := r.run(ctx)
	if err != nil {
		err = errors.Join(err, r.undo())
	}
	return err
}

// removal takes a name away.
type removal struct {
	path   string
	mounts []int // descriptors of what was mounted, the topmost first
}

func (r *removal) run(ctx context.Context) error {
	var err error
	for range mostTries {
		unmounted, uerr := r.unmount()
		if errors.Is(uerr, fs.ErrNotExist) && len(r.mounts) > 0 {
			return nil
		}
		if uerr != nil {
			return uerr
		}
		if unmounted {
			continue
		}
		err = r.remove(ctx)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, fs.ErrNotExist):
			return err
		case len(r.mounts) > 0:
			return nil // another process has removed it as well, and perhaps made it again
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errElsewhere):
			return err
		}
		// Busy: another process has just mounted it.
	}
	if err == nil {
		err = &os.PathError{Op: "umount", Path: r.path, Err: fmt.Errorf("more than %d mounts over each other", mostTries)}
	}
	return err
}

// unmount takes the topmost mount away, if there is one.
func (r *removal) unmount() (bool, error) {
	fd, err := unix.Open(r.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "umount", Path: r.path, Err: err}
	}
	err = unix.Unmount(r.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil {
		r.mounts = append(r.mounts, fd)
		return true, nil
	}
	unix.Close(fd)
	if err == unix.EINVAL { // no mount point, or no longer
		return false, nil
	}
	return false, &os.PathError{Op: "umount", Path: r.path, Err: err}
}

// remove removes what a name leaves without its mount, an empty file, and a link to a
// namespace file, which others put where `ip netns` looks.
func (r *removal) remove(ctx context.Context) error {
	fi, err := os.Lstat(r.path)
	switch {
	case err != nil:
		return err
	case fi.Mode()&os.ModeSymlink != 0:
	case !fi.Mode().IsRegular():
		return errNotA(kindOf(fi.Mode()))
	case fi.Size() > 0:
		return errNotA("file with content")
	case len(r.mounts) == 0:
		if h, ok := mountedElsewhere(ctx, r.path); ok {
			return fmt.Errorf("%w, that of process %d (%s), and is no name here: %w", errElsewhere, h.Pid, plain.Text(h.Comm), unix.EBUSY)
		}
	}
	return os.Remove(r.path)
}

// undo mounts again what was unmounted.
func (r *removal) undo() error {
	for len(r.mounts) > 0 {
		last := len(r.mounts) - 1
		if err := mount(fmt.Sprintf("/proc/self/fd/%d", r.mounts[last]), r.path, unix.MS_BIND); err != nil {
			return fmt.Errorf("mounting the name again: %w", err)
		}
		unix.Close(r.mounts[last])
		r.mounts = r.mounts[:last]
	}
	return nil
}

func (r *removal) close() {
	for _, fd := range r.mounts {
		unix.Close(fd)
	}
}

// errElsewhere says that a name is one in another mount namespace.
var errElsewhere = errors.New("it is a namespace's name in another mount namespace")

// explainName adds to an error about a name what its file is, where that is no
// namespace.
func explainName(ctx context.Context, path string, err error) error {
	fi, serr := os.Stat(path)
	if serr != nil || !fi.Mode().IsRegular() || fi.Size() > 0 {
		return err
	}
	if ns, oerr := openFile(path); oerr == nil {
		ns.Close()
		return err
	} else if !errors.Is(oerr, ErrNotNamespace) {
		return err
	}
	if h, ok := mountedElsewhere(ctx, path); ok {
		return fmt.Errorf("%w (%w, that of process %d (%s))", err, errElsewhere, h.Pid, plain.Text(h.Comm))
	}
	return fmt.Errorf("%w (the file is what a create that was cut off leaves; Delete removes it)", err)
}
