package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NS is an open handle on a network namespace. It is safe for concurrent use.
// Close it when done; use after Close returns os.ErrClosed. The zero NS is not
// usable.
type NS struct {
	name string // of a named namespace, else ""
	path string // where it was opened, else ""
	id   ID
	file *os.File

	mu     sync.Mutex // guards the following fields
	closed bool
	conns  map[int]*nl.Conn // by netlink family

	settings settings // has a lock of its own
}

// Current returns a handle on the network namespace of the calling thread: the
// program's own, or that of the namespace inside [Do].
func Current() (*NS, error) {
	ns, err := openFile("/proc/thread-self/ns/net")
	if err != nil {
		return nil, &Error{Op: "netns.Current", Err: err}
	}
	ns.path = ""
	return ns, nil
}

// Open returns a handle on the named namespace, one that [Create] or
// `ip netns add` made. An unknown name is os.ErrNotExist.
func Open(ctx context.Context, name string) (*NS, error) {
	fail := func(err error) (*NS, error) {
		return nil, &Error{Op: "netns.Open", Subject: strconv.Quote(name), Err: err}
	}
	if err := errors.Join(checkName(name), ctx.Err()); err != nil {
		return fail(err)
	}
	ns, err := openFile(Dir + "/" + name)
	if errors.Is(err, errNoNamespace) {
		err = fmt.Errorf("%w (what a create that was cut off leaves; Delete removes it)", err)
	}
	if err != nil {
		return fail(err)
	}
	ns.name = name
	return ns, nil
}

// OpenPath returns a handle on the namespace at path: a bind mount, or a file
// such as /proc/PID/ns/net. A path that is no network namespace is
// os.ErrInvalid, and the error says what it is instead.
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

// OpenPid returns a handle on the network namespace that the process is in
// (/proc/PID/ns/net, proc(5)). A process that is gone is os.ErrNotExist; one
// that this process may not inspect is os.ErrPermission.
func OpenPid(ctx context.Context, pid int) (*NS, error) {
	err := ctx.Err()
	if err == nil && pid <= 0 {
		err = refuse.Input("the pid is not positive")
	}
	var ns *NS
	if err == nil {
		ns, err = openFile(fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	if err != nil {
		return nil, &Error{Op: "netns.OpenPid", Subject: "process " + strconv.Itoa(pid), Err: err}
	}
	return ns, nil
}

// Name returns the name of a named namespace, and "" for any other.
func (ns *NS) Name() string { return ns.name }

// Path returns where the namespace was opened or pinned, and "" for an unnamed
// one.
func (ns *NS) Path() string { return ns.path }

// ID returns what identifies the namespace while it exists; see [ID].
func (ns *NS) ID() ID { return ns.id }

// String names the namespace for messages: its name, its path, or its inode
// number as the kernel writes it, "net:[4026531840]".
func (ns *NS) String() string {
	switch {
	case ns == nil:
		return "(none)"
	case ns.name != "":
		return ns.name
	case ns.path != "":
		return ns.path
	}
	return fmt.Sprintf("net:[%d]", ns.id.Ino)
}

// Equal reports whether both are handles on the same namespace.
func (ns *NS) Equal(other *NS) bool {
	return ns != nil && other != nil && ns.id == other.id
}

// WithFd calls fn with the namespace's file descriptor, which stays open until
// fn returns. It is for setns(2), IFLA_NET_NS_FD and their like.
func (ns *NS) WithFd(fn func(fd int) error) error {
	if ns == nil || ns.file == nil {
		return errNil
	}
	raw, err := ns.file.SyscallConn()
	if err != nil {
		return os.ErrClosed
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = fn(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	return ferr
}

// Exchange returns the handle's shared netlink connection of a family
// (unix.NETLINK_ROUTE, ...), opened in the namespace when first asked for. It is
// how the packages of this module talk to the kernel; the type is internal. Other
// programs use [NS.DialNetlink].
func (ns *NS) Exchange(family int) (*nl.Conn, error) {
	if ns == nil || ns.file == nil {
		return nil, errNil
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil, os.ErrClosed
	}
	c := ns.conns[family]
	if c == nil {
		c = nl.NewConn(family, func() (*netlink.Conn, error) { return ns.dialExchange(family) })
		ns.setConn(family, c)
	}
	return c, nil
}

func (ns *NS) setConn(family int, c *nl.Conn) {
	if ns.conns == nil {
		ns.conns = make(map[int]*nl.Conn)
	}
	ns.conns[family] = c
}

// dialExchange opens a netlink socket in the namespace.
func (ns *NS) dialExchange(family int) (nc *netlink.Conn, err error) {
	err = onThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		nc, err = nl.Dial(family)
		return err
	})
	return nc, err
}

// Close closes the handle and the netlink connections that belong to it.
// Sockets from Dial, Listen and the like stay open. The namespace itself lives
// on while anything else holds it. Closing twice is fine.
func (ns *NS) Close() error {
	if ns == nil || ns.file == nil {
		return nil
	}
	ns.mu.Lock()
	closed, conns := ns.closed, ns.conns
	ns.closed, ns.conns = true, nil
	ns.mu.Unlock()
	if closed {
		return nil
	}
	for _, c := range conns {
		c.Close()
	}
	ns.settings.close()
	return ns.file.Close()
}

var errNil = refuse.Input("no namespace: the handle is nil")

var errNoNamespace = refuse.Input("this is a file, not a namespace")

// openFile opens a namespace file and checks that it is one, of the right kind.
func openFile(path string) (*NS, error) {
	// A namespace file is a regular one; opening anything else (a FIFO, a
	// device) could block or do something.
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, refuse.Input("this is a %s, not a namespace", kindOf(fi.Mode()))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ns, err := newNS(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	ns.path = path
	return ns, nil
}

func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// newNS makes a handle of an open namespace file, which it then owns.
func newNS(file *os.File) (*NS, error) {
	fd := int(file.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC {
		return nil, errNoNamespace
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE) // ioctl_ns(2)
	if err != nil {
		return nil, errNoNamespace
	}
	if kind != unix.CLONE_NEWNET {
		return nil, refuse.Input("this is a namespace of another kind (%#x), not a network namespace", kind)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return &NS{file: file, id: ID{Dev: uint64(st.Dev), Ino: st.Ino}}, nil
}
