package netns

import (
	"context"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/privilege"
)

func init() {
	nsconn.Register(nsconn.Opener{
		Shared: func(ns nsconn.NS, family int) (*nl.Conn, error) { return ns.(*NS).conn(family) },
		Own:    func(ns nsconn.NS, family int) (*nl.Conn, error) { return ns.(*NS).ownConn(family) },
		Open:   func(ctx context.Context, ns nsconn.NS, fn func()) error { return ns.(*NS).open(ctx, fn) },
	})
}

// familyConn is the connection of a netlink family.
type familyConn struct {
	family int
	conn   *nl.Conn
}

// conn returns the handle's connection of a family; see [nsconn.Shared].
func (ns *NS) conn(family int) (*nl.Conn, error) {
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
	c := ns.newConn(family)
	ns.conns = append(ns.conns, familyConn{family, c})
	return c, nil
}

// ownConn returns a connection that is the caller's alone; see [nsconn.Own].
func (ns *NS) ownConn(family int) (*nl.Conn, error) {
	if ns == nil || ns.file == nil {
		return nil, errNil
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil, os.ErrClosed
	}
	return ns.newConn(family), nil
}

// newConn returns a connection that opens its socket in the namespace and knows which
// capability a refused request lacks.
func (ns *NS) newConn(family int) *nl.Conn {
	c := nl.NewConn(family, func() (*os.File, error) { return ns.dialConn(family) })
	c.Lacks(func() string { return privilege.NetAdmin.MissingIn(ns) })
	return c
}

// dialConn opens a netlink socket in the namespace.
func (ns *NS) dialConn(family int) (f *os.File, err error) {
	err = onOurThread(ns, func() error {
		f, err = nl.Dial(family)
		return err
	})
	return f, err
}
