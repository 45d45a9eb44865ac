package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Move moves the link into another namespace and returns it as read there. o may
// give it a new name, MTU and hardware address. The other end of a pair stays. A
// link for another namespace is better made there in the first place (Spec.NS): for
// a move the kernel waits for all readers of the link.
//
//	eth, err := l.Move(ctx, web, link.MoveOptions{Name: "eth0", Up: true})
//
// The link goes down, leaves its master, and loses its addresses, routes,
// neighbours and limits (see [Link.SetRate]). If the kernel refuses a part after
// the move, Move brings the link back with what it had, except its limits and the
// routes that a program has made. Before Linux 5.13 it may come back with another
// index, which the error names.
//
// A name or index that is taken in the new namespace is os.ErrExist. The kernel
// refuses to move some links (EINVAL): lo, and a bridge before Linux 6.15, for
// example.
func (l Link) Move(ctx context.Context, to *netns.NS, o MoveOptions) (Link, error) {
	const op = "link.Move"
	m := move{link: l, to: to, o: o}
	err := m.prepare(ctx)
	if err == nil {
		ctx, err = changeContext(ctx)
	}
	if err == nil {
		err = m.run(ctx)
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
	lost     dependents
	moved    Link
}

// dependents are what a link loses when it moves.
type dependents struct {
	addrs      []Addr
	neighbours []Neighbour // set by the administrator, and proxies
	port       *portTables // nil where it is no port of a bridge
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
	if err := m.free(ctx); err != nil || m.o.Index == 0 || m.o.Index == m.before.Index {
		return err
	}
	return m.choosesIndex(ctx)
}

// choosesIndex refuses an index on a kernel that would ignore it. A kernel that has
// the attribute refuses 0 in it with ERANGE. An older one ignores the attribute.
func (m *move) choosesIndex(ctx context.Context) error {
	req := getLink("", m.before.Index)
	req.Body = nl.AppendU32(req.Body, unix.IFLA_NEW_IFINDEX, 0)
	err := m.from.Call(ctx, req, func(nl.Message) error { return nil })
	if _, e, ok := refused(err); err != nil && !ok || ok && e.Errno == unix.ENODEV {
		return err
	} else if ok && e.Errno == unix.ERANGE {
		return nil
	}
	return &causeError{text: fmt.Sprintf("the kernel does not take the index %d for a link that moves (Linux >= 5.13)", m.o.Index), is: errors.ErrUnsupported, err: unix.EOPNOTSUPP}
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

func (m *move) run(ctx context.Context) (err error) {
	if m.lost, err = readDependents(ctx, m.from, &m.before); err != nil {
		return err
	}
	// MTU and hardware address first: if the kernel refuses them here, nothing is lost.
	var left *MoveOptions
	if o := m.differs(); o != nil {
		err = m.from.Call(ctx, m.set(m.before.Index, o), nil)
		if _, e, ok := refused(err); ok && e.Errno == unix.EBUSY && m.before.Up {
			left, err = o, nil // a link that changes its address only while it is down
		}
	}
	if err == nil {
		err = m.send(ctx, left)
	}
	if err == nil {
		return nil
	}
	return m.back(context.WithoutCancel(ctx), err)
}

// differs returns the MTU and hardware address that the link does not have; nil is
// neither.
func (m *move) differs() *MoveOptions {
	o := MoveOptions{MTU: m.o.MTU, MAC: m.o.MAC}
	if o.MTU == m.before.MTU {
		o.MTU = 0
	}
	if bytes.Equal(o.MAC, m.before.MAC) {
		o.MAC = nil
	}
	if o.MTU == 0 && o.MAC == nil {
		return nil
	}
	return &o
}

// send moves the link, sets there what is left, and reads it.
func (m *move) send(ctx context.Context, left *MoveOptions) error {
	err := m.to.WithFd(func(fd int) error {
		return m.from.Call(ctx, m.message(m.before.Index, fd, m.o.Name, m.o.Index), nil)
	})
	if _, e, ok := refused(err); ok && m.before.Kind == "" {
		return &causeError{text: "the link belongs to hardware or to the kernel and may be bound to its namespace: " + e.Error(), err: e}
	}
	if err != nil {
		return err
	}
	if m.moved, err = read(ctx, m.to, m.at, m.o.Name, 0); err != nil {
		return err
	}
	if m.o.Index != 0 && m.moved.Index != m.o.Index {
		return &causeError{text: fmt.Sprintf("the kernel gave it index %d and not %d (Linux >= 5.13 takes the number)", m.moved.Index, m.o.Index), is: errors.ErrUnsupported, err: unix.EOPNOTSUPP}
	}
	if left != nil {
		if err := m.at.Call(ctx, m.set(m.moved.Index, left), nil); err != nil {
			return err
		}
	}
	if m.o.Up {
		if err := m.at.Call(ctx, setFlags(m.moved.Index, true), nil); err != nil {
			return err
		}
	}
	if left == nil && !m.o.Up {
		return nil
	}
	m.moved, err = read(ctx, m.to, m.at, "", m.moved.Index)
	return err
}

// message moves the link with the index into the namespace of the descriptor.
func (m *move) message(index, fd int, name string, newIndex int) nl.Request {
	b := appendIfInfo(make([]byte, 0, 80), index, 0, 0)
	b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, uint32(fd))
	b = nl.AppendString(b, unix.IFLA_IFNAME, name)
	if newIndex != 0 {
		b = nl.AppendU32(b, unix.IFLA_NEW_IFINDEX, uint32(newIndex))
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}
}

// set gives the link with the index an MTU and a hardware address.
func (m *move) set(index int, o *MoveOptions) nl.Request {
	b := appendIfInfo(make([]byte, 0, 80), index, 0, 0)
	if o.MTU != 0 {
		b = nl.AppendU32(b, unix.IFLA_MTU, uint32(o.MTU))
	}
	if o.MAC != nil {
		b = nl.AppendAttr(b, unix.IFLA_ADDRESS, o.MAC)
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}
}

// back brings the link back if it has moved, and makes it what it was.
func (m *move) back(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	now, rerr := read(ctx, m.link.ns, m.from, "", m.before.Index)
	if rerr == nil && now.MTU == m.before.MTU && bytes.Equal(now.MAC, m.before.MAC) {
		return err // nothing was changed
	}
	if errors.Is(rerr, os.ErrNotExist) {
		index := m.before.Index
		if rerr = m.fetch(ctx); rerr == nil && m.before.Index != index {
			err = fmt.Errorf("the link was brought back with index %d, and without its limits and the routes that others made: %w", m.before.Index, err)
		} else if rerr == nil {
			err = fmt.Errorf("the link was brought back without its limits and the routes that others made: %w", err)
		}
	}
	if rerr == nil {
		rerr = m.restore(ctx)
	}
	if rerr != nil {
		return errors.Join(err, fmt.Errorf("bringing the link back: %w", rerr))
	}
	return err
}

// fetch moves the link back, and finds the index that it has then: before Linux 5.13
// the kernel gives it its old one only if that was free in the other namespace, too.
func (m *move) fetch(ctx context.Context) error {
	for _, name := range []string{m.o.Name, m.before.Name} {
		l, err := read(ctx, m.to, m.at, name, 0)
		if err != nil || l.Kind != m.before.Kind || !bytes.Equal(l.MAC, m.before.MAC) && !bytes.Equal(l.MAC, m.o.MAC) {
			continue
		}
		err = m.link.ns.WithFd(func(fd int) error {
			return m.at.Call(ctx, m.message(l.Index, fd, m.before.Name, m.before.Index), nil)
		})
		if err == nil {
			l, err = read(ctx, m.link.ns, m.from, m.before.Name, 0)
			m.before.Index = l.Index
		}
		return err
	}
	return fmt.Errorf("the link is no longer in netns %s, nor found in netns %s", m.link.ns, m.to)
}

// restore makes the link what it was, in its old namespace.
func (m *move) restore(ctx context.Context) error {
	want := m.before.Spec
	want.Index = m.before.Index
	want.Kind, want.Port.State = nil, nil // it keeps the one, and the other follows from the rest
	// Before the rest: below an MTU of 1280 a link has no IPv6, nor settings of it.
	now, err := read(ctx, m.link.ns, m.from, "", m.before.Index)
	if err != nil {
		return err
	}
	o := MoveOptions{MTU: m.before.MTU}
	if !bytes.Equal(now.MAC, m.before.MAC) {
		o.MAC = m.before.MAC
	}
	if o.MAC != nil || now.MTU != o.MTU {
		if err := m.from.Call(ctx, m.set(m.before.Index, &o), nil); err != nil {
			return err
		}
	}
	a := update{ctx: ctx, op: "link.Move", ns: m.link.ns, conn: m.from, want: &want}
	err = a.read("", m.before.Index)
	if err == nil {
		err = a.change()
	}
	if err != nil {
		return err
	}
	return m.lost.restore(ctx, a.link, m.from)
}

func readDependents(ctx context.Context, conn *nl.Conn, d *Details) (b dependents, err error) {
	if b.addrs, err = readAddrs(ctx, conn, d.Index); err != nil {
		return b, err
	}
	if b.neighbours, err = neighbours(ctx, d.ns, NeighbourFilter{Link: d.Ref(), States: NeighbourPermanent}); err != nil {
		return b, err
	}
	proxies, err := neighbours(ctx, d.ns, NeighbourFilter{Link: d.Ref(), Proxy: true})
	if b.neighbours = append(b.neighbours, proxies...); err != nil {
		return b, err
	}
	if d.SlaveKind == "bridge" {
		b.port, err = readPortTables(ctx, conn, d.Link)
	}
	return b, err
}

// restore gives a link that has come back what it has lost, as far as it has.
func (b *dependents) restore(ctx context.Context, l Link, conn *nl.Conn) error {
	var reqs []nl.Request
	for i := range b.addrs {
		reqs = append(reqs, encodeAddr(l.Index, &b.addrs[i], editReplace))
	}
	for i := range b.neighbours {
		reqs = append(reqs, encodeNeighbour(l.Index, &b.neighbours[i], editReplace))
	}
	// A link that gets IPv6 again makes itself an address before it can be kept from it.
	now, err := readAddrs(ctx, conn, l.Index)
	for i := range now {
		a := &now[i]
		if a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast() && !slices.ContainsFunc(b.addrs, func(o Addr) bool { return o.same(a) }) {
			reqs = append(reqs, encodeAddr(l.Index, a, editDelete))
		}
	}
	if len(reqs) > 0 {
		err = errors.Join(err, conn.Exec(ctx, reqs, nil))
	}
	if b.port != nil {
		err = errors.Join(err, b.port.restore(ctx, l, conn))
	}
	return err
}
