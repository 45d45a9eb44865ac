//go:build !linux

package kernel

// HasIPv6 says that there is no Linux that could lack it.
func HasIPv6() bool { return true }
