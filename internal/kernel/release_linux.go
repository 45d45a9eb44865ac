package kernel

import "golang.org/x/sys/unix"

// Release is what uname -r prints, "6.12.30-amd64" say.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
