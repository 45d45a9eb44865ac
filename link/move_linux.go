package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// SetMaster makes the link a port of the bridge, bond or VRF with the index, or
// with 0 of none. A master that is not there is os.ErrNotExist.
func (l Link) SetMaster(ctx context.Context, master int) error {
	const op = "link.SetMaster"
	err := l.bound()
	switch {
	case err != nil:
	case master < 0 || master > 1<<31-1:
		err = refuse.Input("master %d is not an index (1 to 2147483647, or 0 for none)", master)
	case master == l.Index:
		err = refuse.Input("the link is its own master (index %d)", master)
	default:
		b := nl.AppendU32(appendIfInfo(nil, l.Index, 0, 0), unix.IFLA_MASTER, uint32(master))
		err = l.call(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames})
	}
	if _, e, ok := refused(err); ok {
		if conn, cerr := route(l.ns); cerr == nil {
			c := creation{ctx: ctx}
			err = c.explainMaster(e, &end{ns: l.ns, conn: conn, spec: &Spec{Name: l.Name, Master: master}})
		}
	}
	return fail.New(op, l.ns, l.subject(), err)
}

// Move puts the link into another namespace, with a new name, MTU and hardware
// address if so wished, in one message, and returns it as it is there. The other
// end of a pair stays where it is. It takes the kernel some 20 ms: a link that is
// made for another namespace is better made there at once (Spec.NS).
//
// A link that is moved goes down, leaves its master, and loses its addresses,
// routes and neighbours. If the kernel refuses a part when the link has moved
// already, it is brought back, with master, name, MTU and hardware address, and up
// if it was.
//
// Errors: os.ErrExist when the name or the index is taken there; what cannot be
// moved (lo, a bridge before Linux 6.15 ...) is refused by the kernel.
func (l Link) Move(ctx context.Context, to *netns.NS, o MoveOptions) (Link, error) {
	const op = "link.Move"
	m := move{link: l, to: to, o: o}
	err := m.prepare(ctx)
	if err == nil {
		err = change(ctx, m.run)
	}
	if err != nil {
		return Link{}, fail.New(op, l.ns, l.subject(), err)
	}
	return m.moved, nil
}

// move is one call of Move.
type move struct {
	link     Link
	to       *netns.NS
	o        MoveOptions
	from, at *nl.Conn
	before   Details
	moved    Link
}

// prepare refuses bad input, and what would fail half-way.
func (m *move) prepare(ctx context.Context) (err error) {
	if err := m.link.bound(); err != nil {
		return err
	}
	s := Spec{Name: m.o.Name, Index: m.o.Index, MTU: m.o.MTU, MAC: m.o.MAC}
	if s.Name == "" {
		s.Name = m.link.Name
	}
	if err := s.checkCommon(); err != nil {
		return err
	}
	if m.to == nil {
		return refuse.Input("the namespace is nil")
	}
	if m.to.Equal(m.link.ns) {
		return refuse.Input("the link is in netns %s already", m.to)
	}
	if m.from, err = route(m.link.ns); err != nil {
		return err
	}
	if m.at, err = route(m.to); err != nil {
		return fmt.Errorf("the other namespace %s: %w", m.to, err)
	}
	if m.before, _, err = readDetails(ctx, m.link.ns, m.from, "", m.link.Index); err != nil {
		return err
	}
	if m.o.Name == "" {
		m.o.Name = m.before.Name
	}
	if d := &m.before; m.o.MTU != 0 && d.MaxMTU != 0 && (m.o.MTU > d.MaxMTU || m.o.MTU < d.MinMTU) {
		return refuse.Input("MTU %d is out of range of the link (%d to %d)", m.o.MTU, d.MinMTU, d.MaxMTU)
	}
	return m.free(ctx)
}

// free refuses a name or an index that is taken there.
func (m *move) free(ctx context.Context) error {
	l, err := read(ctx, m.to, m.at, m.o.Name, 0)
	if err == nil {
		return exist(os.ErrExist, "the name %s is taken in netns %s", m.o.Name, m.to)
	}
	if errors.Is(err, os.ErrNotExist) && m.o.Index != 0 {
		if l, err = read(ctx, m.to, m.at, "", m.o.Index); err == nil {
			return exist(os.ErrExist, "index %d is taken in netns %s, by link %s", m.o.Index, m.to, l.Name)
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (m *move) run(ctx context.Context) error {
	err := m.to.WithFd(func(fd int) error {
		return m.from.Call(ctx, m.message(m.before.Index, fd, &m.o, m.o.Index), nil)
	})
	if err == nil {
		m.moved, err = read(ctx, m.to, m.at, m.o.Name, 0)
		return err
	}
	return m.back(ctx, err)
}

// message moves the link with the index into the namespace of the descriptor.
func (m *move) message(index, fd int, o *MoveOptions, newIndex int) nl.Request {
	var flags uint32
	if o.Up {
		flags = unix.IFF_UP
	}
	b := appendIfInfo(make([]byte, 0, 80), index, flags, flags)
	b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, uint32(fd))
	b = nl.AppendString(b, unix.IFLA_IFNAME, o.Name)
	if o.MTU != 0 {
		b = nl.AppendU32(b, unix.IFLA_MTU, uint32(o.MTU))
	}
	if o.MAC != nil {
		b = nl.AppendAttr(b, unix.IFLA_ADDRESS, o.MAC)
	}
	if newIndex != 0 {
		b = nl.AppendU32(b, unix.IFLA_NEW_IFINDEX, uint32(newIndex))
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}
}

// back brings the link back when it has moved and the message failed after that.
func (m *move) back(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	if _, rerr := read(ctx, m.link.ns, m.from, "", m.before.Index); !errors.Is(rerr, os.ErrNotExist) {
		return err // it is still here
	}
	for _, name := range []string{m.o.Name, m.before.Name} {
		l, rerr := read(ctx, m.to, m.at, name, 0)
		if rerr != nil || l.Kind != m.before.Kind || !bytes.Equal(l.MAC, m.before.MAC) && !bytes.Equal(l.MAC, m.o.MAC) {
			continue
		}
		o := MoveOptions{Name: m.before.Name, MTU: m.before.MTU, MAC: m.before.MAC, Up: m.before.Up}
		uerr := m.link.ns.WithFd(func(fd int) error {
			return m.at.Call(ctx, m.message(l.Index, fd, &o, m.before.Index), nil)
		})
		if uerr == nil && m.before.Master != 0 {
			b := nl.AppendU32(appendIfInfo(nil, m.before.Index, 0, 0), unix.IFLA_MASTER, uint32(m.before.Master))
			uerr = m.from.Call(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}, nil)
		}
		if uerr != nil {
			return errors.Join(err, fmt.Errorf("bringing the link back: %w", uerr))
		}
		return fmt.Errorf("the link was brought back without its addresses and routes: %w", err)
	}
	return errors.Join(err, fmt.Errorf("the link is no longer in netns %s, nor found in netns %s", m.link.ns, m.to))
}
