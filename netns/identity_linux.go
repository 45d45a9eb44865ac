package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Cookie returns a number that the kernel gives to no other network namespace until the
// machine reboots (SO_NETNS_COOKIE, Linux 5.14; before that errors.ErrUnsupported). eBPF
// programs identify namespaces by it.
func (ns *NS) Cookie(ctx context.Context) (uint64, error) {
	cookie, err := ns.cookie(ctx)
	if errors.Is(err, unix.ENOPROTOOPT) {
		err = refuse.As(errors.ErrUnsupported, "%w: it came with Linux 5.14", err)
	}
	if err != nil {
		return 0, &Error{Op: "netns.Cookie", NS: ns.String(), Err: err}
	}
	return cookie, nil
}

func (ns *NS) cookie(ctx context.Context) (uint64, error) {
	var fd int
	var err error
	// A socket needs no privilege and no address.
	ierr := ns.open(ctx, func() { fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
	if err := errors.Join(ierr, os.NewSyscallError("socket", err)); err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie, os.NewSyscallError("getsockopt", err)
}

// Owner returns the user namespace that owns the namespace. An owner outside of the
// caller's own user namespace and its descendants is os.ErrPermission (ioctl_nsfs(2)).
func (ns *NS) Owner() (Owner, error) {
	var o Owner
	err := ns.withOwner(func(fd int) error {
		var err error
		if o.ID, err = statID(fd); err != nil {
			return err
		}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_OWNER_UID, uintptr(unsafe.Pointer(&o.UID)))
		if errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		return unix.Close(fd)
	})
	if err != nil {
		return Owner{}, &Error{Op: "netns.Owner", NS: ns.String(), Err: err}
	}
	return o, nil
}

// OpenOwner opens the user namespace that owns the namespace, so that a process can enter
// it (setns(2)). Errors are those of [NS.Owner].
func (ns *NS) OpenOwner() (*os.File, error) {
	var file *os.File
	err := ns.withOwner(func(fd int) error {
		file = os.NewFile(uintptr(fd), "user")
		return nil
	})
	if err != nil {
		return nil, &Error{Op: "netns.OpenOwner", NS: ns.String(), Err: err}
	}
	return file, nil
}

// withOwner hands use a descriptor of the owning user namespace, which is closed
// if use fails.
func (ns *NS) withOwner(use func(fd int) error) error {
	return ns.WithFd(func(fd int) error {
		user, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
		if err == unix.EPERM {
			return fmt.Errorf("it is neither this process's own user namespace nor one below it: %w", os.NewSyscallError("ioctl", err))
		}
		if err != nil {
			return os.NewSyscallError("ioctl", err)
		}
		if err := use(user); err != nil {
			unix.Close(user)
			return err
		}
		return nil
	})
}
