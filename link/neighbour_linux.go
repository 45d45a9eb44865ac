package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var neighbourTable = &table[Neighbour]{
	encode: encodeNeighbour, subject: neighbourSubject, cause: neighbourCause,
	list: func(ctx context.Context, l Link) ([]Neighbour, error) {
		return neighbours(ctx, l.ns, NeighbourFilter{Link: l.Ref()})
	},
	undo: func(index int, n, _ *Neighbour) []nl.Request {
		return []nl.Request{encodeNeighbour(index, n, editDelete)}
	},
}

// AddNeighbours adds neighbours to the link in one send: all of them or none. An
// address that has an entry, an unresolved one included, is os.ErrExist.
//
// A full table is ENOBUFS, and the error names the setting that bounds it:
// net.ipv4.neigh.default.gc_thresh3 or net.ipv6.neigh.default.gc_thresh3 of the
// initial namespace, 1024 by default. The neighbours of all namespaces count, save
// permanent ones and those with NeighbourExtLearned.
func (l Link) AddNeighbours(ctx context.Context, list ...Neighbour) error {
	b, err := neighbourTable.batch(l, "link.AddNeighbours", editAdd, list, checkNeighbours(list))
	if err != nil || len(list) == 0 {
		return err
	}
	if err := refuseProxies(ctx, b); err != nil {
		return err
	}
	return b.allOrNone(ctx)
}

// refuseProxies refuses proxy entries that exist: the kernel ignores NLM_F_EXCL for
// them.
func refuseProxies(ctx context.Context, b *batch[Neighbour]) error {
	if !slices.ContainsFunc(b.list, func(n Neighbour) bool { return n.Flags&NeighbourProxy != 0 }) {
		return nil
	}
	proxies, err := neighbours(ctx, b.link.ns, NeighbourFilter{Link: b.link.Ref(), Proxy: true})
	if err != nil {
		return b.fail(err)
	}
	there := make(map[netip.Addr]bool, len(proxies))
	for i := range proxies {
		there[proxies[i].Addr] = true
	}
	for i := range b.list {
		n := &b.list[i]
		if n.Flags&NeighbourProxy == 0 {
			continue
		}
		if there[n.Addr] {
			return b.failItem(n, exist(unix.EEXIST, "the link has an entry for this address already"))
		}
		there[n.Addr] = true
	}
	return nil
}

func neighbourSubject(n *Neighbour, link string) string {
	return fmt.Sprintf("neighbour %s on link %s", n, link)
}

// ReplaceNeighbours adds neighbours to the link, and changes the entries of the
// same addresses, in one send. If one is refused, the others are made all the same;
// the error names each that was not.
func (l Link) ReplaceNeighbours(ctx context.Context, list ...Neighbour) error {
	return neighbourTable.each(ctx, l, "link.ReplaceNeighbours", editReplace, list, checkNeighbours(list))
}

// DeleteNeighbours deletes neighbours of the link. Addr and the flag NeighbourProxy
// find an entry; other fields are ignored. One that is missing is os.ErrNotExist;
// the others are deleted all the same.
func (l Link) DeleteNeighbours(ctx context.Context, list ...Neighbour) error {
	return neighbourTable.each(ctx, l, "link.DeleteNeighbours", editDelete, list, checkNeighbours(list))
}

// FlushNeighbours deletes the neighbours of the link for which match returns true,
// with nil all but those in the states NeighbourPermanent and NeighbourNoARP. It
// keeps proxy entries.
func (l Link) FlushNeighbours(ctx context.Context, match func(Neighbour) bool) error {
	if match == nil {
		match = func(n Neighbour) bool { return n.State&(NeighbourPermanent|NeighbourNoARP) == 0 }
	}
	return neighbourTable.flush(ctx, l, "link.FlushNeighbours", match)
}

// Neighbours returns the link's neighbours without proxy entries.
func (l Link) Neighbours(ctx context.Context) ([]Neighbour, error) {
	return neighbourTable.read(ctx, l, "link.Neighbours")
}

// ListNeighbours returns the neighbours that the filter selects, IPv4 first,
// otherwise in no particular order. An entry that comes or goes during the read may
// be in the list or not. All others are in it once: if an entry is deleted between
// two of the kernel's replies (32 KiB each, some 400 entries), the list is read
// again. After 50 attempts the error is [ErrInterrupted].
//
// A long list may still lack an entry. The kernel keeps the neighbours of all
// namespaces in one hash table. It does not report the changes of other namespaces,
// nor that it has enlarged the table, which it does when the number of neighbours
// on the machine has doubled. Such a change between two replies goes unnoticed.
func ListNeighbours(ctx context.Context, ns *netns.NS, f NeighbourFilter) ([]Neighbour, error) {
	list, err := neighbours(ctx, ns, f)
	if err != nil {
		return nil, fail.New("link.ListNeighbours", ns, "neighbours", err)
	}
	return list, nil
}

