package netns

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// NS is an open handle on a network namespace. It is safe for concurrent use. The zero NS
// is not usable, and use after Close returns os.ErrClosed.
//
// A handle holds its namespace until it is closed. The garbage collector does not close it,
// in contrast to an os.File: the namespace would end while links still lead to it.
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

// Name returns the name of a named namespace, or "".
func (ns *NS) Name() string {
	if ns == nil {
		return ""
	}
	return ns.name
}

// Path returns where the namespace was opened or pinned, or "" for an unnamed one.
func (ns *NS) Path() string {
	if ns == nil {
		return ""
	}
	return ns.path
}

// ID returns the [ID] of the namespace.
func (ns *NS) ID() ID {
	if ns == nil {
		return ID{}
	}
	return ns.id
}

// String returns the namespace's name if that is in [DefaultDir], else its path, else its
// inode number in the kernel's form, "net:[4026531840]".
func (ns *NS) String() string {
	switch {
	case ns == nil:
		return "(none)"
	case ns.name != "" && ns.path == DefaultDir+"/"+ns.name:
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

// WithFd calls fn with the namespace's file descriptor, which stays open until fn returns.
// It is for setns(2), IFLA_NET_NS_FD and the like. The error is fn's, or os.ErrClosed for a
// closed and os.ErrInvalid for a nil handle.
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

// dup returns another handle on the namespace, without a name or path.
func (ns *NS) dup() (*NS, error) {
	var other *NS
	err := ns.WithFd(func(fd int) (err error) {
		other, err = openFd(fd)
		return err
	})
	return other, err
}

// Delete removes the namespace's name, as the function [Delete] does, and closes the
// handle. After an error the handle is open. For an unnamed namespace it is [NS.Close].
func (ns *NS) Delete(ctx context.Context) error {
	if ns.Name() == "" {
		return ns.Close()
	}
	if err := Dir(filepath.Dir(ns.path)).Delete(ctx, ns.name); err != nil {
		return err
	}
	return ns.Close()
}

// Close closes the handle and its netlink sockets. Sockets from Dial, Listen and the like
// stay open. The namespace lives on while anything else holds it. Closing twice is fine.
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
	held.remove(ns)
	for _, c := range conns {
		c.conn.Close()
	}
	ns.settings.close()
	if err := ns.file.Close(); err != nil {
		return &Error{Op: "netns.Close", NS: ns.String(), Err: err}
	}
	return nil
}
