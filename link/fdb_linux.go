package link

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// AddFDB makes entries for the link, a port or a VXLAN, all in one send: either
// all of them, or none when one is refused. An address that has an entry there
// is os.ErrExist; a learned one counts.
func (l Link) AddFDB(ctx context.Context, list ...FDBEntry) error {
	return l.addFDB(ctx, "link.AddFDB", list, unix.NLM_F_EXCL)
}

// AppendFDB adds destinations to the entries of a VXLAN, which sends a frame to
// all of them, and otherwise does what AddFDB does. Only entries for groups and
// for the all-zero address may have several.
func (l Link) AppendFDB(ctx context.Context, list ...FDBEntry) error {
	return l.addFDB(ctx, "link.AppendFDB", list, unix.NLM_F_APPEND)
}

func (l Link) addFDB(ctx context.Context, op string, list []FDBEntry, how uint16) error {
	b, err := l.fdbBatch(op, list, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|how)
	if err != nil || len(list) == 0 {
		return err
	}
	b.undo = func(i int) (nl.Request, bool) {
		m := fdbMsg(l.Index, &list[i], true)
		return m.request(unix.RTM_DELNEIGH, 0), true
	}
	return b.allOrNone(ctx, nil)
}

// ReplaceFDB makes entries for the link, or changes those that are there for
// the same address, pipelined; an address behind another port of the bridge
// moves here. One that is refused does not keep the others from being made; the
// error names each that was not.
func (l Link) ReplaceFDB(ctx context.Context, list ...FDBEntry) error {
	b, err := l.fdbBatch("link.ReplaceFDB", list, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if err != nil || len(list) == 0 {
		return err
	}
	return b.each(ctx)
}

// DeleteFDB takes entries from the link's table, or with Self unset from that of
// the bridge. MAC, VLAN and a VXLAN's destination find the entry; the other
// fields do not count. One that is not there is os.ErrNotExist and does not keep
// the others from going.
func (l Link) DeleteFDB(ctx context.Context, list ...FDBEntry) error {
	b, err := l.fdbBatch("link.DeleteFDB", list, unix.RTM_DELNEIGH, 0)
	if err != nil || len(list) == 0 {
		return err
	}
	return b.each(ctx)
}

// FlushFDB deletes those of the link's entries for which match returns true;
// with nil those that were learned.
func (l Link) FlushFDB(ctx context.Context, match func(FDBEntry) bool) error {
	const op = "link.FlushFDB"
	err := l.bound()
	var list []FDBEntry
	if err == nil {
		list, err = listFDB(ctx, l.ns, FDBFilter{Link: l.Index})
	}
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	if match == nil {
		match = func(e FDBEntry) bool { return e.Type == FDBDynamic && e.Flags&FDBExtLearned == 0 }
	}
	list = slices.DeleteFunc(list, func(e FDBEntry) bool { return !match(e) })
	b, err := l.fdbBatch(op, list, unix.RTM_DELNEIGH, 0)
	if err != nil {
		return err
	}
	b.goneIsFine = true
	return b.each(ctx)
}

// ListFDB reads the forwarding databases of the namespace, as the filter
// chooses, in the kernel's order, which is none. Entries that are learned or
// that age while it is read may or may not be in it; the others are, once: when
// one goes in between two of the kernel's replies, the list is read again, up to
// 50 times, and is [ErrInterrupted] then. A VXLAN's entry with several
// destinations comes once for each.
func ListFDB(ctx context.Context, ns *netns.NS, f FDBFilter) ([]FDBEntry, error) {
	list, err := listFDB(ctx, ns, f)
	if err != nil {
		return nil, fail.New("link.ListFDB", ns, "forwarding database", err)
	}
	return list, nil
}

func listFDB(ctx context.Context, ns *netns.NS, f FDBFilter) ([]FDBEntry, error) {
	for what, index := range map[string]int{"Link": f.Link, "Bridge": f.Bridge} {
		if err := checkIndex(what, index); err != nil {
			return nil, err
		}
	}
	if f.Link != 0 && f.Bridge != 0 {
		return nil, refuse.Input("the filter names a link and a bridge")
	}
	conn, err := route(ns)
	if err != nil {
		return nil, err
	}
	ask := ndMsg{family: unix.AF_BRIDGE, index: f.Link, master: f.Bridge}
	var macs arena
	var m ndMsg
	all, twice, err := listWhole(ctx, conn, ask.request(unix.RTM_GETNEIGH, 0), func(msg nl.Message, e *FDBEntry) (bool, error) {
		if msg.Type != unix.RTM_NEWNEIGH {
			return false, nil
		}
		if err := decodeND(&m, msg.Body); err != nil {
			return false, err
		}
		if m.family != unix.AF_BRIDGE || f.Link != 0 && m.index != f.Link {
			return false, nil
		}
		*e = m.fdbEntry(&macs)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if twice {
		all = once(all, (*FDBEntry).key)
	}
	return all, nil
}

// fdbKey is what tells an entry of a table from the others.
type fdbKey struct {
	mac                string
	link, via          int
	vlan, port         uint16
	self               bool
	dst                netip.Addr
	vni, srcVNI, group uint32
}

func (e *FDBEntry) key() fdbKey {
	return fdbKey{string(e.MAC), e.Link, e.Via, e.VLAN, e.Port, e.Self, e.Dst, e.VNI, e.SrcVNI, e.NextHop}
}

// fdbEntry returns what the message tells; the hardware address is kept in macs.
// The kernel gives the master of an entry in a bridge's table, and NTF_SELF
// with one in a link's own.
func (m *ndMsg) fdbEntry(macs *arena) FDBEntry {
	e := FDBEntry{
		Link: m.index, MAC: macs.keep(m.mac), VLAN: m.vlan, Self: m.flags&ntfSelf != 0,
		Flags: FDBFlags(m.flags &^ (ntfSelf | ntfMaster)),
		Dst:   m.dst, Port: m.port, VNI: m.vni, SrcVNI: m.srcVNI, Via: m.via, NextHop: m.nextHop, Master: m.master,
		Used: m.used, Updated: m.updated,
	}
	switch {
	case m.state&unix.NUD_PERMANENT != 0:
		e.Type = FDBLocal
	case m.state&unix.NUD_NOARP == 0:
		e.Type = FDBDynamic
	}
	return e
}

// fdbMsg builds the message of an entry; of one to be deleted only what finds it.
func fdbMsg(index int, e *FDBEntry, key bool) ndMsg {
	m := ndMsg{
		family: unix.AF_BRIDGE, index: index, flags: ntfMaster, mac: e.MAC, vlan: e.VLAN,
		dst: e.Dst, port: e.Port, vni: e.VNI, srcVNI: e.SrcVNI, via: e.Via, nextHop: e.NextHop,
	}
	if e.Self {
		m.flags = ntfSelf
	}
	if key {
		m.state = unix.NUD_PERMANENT // asked for by links without a table of their own
		return m
	}
	m.flags |= uint32(e.Flags &^ (FDBOffloaded | FDBLocked))
	switch e.Type {
	case FDBStatic:
		m.state = unix.NUD_NOARP | unix.NUD_REACHABLE // a VXLAN wants the second bit
	case FDBDynamic:
		m.state = unix.NUD_REACHABLE
	case FDBLocal:
		m.state = unix.NUD_PERMANENT
	}
	return m
}

func (l Link) fdbBatch(op string, list []FDBEntry, typ, flags uint16) (*batch, error) {
	err := l.bound()
	if err == nil && op != "link.FlushFDB" { // what was read is fine as it is
		err = checkFDB(list)
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
		subject: func(i int) string { return fmt.Sprintf("entry %s of link %s", list[i], l.Name) },
		cause:   func(i int, e *nl.Error) error { return fdbCause(&list[i], e, typ) },
	}
	for i := range list {
		m := fdbMsg(l.Index, &list[i], typ == unix.RTM_DELNEIGH)
		b.reqs[i] = m.request(typ, flags)
	}
	return b, nil
}

// fdbCause puts into words what the errno alone leaves open.
func fdbCause(e *FDBEntry, err *nl.Error, typ uint16) error {
	switch err.Errno {
	case unix.EEXIST:
		return &causeError{text: "there is an entry for this address already", err: err}
	case unix.ENOENT:
		return &causeError{text: "there is no entry for this address", err: err}
	case unix.ENODEV:
		return notExist("the link is gone", err)
	case unix.EPERM:
		if typ == unix.RTM_DELNEIGH {
			return &causeError{text: "in a user namespace this needs Linux 6.18, or a stable release since the end of 2025: " + err.Error(), err: err}
		}
		if !e.Self && e.Type == FDBDynamic {
			return &causeError{text: "a port that is neither learning nor forwarding takes no dynamic entries: " + err.Error(), err: err}
		}
	case unix.EOPNOTSUPP:
		if !e.Self {
			return &causeError{text: "the link is not the port of a bridge; for a table of its own set Self: " + err.Error(), err: err}
		}
	case unix.EINVAL:
		if e.VLAN != 0 && !e.Self && !strings.Contains(err.Msg, "ddress") {
			return &causeError{text: fmt.Sprintf("VLAN %d is not one of the port's, or the bridge does not filter VLANs: %v", e.VLAN, err), err: err}
		}
	}
	return err
}
