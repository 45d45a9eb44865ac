package privilege

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Cap is the number of a capability (linux/capability.h).
type Cap int

// The capabilities that calls of this module take.
const (
	DACOverride    Cap = unix.CAP_DAC_OVERRIDE
	SetGID         Cap = unix.CAP_SETGID
	SetUID         Cap = unix.CAP_SETUID
	NetBindService Cap = unix.CAP_NET_BIND_SERVICE
	NetBroadcast   Cap = unix.CAP_NET_BROADCAST
	NetAdmin       Cap = unix.CAP_NET_ADMIN
	NetRaw         Cap = unix.CAP_NET_RAW
	SysPtrace      Cap = unix.CAP_SYS_PTRACE
	SysAdmin       Cap = unix.CAP_SYS_ADMIN
	SetFCap        Cap = unix.CAP_SETFCAP
)

var names = map[Cap]string{
	DACOverride: "CAP_DAC_OVERRIDE", SetGID: "CAP_SETGID", SetUID: "CAP_SETUID", SetFCap: "CAP_SETFCAP",
	NetBindService: "CAP_NET_BIND_SERVICE", NetBroadcast: "CAP_NET_BROADCAST",
	NetAdmin: "CAP_NET_ADMIN", NetRaw: "CAP_NET_RAW", SysPtrace: "CAP_SYS_PTRACE", SysAdmin: "CAP_SYS_ADMIN",
}

// String returns the capability's name.
func (c Cap) String() string { return names[c] }

// Effective reports whether the calling thread has the capability in its own user
// namespace. A thread that cannot be asked is taken to have it.
func (c Cap) Effective() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return true
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// Missing is a hint for a call that takes the capability in the thread's own user
// namespace, "" when the thread has it.
func (c Cap) Missing() string {
	if c.Effective() {
		return ""
	}
	return fmt.Sprintf("%v is missing", c)
}

// A Handle is a network namespace, as package netns has it.
type Handle interface {
	WithFd(use func(fd int) error) error
}

// MissingIn is a hint for a call that takes the capability in the user namespace that
// owns a network namespace, "" when the thread has it there.
func (c Cap) MissingIn(ns Handle) (hint string) {
	_ = ns.WithFd(func(fd int) error {
		hint = c.MissingOver(fd)
		return nil
	})
	return hint
}

// MissingOver is MissingIn for the descriptor of a network namespace.
func (c Cap) MissingOver(netns int) string { return c.over(netns, "network namespace") }

// MissingOverMounts is a hint for a call that takes the capability in the user
// namespace that owns the thread's mount namespace.
func (c Cap) MissingOverMounts() string {
	fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.Missing()
	}
	defer unix.Close(fd)
	return c.over(fd, "mount namespace")
}

func (c Cap) over(fd int, what string) string {
	user, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err == unix.EPERM { // ioctl_nsfs(2): neither the thread's own user namespace nor one below it
		return fmt.Sprintf("%v is missing in the user namespace that owns the %s, and this process is in another", c, what)
	}
	if err != nil { // a kernel without user namespaces
		return c.Missing()
	}
	defer unix.Close(user)
	var owner, own unix.Stat_t
	if unix.Fstat(user, &owner) != nil || unix.Stat("/proc/thread-self/ns/user", &own) != nil ||
		owner.Ino == own.Ino && owner.Dev == own.Dev || c.Effective() {
		return c.Missing()
	}
	return fmt.Sprintf("%v is missing in the user namespace that owns the %s, user:[%d]", c, what, owner.Ino)
}
