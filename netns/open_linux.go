package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Current returns a handle on the network namespace of the calling thread: the program's
// own, or inside [Do] the one that Do has entered.
func Current() (*NS, error) {
	ns, err := openFile("/proc/thread-self/ns/net")
	if err != nil {
		return nil, &Error{Op: "netns.Current", Err: err}
	}
	ns.path = ""
	return ns, nil
}

// Open returns a handle on a named namespace that [Create] or `ip netns add` made. An
// unknown name is os.ErrNotExist, a name without a namespace [ErrNotNamespace].
func Open(ctx context.Context, name string) (*NS, error) { return Dir("").Open(ctx, name) }

// Open is the function [Open] for this directory.
func (d Dir) Open(ctx context.Context, name string) (*NS, error) {
	err := errors.Join(d.check(name), ctx.Err())
	var ns *NS
	if err == nil {
		ns, err = openFile(d.path(name))
	}
	if errors.Is(err, ErrNotNamespace) {
		err = explainName(ctx, d.path(name), err)
	}
	if err != nil {
		return nil, &Error{Op: "netns.Open", Subject: d.subject(name), Err: err}
	}
	ns.name = name
	return ns, nil
}

// OpenPath returns a handle on the namespace at path: a bind mount, or a file such as
// /proc/PID/ns/net. A path that is not a namespace is [ErrNotNamespace], and a namespace of
// another kind [ErrOtherKind]; the error says what it is instead. A missing path is
// os.ErrNotExist.
func OpenPath(ctx context.Context, path string) (*NS, error) {
	err := ctx.Err()
	if err == nil && path == "" {
		err = refuse.Input("the path is empty")
	}
	var ns *NS
	if err == nil {
		ns, err = openFile(path)
	}
	if err != nil {
		return nil, &Error{Op: "netns.OpenPath", Subject: strconv.Quote(path), Err: err}
	}
	return ns, nil
}

// OpenPid returns a handle on the network namespace that a process is in (/proc/PID/ns/net,
// proc(5)). A missing process is os.ErrNotExist, one that the caller may not inspect
// os.ErrPermission.
func OpenPid(ctx context.Context, pid int) (*NS, error) {
	return openTask(ctx, "netns.OpenPid", "process", pid)
}

// OpenTid returns a handle on the network namespace that a thread is in, which may differ
// from that of its process. Errors are those of [OpenPid].
func OpenTid(ctx context.Context, tid int) (*NS, error) {
	return openTask(ctx, "netns.OpenTid", "thread", tid)
}

// openTask serves both: /proc has the threads, too, though it does not list them.
func openTask(ctx context.Context, op, what string, id int) (*NS, error) {
	err := ctx.Err()
	if err == nil && id <= 0 {
		err = refuse.Input("the id is not positive")
	}
	var ns *NS
	if err == nil {
		ns, err = openFile(fmt.Sprintf("/proc/%d/ns/net", id))
	}
	if err != nil {
		return nil, &Error{Op: op, Subject: what + " " + strconv.Itoa(id), Err: err}
	}
	return ns, nil
}

// OpenPidfd returns a handle on the network namespace of the process that a descriptor of
// pidfd_open(2) or clone3(2) refers to. Unlike [OpenPid] it cannot open that of a later
// process with the same pid. The descriptor stays the caller's. A process that is gone is
// os.ErrNotExist, a descriptor of something else os.ErrInvalid.
func OpenPidfd(ctx context.Context, pidfd int) (*NS, error) {
	err := ctx.Err()
	var ns *NS
	if err == nil {
		ns, err = openPidfd(pidfd)
	}
	if err != nil {
		return nil, &Error{Op: "netns.OpenPidfd", Subject: "descriptor " + strconv.Itoa(pidfd), Err: err}
	}
	return ns, nil
}

func openPidfd(pidfd int) (*NS, error) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	ns, err := openFile(path)
	if err != nil {
		return nil, err
	}
	// What was opened is the process's if that is still there: its pid was not
	// another's in between.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err == unix.ESRCH {
		ns.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return ns, nil
}

// pidOf reads which process a pidfd stands for, or stood for.
func pidOf(pidfd int) (int, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", pidfd))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, unix.EBADF
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			switch {
			case err != nil:
				return 0, err
			case pid == -1:
				return 0, refuse.As(fs.ErrNotExist, "the process is gone")
			case pid == 0:
				return 0, refuse.As(fs.ErrNotExist, "the process is in another pid namespace")
			}
			return pid, nil
		}
	}
	return 0, refuse.Input("the descriptor is not a process's")
}

// OpenFd returns a handle on the namespace that a descriptor refers to. The handle has a
// duplicate; the descriptor stays the caller's. Errors are those of [OpenPath], and
// syscall.EBADF.
func OpenFd(fd int) (*NS, error) {
	ns, err := openFd(fd)
	if err != nil {
		return nil, &Error{Op: "netns.OpenFd", Subject: "descriptor " + strconv.Itoa(fd), Err: err}
	}
	return ns, nil
}

// Adopt returns a handle that takes over a descriptor of a namespace, such as one that was
// inherited or received through a unix socket. The descriptor belongs to the handle and
// gets the close-on-exec flag. After an error it is still the caller's. Errors are those of
// [OpenFd].
func Adopt(fd int) (*NS, error) {
	ns, err := openFd(fd) // a file of package os closes its descriptor in the end, so try on another
	if err != nil {
		return nil, &Error{Op: "netns.Adopt", Subject: "descriptor " + strconv.Itoa(fd), Err: err}
	}
	ns.file.Close()
	unix.CloseOnExec(fd)
	ns.file = os.NewFile(uintptr(fd), "net")
	return ns, nil
}

// OpenSocket returns a handle on the namespace that a socket was opened in, such as a
// *net.TCPConn or a *net.UnixListener. It takes CAP_NET_ADMIN in that namespace (else
// os.ErrPermission). A descriptor that is not a socket's is os.ErrInvalid.
func OpenSocket(c syscall.Conn) (*NS, error) {
	ns, err := openSocket(c)
	if err != nil {
		return nil, &Error{Op: "netns.OpenSocket", Err: err}
	}
	return ns, nil
}

func openSocket(c syscall.Conn) (*NS, error) {
	if c == nil {
		return nil, refuse.Input("no socket: it is nil")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ns *NS
	cerr := raw.Control(func(fd uintptr) { ns, err = socketNS(int(fd)) })
	if errors.Is(cerr, net.ErrClosed) {
		cerr = fmt.Errorf("%w: %w", os.ErrClosed, cerr)
	}
	return ns, errors.Join(cerr, err)
}

// socketNS opens the namespace of a socket.
func socketNS(fd int) (*NS, error) {
	nsfd, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	switch err {
	case nil:
		return newNSFd(nsfd)
	case unix.ENOTTY, unix.EINVAL:
		return nil, refuse.Input("the descriptor is not a socket's")
	case unix.EPERM:
		hint := privilege.NetAdmin.Missing()
		if hint == "" {
			hint = "CAP_NET_ADMIN is missing in the user namespace that owns the socket's network namespace"
		}
		return nil, privilege.Explain(os.NewSyscallError("ioctl", err), hint)
	}
	return nil, os.NewSyscallError("ioctl", err)
}
