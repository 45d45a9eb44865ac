//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock waits for its turn to make or remove boxes of a host: two runs must not choose the same
// link, nor one take another's network for a killed run's. The file is the only one that this
// program keeps, and it is empty. The kernel gives the lock back if the process dies.
func (b *box) lock() (unlock func(), err error) {
	if b.alone {
		return func() {}, nil
	}
	dir := "/run"
	if unix.Access(dir, unix.W_OK) != nil {
		dir = os.Getenv("XDG_RUNTIME_DIR")
	}
	if dir == "" {
		dir = os.TempDir()
	}
	path := filepath.Join(dir, fmt.Sprintf("boxwire-sandbox-%d.lock", b.host.ID().Ino))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
	}
}
