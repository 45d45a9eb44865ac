//go:build linux

package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile is the only file that run keeps, and it is empty. While boxes are made
// or removed it is locked, so that two runs do not choose the same address.
const lockFile = "/run/boxwire-run.lock"

// lock waits for its turn. The kernel gives the lock back if the process dies.
func lock() (unlock func(), err error) {
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
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
			return nil, fmt.Errorf("locking %s: %w", lockFile, err)
		}
	}
}
