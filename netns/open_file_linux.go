package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/origin"
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// openFile opens a namespace file and checks that it is one, of the right kind.
func openFile(path string) (*NS, error) {
	// A namespace file is a regular one; opening anything else (a FIFO, a
	// device) could block or do something.
	fi, err := os.Stat(path)
	if err != nil {
		return nil, explainLooking(err)
	}
	if !fi.Mode().IsRegular() {
		return nil, errNotA(kindOf(fi.Mode()))
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	ns, err := newNSFd(fd)
	if err != nil {
		return nil, err
	}
	ns.path = path
	return ns, nil
}

// explainLooking says what is missing to look at another process's namespaces.
func explainLooking(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Err == unix.EACCES && strings.HasPrefix(path.Path, "/proc/") {
		return privilege.Explain(err, hintLooking())
	}
	return err
}

// hintLooking names the capability that lets a process look into those of other users
// and those with more capabilities (ptrace(2), "Ptrace access mode checking").
func hintLooking() string {
	if hint := privilege.SysPtrace.Missing(); hint != "" {
		return hint
	}
	return "CAP_SYS_PTRACE is missing in the user namespace of the process that is looked into"
}

func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// nameOfKind names a kind of namespace by its clone flag.
func nameOfKind(flag int) string {
	switch flag {
	case unix.CLONE_NEWCGROUP:
		return "cgroup"
	case unix.CLONE_NEWIPC:
		return "ipc"
	case unix.CLONE_NEWNS:
		return "mount"
	case unix.CLONE_NEWPID:
		return "pid"
	case unix.CLONE_NEWTIME:
		return "time"
	case unix.CLONE_NEWUSER:
		return "user"
	case unix.CLONE_NEWUTS:
		return "uts"
	}
	return fmt.Sprintf("%#x", flag)
}

// openFd makes a handle of a duplicate of a descriptor.
func openFd(fd int) (*NS, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newNSFd(dup)
}

// newNSFd makes a handle of a descriptor. It closes the descriptor if that is not of a
// network namespace.
func newNSFd(fd int) (*NS, error) {
	id, err := identify(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return handleOf(fd, id), nil
}

func handleOf(fd int, id ID) *NS {
	origin.Note(fd)
	ns := &NS{file: os.NewFile(uintptr(fd), "net"), id: id}
	held.add(ns)
	return ns
}

// identify returns which network namespace a descriptor refers to. Any other file or
// namespace is an error.
func identify(fd int) (ID, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return ID{}, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC {
		return ID{}, errNotA("file")
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE) // ioctl_nsfs(2)
	switch {
	case err != nil && fs.Type == unix.NSFS_MAGIC:
		return identifyByName(fd, os.NewSyscallError("ioctl", err))
	case err != nil:
		return ID{}, errNotA("file")
	case kind != unix.CLONE_NEWNET:
		return ID{}, errOther(nameOfKind(kind))
	}
	return statID(fd)
}

func errOther(kind string) error {
	return fmt.Errorf("this is a %s namespace: %w", kind, ErrOtherKind)
}

// identifyByName is identify where the kernel cannot be asked, as an emulator of
// another processor does not pass the question on (qemu-user). The name of what is
// open says it, unless it was opened through a bind mount: then it is the mount's path.
func identifyByName(fd int, why error) (ID, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
	if err != nil {
		return ID{}, err
	}
	kind, _, ok := strings.Cut(name, ":[")
	switch {
	case !ok || strings.HasPrefix(name, "/"):
		return ID{}, refuse.As(errors.ErrUnsupported, "this is a namespace, and its kind cannot be asked for here (is this qemu-user?): %w", why)
	case kind != "net":
		return ID{}, errOther(kind)
	}
	return statID(fd)
}

func statID(fd int) (ID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, os.NewSyscallError("fstat", err)
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// note remembers where the handle was opened, if a leak check has asked for it: in
// the calling goroutine, not in that of the thread.
func (ns *NS) note() {
	origin.Note(int(ns.file.Fd()))
}
