package nsconn

import (
	"context"
	"errors"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// NS is a handle on a network namespace: a *netns.NS, which may be nil.
type NS interface {
	WithFd(fn func(fd int) error) error
}

// Opener opens connections in a namespace. Package netns has the only one.
type Opener struct {
	Shared func(ns NS, family int) (*nl.Conn, error)
	Own    func(ns NS, family int) (*nl.Conn, error)

	// Open calls fn, which opens a socket, on a thread in the namespace.
	Open func(ctx context.Context, ns NS, fn func()) error
}

var opener Opener

// Register sets the opener. Package netns calls it when it is initialised.
func Register(o Opener) { opener = o }

// Shared returns the handle's own connection of a netlink family
// (unix.NETLINK_ROUTE, ...), which all callers share. The first call opens it, and
// the handle's Close closes it.
func Shared(ns NS, family int) (*nl.Conn, error) { return opener.Shared(ns, family) }

// Own returns a connection that belongs to the caller alone, for an exchange that
// takes long. The caller closes it.
func Own(ns NS, family int) (*nl.Conn, error) { return opener.Own(ns, family) }

// Open calls fn, which opens a socket, on a thread in the namespace.
func Open(ctx context.Context, ns NS, fn func()) error { return opener.Open(ctx, ns, fn) }

// Subscribe opens a socket in the namespace that receives the kernel's events of a
// netlink family. The caller closes it; it outlives the handle.
//
// It is a function of this package, and no field of Opener, so that only programs that
// follow events contain the packages that nl.Subscribe needs.
func Subscribe(ctx context.Context, ns NS, family int, cfg nl.EventConfig) (e *nl.Events, err error) {
	if oerr := opener.Open(ctx, ns, func() { e, err = nl.Subscribe(family, cfg) }); oerr != nil {
		return nil, oerr
	}
	if errors.Is(err, unix.EPERM) {
		lacks := privilege.NetAdmin // netfilter's groups
		if cfg.AllIDs {
			lacks = privilege.NetBroadcast
		}
		err = privilege.Explain(err, lacks.MissingIn(ns))
	}
	return e, err
}
