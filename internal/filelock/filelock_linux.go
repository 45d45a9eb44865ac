package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// dirs are the directories that lock files may be in, in the order in which they are
// tried: for root /run, where only root can create a file; for another user its own
// runtime directory.
func dirs() []string {
	dirs := []string{"/run"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	return append(dirs, os.TempDir())
}

// Lock takes the lock of a name. The file exists only while the lock is held. It is in
// the first directory where a file can be created; where there is none, there is no
// lock.
//
// A file of another user is ignored, and the next directory is tried: that user could
// hold its lock forever.
func Lock(ctx context.Context, name string) (unlock func(), err error) {
	for _, dir := range dirs() {
		path := filepath.Join(dir, name)
		for {
			fd, err := open(path)
			if unusable(err) {
				break
			}
			if err == nil {
				err = wait(ctx, fd)
			}
			if err != nil {
				return nil, &os.PathError{Op: "lock", Path: path, Err: err}
			}
			if isFile(fd, path) {
				// The file is removed before the lock is released: a process that
				// waits for the lock then sees that its file is not this one.
				return func() { unix.Unlink(path); unix.Close(fd) }, nil
			}
			unix.Close(fd)
		}
	}
	return func() {}, nil
}

// Directory takes the lock of a directory that exists.
func Directory(ctx context.Context, path string) (unlock func(), err error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		err = wait(ctx, fd)
	}
	if err != nil {
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return func() { unix.Close(fd) }, nil
}

// unusable reports whether the error is a reason to try the next directory: no file
// can be created there, or what has its name is not a file but a symbolic link, a
// directory or a socket.
func unusable(err error) bool {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		return true
	}
	return slices.ContainsFunc([]unix.Errno{unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.ELOOP, unix.EISDIR, unix.ENXIO, unix.ENOTDIR, unix.ENODEV},
		func(errno unix.Errno) bool { return errors.Is(err, errno) })
}

// open opens the file, or creates it. What is not a regular file of this user is
// EPERM.
func open(path string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return -1, err
	}
	var s unix.Stat_t
	if err = unix.Fstat(fd, &s); err == nil && (s.Mode&unix.S_IFMT != unix.S_IFREG || int(s.Uid) != unix.Geteuid()) {
		err = unix.EPERM
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// wait locks the file; on error it closes it. flock(2) cannot be interrupted by a
// context: when the context ends, a goroutine goes on waiting and releases the lock
// as soon as it has it.
func wait(ctx context.Context, fd int) error {
	err := flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		got := make(chan error, 1)
		go func() { got <- flock(fd, unix.LOCK_EX) }()
		select {
		case err = <-got:
		case <-ctx.Done():
			go func() { <-got; unix.Close(fd) }()
			return ctx.Err()
		}
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

func flock(fd, how int) error {
	_, err := retry(func() (int, error) { return 0, unix.Flock(fd, how) })
	return err
}

// retry repeats a system call that a signal interrupts.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// isFile reports whether the descriptor is of the file at path.
func isFile(fd int, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(fd, &open) == nil && unix.Lstat(path, &there) == nil &&
		open.Dev == there.Dev && open.Ino == there.Ino
}