func neighbours(ctx context.Context, ns *netns.NS, f NeighbourFilter) ([]Neighbour, error) {
	if f.Family != 0 && f.Family != netns.IPv4 && f.Family != netns.IPv6 {
		return nil, refuse.Input("%d is not a Family", uint8(f.Family))
	}
	if err := errors.Join(f.Link.resolve(ctx, "Link", ns), f.Master.resolve(ctx, "Master", ns)); err != nil {
		return nil, err
	}
	conn, err := route(ns)
	if err != nil {
		return nil, err
	}
	var macs arena
	var m ndMsg
	return listWhole(ctx, conn, f.request(), (*Neighbour).key, func(msg nl.Message, n *Neighbour) (bool, error) {
		if msg.Type != unix.RTM_NEWNEIGH {
			return false, nil
		}
		if err := decodeND(&m, msg.Body); err != nil {
			return false, err
		}
		// Kernels ignore parts of the filter in one table or another.
		if !m.dst.IsValid() || f.Link.Index != 0 && m.index != f.Link.Index || f.Proxy != (m.flags&unix.NTF_PROXY != 0) ||
			f.States != 0 && m.state&uint16(f.States) == 0 || f.Family == netns.IPv4 && m.dst.Is6() || f.Family == netns.IPv6 && m.dst.Is4() {
			return false, nil
		}
		*n = m.neighbour(&macs)
		return true, nil
	})
}

// neighKey identifies a neighbour within the namespace.
type neighKey struct {
	link int
	addr netip.Addr
}

func (n *Neighbour) key() neighKey { return neighKey{n.Link, n.Addr} }

// request asks for what the filter chooses. The family is in the header, the
// rest in attributes, which strict kernels (>= 4.20) check.
func (f *NeighbourFilter) request() nl.Request {
	m := ndMsg{via: f.Link.Index, master: f.Master.Index}
	switch f.Family {
	case netns.IPv4:
		m.family = unix.AF_INET
	case netns.IPv6:
		m.family = unix.AF_INET6
	}
	if f.Proxy {
		m.flags = unix.NTF_PROXY
		m.via, m.master = 0, 0 // refused together with it
	}
	return m.request(unix.RTM_GETNEIGH, 0)
}

// neighbour decodes the message; the hardware address is copied to macs.
func (m *ndMsg) neighbour(macs *arena) Neighbour {
	return Neighbour{
		Link: m.index, Addr: m.dst, MAC: macs.clone(m.mac), State: NeighbourState(m.state), Flags: NeighbourFlags(m.flags),
		Protocol: m.protocol, Confirmed: m.confirmed, Used: m.used, Updated: m.updated, Probes: int(m.probes),
	}
}

// encodeNeighbour builds the message that edits a neighbour; of one to be deleted only
// what finds it.
func encodeNeighbour(index int, n *Neighbour, how edit) nl.Request {
	m := ndMsg{family: unix.AF_INET, index: index, dst: n.Addr, flags: uint32(n.Flags & NeighbourProxy)}
	if n.Addr.Is6() {
		m.family = unix.AF_INET6
	}
	if how == editDelete {
		return m.edit(how)
	}
	m.state, m.flags, m.mac, m.protocol = uint16(n.State), uint32(n.Flags&^NeighbourOffloaded), n.MAC, n.Protocol
	if n.State == 0 && (n.MAC != nil || n.Flags&NeighbourProxy != 0) {
		m.state = uint16(NeighbourPermanent)
	}
	return m.edit(how)
}

// neighbourCause puts into words what the errno alone leaves open.
func neighbourCause(n *Neighbour, _ edit, e *nl.Error) error {
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
	case unix.ENOBUFS: // neigh_alloc
		if n.counts() {
			return &causeError{text: n.limit() + ": " + e.Error(), err: e}
		}
	}
	return e
}

// counts reports whether a new entry counts for the limit of its table.
func (n *Neighbour) counts() bool {
	permanent := n.State == NeighbourPermanent || n.State == 0 && n.MAC != nil
	return !permanent && n.Flags&(NeighbourProxy|NeighbourExtLearned) == 0
}

// limit says that the table of neighbours is full. The setting is one of the initial
// namespace, and its value is not known in others.
func (n *Neighbour) limit() string {
	name := "net.ipv4.neigh.default.gc_thresh3"
	if n.Addr.Is6() {
		name = "net.ipv6.neigh.default.gc_thresh3"
	}
	return limit.Setting(name) + ", and the neighbours of all namespaces count, save permanent ones and those with NeighbourExtLearned"
}
