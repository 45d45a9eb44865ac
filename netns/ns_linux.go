package netns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/boxwire/boxwire/internal/nl"
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
	conns  []familyConn

	settings settings // has a lock of its own
}

// familyConn is the connection of a netlink family.
type familyConn struct {
	family int
	conn   *nl.Conn
}

// Name returns the name of a named namespace, and "" for any other.
func (ns *NS) Name() string { return ns.name }

// Path returns where the namespace was opened or pinned, and "" for an unnamed
// one.
func (ns *NS) Path() string { return ns.path }

// ID returns what identifies the namespace while it exists; see [ID].
func (ns *NS) ID() ID { return ns.id }

// String names the namespace for messages: its name in [Dir], its path, or its
// inode number as the kernel writes it, "net:[4026531840]".
func (ns *NS) String() string {
	switch {
	case ns == nil:
		return "(none)"
	case ns.name != "" && ns.path == Dir+"/"+ns.name:
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
	for _, c := range ns.conns {
		if c.family == family {
			return c.conn, nil
		}
	}
	c := nl.NewConn(family, func() (*os.File, error) { return ns.dialExchange(family) })
	ns.conns = append(ns.conns, familyConn{family, c})
	return c, nil
}

// dialExchange opens a netlink socket in the namespace.
func (ns *NS) dialExchange(family int) (f *os.File, err error) {
	err = onOurThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		f, err = nl.Dial(family)
		return err
	})
	return f, err
}

// dup returns another handle on the namespace, without a name or path.
func (ns *NS) dup() (*NS, error) {
	var other *NS
	err := ns.WithFd(func(fd int) (err error) {
		other, err = openFd(fd)
		return err
	})
	return other, err
}

// Delete closes the handle and removes the namespace's name; see the function
// [Delete]. For an unnamed namespace it is the same as Close.
func (ns *NS) Delete(ctx context.Context) error {
	if ns.Name() == "" {
		return ns.Close()
	}
	if err := Folder(filepath.Dir(ns.path)).Delete(ctx, ns.name); err != nil {
		return err
	}
	return ns.Close()
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
		c.conn.Close()
	}
	ns.settings.close()
	return ns.file.Close()
}
