package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// exclusive runs fn while no other change is under way in the namespace: of this
// NAT by a token, of other NATs and other programs by a lock file.
//
// What the table says needs no lock, because each transaction names the generation
// that it was built on. The lock is for what cannot be in a transaction: reserved
// ports and the settings of links. It also keeps programs that change the table
// all the time from making each other build anew. fn must not call exclusive.
func (n *NAT) exclusive(ctx context.Context, fn func(context.Context, nft.Conn) error) error {
	c, err := n.conn()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.isClosed() { // while it waited: what it reserved now nobody would give back
		return os.ErrClosed
	}
	unlock, err := lockFile(ctx, fmt.Sprintf("boxwire-net-%d.lock", n.ns.ID().Ino))
	if err != nil {
		return fmt.Errorf("waiting for another program's change: %w", err)
	}
	defer unlock()
	return fn(ctx, c)
}

// lockDirs are where lock files may be, the first that can be written to counts:
// for root a place that nobody else can block, for a normal user his own.
func lockDirs() []string {
	dirs := []string{"/run"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, dir)
	}
	return append(dirs, os.TempDir())
}

// lockFile takes the lock of a name; a file that is there while it is held, and
// no longer. Where no file can be made there is no lock.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	for _, dir := range lockDirs() {
		path := filepath.Join(dir, name)
		for {
			fd, err := openLock(path)
			if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ELOOP) {
				break
			}
			if err == nil {
				err = waitLock(ctx, fd)
			}
			if err != nil {
				return nil, &os.PathError{Op: "lock", Path: path, Err: err}
			}
			if isFile(fd, path) {
				// Removed before it is let go: whoever waits for it sees that.
				return func() { unix.Unlink(path); unix.Close(fd) }, nil
			}
			unix.Close(fd)
		}
	}
	return func() {}, nil
}

// openLock opens the file, or makes it. What somebody else has put there, in a
// folder that everybody may write to, is EPERM: he could hold its lock for ever.
func openLock(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err == unix.EINTR {
			continue
		}
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
}

// waitLock locks the file, and closes it if that fails. flock(2) cannot be told to
// stop waiting: when the context ends, the wait is left behind, and ends what it
// has got.
func waitLock(ctx context.Context, fd int) error {
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
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return err
		}
	}
}

// isFile reports whether the descriptor is that of the file at path.
func isFile(fd int, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(fd, &open) == nil && unix.Lstat(path, &there) == nil &&
		open.Dev == there.Dev && open.Ino == there.Ino
}
