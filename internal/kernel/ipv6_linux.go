package kernel

import (
	"sync"

	"golang.org/x/sys/unix"
)

// HasIPv6 reports whether the running kernel has IPv6. It has not where it was
// built without, and where it booted with ipv6.disable=1
// (Documentation/networking/ipv6.rst); a link or a namespace for which IPv6 is
// disabled (disable_ipv6) is another matter.
var HasIPv6 = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err != unix.EAFNOSUPPORT
})
