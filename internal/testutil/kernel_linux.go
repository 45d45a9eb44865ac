package testutil

import "golang.org/x/sys/unix"

// kernelRelease is what uname -r prints, "6.12.30-amd64" say.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
