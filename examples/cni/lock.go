//go:build linux

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile is locked while something is made, or an address chosen, so that no
// two plugins make the same bridge or choose the same address.
const lockFile = "/run/boxwire-cni.lock"

// lock waits for its turn. The kernel gives the lock back if the process dies.
func lock() (unlock func(), err error) { return flock(unix.LOCK_EX) }

// lockShared waits until nobody has the lock alone. Any number may share it.
func lockShared() (unlock func(), err error) { return flock(unix.LOCK_SH) }

func flock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failed("opening the lock", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, failed("waiting for the lock", fmt.Errorf("%s: %w", lockFile, err))
		}
	}
}
