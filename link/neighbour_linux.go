package link

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// AddNeighbour gives the link neighbours, all in one send: either all of them,
// or none when one is refused. An address that the link has a neighbour for,
// even one not resolved yet, is os.ErrExist.
func (l Link) AddNeighbour(ctx context.Context, list ...Neighbour) error {
	b, err := l.neighBatch("link.AddNeighbour", list, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if err != nil || len(list) == 0 {
		return err
	}
	b.undo = func(i int) (nl.Request, bool) {
		m := neighMsg(l.Index, &list[i])
		return m.request(unix.RTM_DELNEIGH, 0), true
	}
	return b.allOrNone(ctx, nil)
}

// ReplaceNeighbour gives the link neighbours, or changes those that it has for
// the same address, pipelined. One that is refused does not keep the others from
// being made; the error names each that was not.
func (l Link) ReplaceNeighbour(ctx context.Context, list ...Neighbour) error {
	b, err := l.neighBatch("link.ReplaceNeighbour", list, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if err != nil || len(list) == 0 {
		return err
	}
	return b.each(ctx)
}

// DeleteNeighbour takes neighbours from the link, found by Addr and the flag
// NeighbourProxy; the other fields do not count. One that is not there is
// os.ErrNotExist and does not keep the others from going.
func (l Link) DeleteNeighbour(ctx context.Context, list ...Neighbour) error {
	b, err := l.neighBatch("link.DeleteNeighbour", list, unix.RTM_DELNEIGH, 0)
	if err != nil || len(list) == 0 {
		return err
	}
	return b.each(ctx)
}

// FlushNeighbours takes from the link every neighbour for which match returns
// true; with nil all but permanent ones and those that need no resolution. Proxy
// entries stay.
func (l Link) FlushNeighbours(ctx context.Context, match func(Neighbour) bool) error {
	const op = "link.FlushNeighbours"
	err := l.bound()
	var list []Neighbour
	if err == nil {
		list, err = neighbours(ctx, l.ns, NeighbourFilter{Link: l.Index})
	}
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	if match == nil {
		match = func(n Neighbour) bool { return n.State&(NeighbourPermanent|NeighbourNoARP) == 0 }
	}
	list = slices.DeleteFunc(list, func(n Neighbour) bool { return !match(n) })
	b, err := l.neighBatch(op, list, unix.RTM_DELNEIGH, 0)
	if err != nil {
		return err
	}
	b.goneIsFine = true
	return b.each(ctx)
}

// Neighbours reads the link's neighbours, proxy entries excepted.
func (l Link) Neighbours(ctx context.Context) ([]Neighbour, error) {
	err := l.bound()
	var list []Neighbour
	if err == nil {
		list, err = neighbours(ctx, l.ns, NeighbourFilter{Link: l.Index})
	}
	if err != nil {
		return nil, fail.New("link.Neighbours", l.ns, l.subject(), err)
	}
	return list, nil
}

// ListNeighbours reads the neighbours that the filter chooses, IPv4 first, in
// the kernel's order, which is none. Entries that come or go while it is read
// may or may not be in it; the others are, once: when one goes in between two of
// the kernel's replies (32 KiB each, some 400 entries), it is read again, up to 50
// times, and is [ErrInterrupted] then.
//
// The kernel keeps the neighbours of all namespaces in one hash table and tells
// nobody of the others', nor that the table was enlarged, which happens when the
// most neighbours that the machine ever had have doubled. Only if that comes
// between two replies can a long list lack an entry.
func ListNeighbours(ctx context.Context, ns *netns.NS, f NeighbourFilter) ([]Neighbour, error) {
	list, err := neighbours(ctx, ns, f)
	if err != nil {
		return nil, fail.New("link.ListNeighbours", ns, "neighbours", err)
	}
	return list, nil
}

func neighbours(ctx context.Context, ns *netns.NS, f NeighbourFilter) ([]Neighbour, error) {
	switch {
	case f.IPv4Only && f.IPv6Only:
		return nil, refuse.Input("IPv4Only and IPv6Only are both set")
	case checkIndex("Link", f.Link) != nil:
		return nil, checkIndex("Link", f.Link)
	case checkIndex("Master", f.Master) != nil:
		return nil, checkIndex("Master", f.Master)
	}
	conn, err := route(ns)
	if err != nil {
		return nil, err
	}
	var macs arena
	var m ndMsg
	all, twice, err := listWhole(ctx, conn, f.request(), func(msg nl.Message, n *Neighbour) (bool, error) {
		if msg.Type != unix.RTM_NEWNEIGH {
			return false, nil
		}
		if err := decodeND(&m, msg.Body); err != nil {
			return false, err
		}
		// Kernels pass over parts of the filter for one table or another.
		if !m.dst.IsValid() || f.Link != 0 && m.index != f.Link || f.Proxy != (m.flags&unix.NTF_PROXY != 0) ||
			f.States != 0 && m.state&uint16(f.States) == 0 || f.IPv4Only && m.dst.Is6() || f.IPv6Only && m.dst.Is4() {
			return false, nil
		}
		*n = m.neighbour(&macs)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if twice {
		type key struct {
			link int
			addr netip.Addr
		}
		all = once(all, func(n *Neighbour) key { return key{n.Link, n.Addr} })
	}
	return all, nil
}

// request asks for what the filter chooses. The family is in the header, the
// rest in attributes, which strict kernels (>= 4.20) check.
func (f *NeighbourFilter) request() nl.Request {
	m := ndMsg{via: f.Link, master: f.Master}
	switch {
	case f.IPv4Only:
		m.family = unix.AF_INET
	case f.IPv6Only:
		m.family = unix.AF_INET6
	}
	if f.Proxy {
		m.flags = unix.NTF_PROXY
		m.via, m.master = 0, 0 // refused together with it
	}
	return m.request(unix.RTM_GETNEIGH, 0)
}

// neighbour returns what the message tells; the hardware address is kept in macs.
func (m *ndMsg) neighbour(macs *arena) Neighbour {
	return Neighbour{
		Link: m.index, Addr: m.dst, MAC: macs.keep(m.mac), State: NeighbourState(m.state), Flags: NeighbourFlags(m.flags),
		Protocol: m.protocol, Confirmed: m.confirmed, Used: m.used, Updated: m.updated, Probes: int(m.probes),
	}
}

func neighMsg(index int, n *Neighbour) ndMsg {
	m := ndMsg{
		family: unix.AF_INET, index: index, state: uint16(n.State), flags: uint32(n.Flags &^ NeighbourOffloaded),
		dst: n.Addr, mac: n.MAC, protocol: n.Protocol,
	}
	if n.Addr.Is6() {
		m.family = unix.AF_INET6
	}
	if n.State == 0 && (n.MAC != nil || n.Flags&NeighbourProxy != 0) {
		m.state = uint16(NeighbourPermanent)
	}
	return m
}

func (l Link) neighBatch(op string, list []Neighbour, typ, flags uint16) (*batch, error) {
	err := l.bound()
	if err == nil && op != "link.FlushNeighbours" { // what was read is fine as it is
		err = checkNeighbours(list)
	}
	var conn *nl.Conn
	if err == nil {
		conn, err = route(l.ns)
	}
	if err != nil {
		return nil, fail.New(op, l.ns, l.subject(), err)
	}
	b := &batch{
		op: op, ns: l.ns, conn: conn, all: l.subject(), reqs: make([]nl.Request, len(list)),
		subject: func(i int) string { return fmt.Sprintf("neighbour %s on link %s", list[i], l.Name) },
		cause:   func(i int, e *nl.Error) error { return neighCause(&list[i], e) },
	}
	for i := range list {
		m := neighMsg(l.Index, &list[i])
		if typ == unix.RTM_DELNEIGH {
			m = ndMsg{family: m.family, index: m.index, dst: m.dst, flags: m.flags & unix.NTF_PROXY}
		}
		b.reqs[i] = m.request(typ, flags)
	}
	return b, nil
}

// neighCause puts into words what the errno alone leaves open.
func neighCause(n *Neighbour, e *nl.Error) error {
	switch e.Errno {
	case unix.EEXIST:
		return &causeError{text: "the link has an entry for this address already", err: e}
	case unix.ENOENT:
		return &causeError{text: "the link has no entry for this address", err: e}
	case unix.ENODEV, unix.ENXIO:
		return notExist("the link is gone", e)
	case unix.EAFNOSUPPORT:
		if n.Addr.Is6() {
			return &causeError{text: "the kernel has no IPv6 (module ipv6): " + e.Error(), err: e}
		}
	}
	return e
}
