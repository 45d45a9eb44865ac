package link

import (
	"bytes"
	"context"
	"errors"
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

var fdbTable = &table[FDBEntry]{
	encode: encodeFDB, subject: fdbSubject, cause: fdbCause,
	list: func(ctx context.Context, l Link) ([]FDBEntry, error) {
		return listFDB(ctx, l.ns, FDBFilter{Link: l.Ref()})
	},
	undo: func(index int, e, _ *FDBEntry) []nl.Request {
		return []nl.Request{encodeFDB(index, e, editDelete)}
	},
}

// AddFDBEntries adds entries for the link, a bridge port or a VXLAN, in one send:
// all of them or none. An address that has an entry there, a learned one included,
// is os.ErrExist. One more than VXLAN.MaxAddresses is ENOSPC; Bridge.MaxLearned bounds
// learned entries alone.
func (l Link) AddFDBEntries(ctx context.Context, list ...FDBEntry) error {
	b, err := fdbTable.batch(l, "link.AddFDBEntries", editAdd, list, checkFDB(list))
	if err != nil || len(list) == 0 {
		return err
	}
	return addFDB(ctx, b)
}

func addFDB(ctx context.Context, b *batch[FDBEntry]) error {
	s, err := spreadFDB(ctx, b)
	if err != nil {
		return err
	}
	if s != nil {
		b.rest = s.undo
	}
	return b.allOrNone(ctx)
}

// spread is for entries without a VLAN on a port that has VLANs. The kernel makes such
// an entry without a VLAN and then in each VLAN of the port, and leaves the first ones
// where it cannot make a later one.
type spread struct {
	link  Link
	macs  map[string]bool // of the entries
	vlans map[uint16]bool // that the kernel makes them in; 0 is without
}

// spreadFDB refuses entries that the kernel would make in part. It returns nil where
// the kernel makes one entry for each of the list.
func spreadFDB(ctx context.Context, b *batch[FDBEntry]) (*spread, error) {
	l, list := b.link, b.list
	s := &spread{link: l, macs: map[string]bool{}, vlans: map[uint16]bool{0: true}}
	for i := range list {
		if e := &list[i]; !e.Self && e.VLAN == 0 {
			s.macs[string(e.MAC)] = true
		}
	}
	if len(s.macs) == 0 {
		return nil, nil
	}
	vlans, err := readVLANs(ctx, b.conn, l.Index)
	if err != nil || len(vlans) == 0 {
		return nil, b.fail(ctx.Err()) // no VLANs, no port, or no link: the kernel says so
	}
	for _, v := range vlans {
		for id := v.ID; id <= v.last(); id++ {
			s.vlans[id] = true
		}
	}
	now, err := read(ctx, l.ns, b.conn, "", l.Index)
	if err != nil {
		return nil, b.fail(err)
	}
	if now.Master == 0 {
		return nil, nil // a bridge has VLANs of its own, and is no port
	}
	have, err := s.read(ctx, FDBFilter{Bridge: Ref{Index: now.Master}})
	if err != nil {
		return nil, b.fail(err)
	}
	if len(have) > 0 {
		asked := slices.IndexFunc(list, func(e FDBEntry) bool { return !e.Self && e.VLAN == 0 && bytes.Equal(e.MAC, have[0].MAC) })
		return nil, b.failItem(&list[asked], exist(unix.EEXIST, "there is an entry for this address already"))
	}
	return s, nil
}

// read lists the entries for the addresses in these VLANs.
func (s *spread) read(ctx context.Context, f FDBFilter) ([]FDBEntry, error) {
	list, err := listFDB(ctx, s.link.ns, f)
	return slices.DeleteFunc(list, func(e FDBEntry) bool { return e.Self || !s.macs[string(e.MAC)] || !s.vlans[e.VLAN] }), err
}

// undo deletes what is there of entries that were refused: there was nothing. What
// was learned meanwhile is not of the call.
func (s *spread) undo(ctx context.Context) (reqs []nl.Request, err error) {
	now, err := s.read(ctx, FDBFilter{Link: s.link.Ref()})
	for i := range now {
		if e := &now[i]; e.Type != FDBDynamic {
			reqs = append(reqs, encodeFDB(s.link.Index, e, editDelete))
		}
	}
	return reqs, err
}

// AppendFDBEntries adds destinations to entries of a VXLAN, all of them or none.
// The VXLAN sends a frame to all destinations of an entry. Only a group and the
// all-zero address may have several. A second destination for another address is
// os.ErrExist, and so is one that the entry has.
func (l Link) AppendFDBEntries(ctx context.Context, list ...FDBEntry) error {
	b, err := fdbTable.batch(l, "link.AppendFDBEntries", editAdd, list, checkFDB(list))
	if err != nil || len(list) == 0 {
		return err
	}
	now, err := l.details(ctx)
	var have []FDBEntry
	if k, ok := now.Spec.Kind.(VXLAN); ok && err == nil {
		have, err = listFDB(ctx, l.ns, FDBFilter{Link: l.Ref()})
		for i := range list {
			e := &list[i]
			if err != nil || !e.Self {
				continue
			}
			// The kernel would take it and do nothing.
			for j := range have {
				if h := &have[j]; h.Self && bytes.Equal(h.MAC, e.MAC) {
					if clash := k.clash(h, e); clash != nil {
						return b.failItem(e, clash)
					}
				}
			}
			have = append(have, *e)
			b.reqs[i] = encodeFDB(l.Index, e, editAppend)
		}
	}
	if err != nil {
		return b.fail(err)
	}
	return addFDB(ctx, b)
}

// clash says why an entry for the same address keeps another from being appended.
func (k *VXLAN) clash(have, want *FDBEntry) error {
	if k.External && have.SrcVNI != want.SrcVNI {
		return nil
	}
	if k.sends(have) == k.sends(want) {
		return exist(unix.EEXIST, "the entry has this destination already")
	}
	if want.MAC[0]&1 == 0 && !bytes.Equal(want.MAC, make([]byte, 6)) {
		return exist(unix.EEXIST, "there is an entry for this address already, to %s: only groups and the all-zero address may have several destinations", have.Dst)
	}
	return nil
}

// sends is where an entry leads to, with the VXLAN's own values left out as the kernel
// leaves them out.
func (k *VXLAN) sends(e *FDBEntry) fdbKey {
	to := fdbKey{dst: e.Dst, port: e.Port, vni: e.VNI, via: e.Via, group: e.NextHop}
	if to.port == k.Port {
		to.port = 0
	}
	if k.ID != nil && to.vni == *k.ID {
		to.vni = 0
	}
	return to
}

// ReplaceFDBEntries adds entries for the link, and changes those of the same
// addresses, in one send. An address behind another port of the bridge moves to
// this one. If one is refused, the others are made all the same; the error names
// each that was not.
func (l Link) ReplaceFDBEntries(ctx context.Context, list ...FDBEntry) error {
	return fdbTable.each(ctx, l, "link.ReplaceFDBEntries", editReplace, list, checkFDB(list))
}

// DeleteFDBEntries deletes entries from the link's own table if Self is set,
// otherwise from that of its bridge. MAC, VLAN and a VXLAN's destination find an
// entry; other fields are ignored. One that is missing is os.ErrNotExist; the
// others are deleted all the same.
func (l Link) DeleteFDBEntries(ctx context.Context, list ...FDBEntry) error {
	return fdbTable.each(ctx, l, "link.DeleteFDBEntries", editDelete, list, checkFDB(list))
}

// FlushFDB deletes the entries of the link for which match returns true, with nil
// the learned ones.
func (l Link) FlushFDB(ctx context.Context, match func(FDBEntry) bool) error {
	if match == nil {
		match = func(e FDBEntry) bool { return e.Type == FDBDynamic && e.Flags&FDBExtLearned == 0 }
	}
	return fdbTable.flush(ctx, l, "link.FlushFDB", match)
}

// ListFDB returns the entries of forwarding databases that the filter selects, in
// no particular order. A VXLAN's entry with several destinations is in it once for
// each. An entry that comes or goes during the read may be in the list or not. All
// others are in it once: if an entry is deleted between two of the kernel's
// replies, the list is read again. After 50 attempts the error is [ErrInterrupted].
func ListFDB(ctx context.Context, ns *netns.NS, f FDBFilter) ([]FDBEntry, error) {
	list, err := listFDB(ctx, ns, f)
	if err != nil {
		return nil, fail.New("link.ListFDB", ns, "forwarding database", err)
	}
	return list, nil
}

func listFDB(ctx context.Context, ns *netns.NS, f FDBFilter) ([]FDBEntry, error) {
	if err := errors.Join(f.Link.resolve(ctx, "Link", ns), f.Bridge.resolve(ctx, "Bridge", ns)); err != nil {
		return nil, err
	}
	if f.Link.Index != 0 && f.Bridge.Index != 0 {
		return nil, refuse.Input("the filter names a link and a bridge")
	}
	conn, err := route(ns)
	if err != nil {
		return nil, err
	}
	ask := ndMsg{family: unix.AF_BRIDGE, index: f.Link.Index, master: f.Bridge.Index}
	var macs arena
	var m ndMsg
	return listWhole(ctx, conn, ask.request(unix.RTM_GETNEIGH, 0), (*FDBEntry).key, func(msg nl.Message, e *FDBEntry) (bool, error) {
		if msg.Type != unix.RTM_NEWNEIGH {
			return false, nil
		}
		if err := decodeND(&m, msg.Body); err != nil {
			return false, err
		}
		if m.family != unix.AF_BRIDGE || f.Link.Index != 0 && m.index != f.Link.Index {
			return false, nil
		}
		*e = m.fdbEntry(&macs)
		return true, nil
	})
}

// fdbKey identifies an entry.
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

// fdbEntry decodes the message; the hardware address is copied to macs.
// The kernel gives the master of an entry in a bridge's table, and NTF_SELF
// with one in a link's own.
func (m *ndMsg) fdbEntry(macs *arena) FDBEntry {
	e := FDBEntry{
		Link: m.index, MAC: macs.clone(m.mac), VLAN: m.vlan, Self: m.flags&ntfSelf != 0,
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

// encodeFDB builds the message about an entry; of one to be deleted only what finds it.
func encodeFDB(index int, e *FDBEntry, how edit) nl.Request {
	m := ndMsg{
		family: unix.AF_BRIDGE, index: index, flags: ntfMaster, mac: e.MAC, vlan: e.VLAN,
		dst: e.Dst, port: e.Port, vni: e.VNI, srcVNI: e.SrcVNI, via: e.Via, nextHop: e.NextHop,
	}
	if e.Self {
		m.flags = ntfSelf
	}
	if how == editDelete {
		m.state = unix.NUD_PERMANENT // asked for by links without a table of their own
		return m.edit(how)
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
	return m.edit(how)
}

func fdbSubject(e *FDBEntry, link string) string { return fmt.Sprintf("entry %s of link %s", e, link) }

// fdbCause puts into words what the errno alone leaves open.
func fdbCause(e *FDBEntry, how edit, err *nl.Error) error {
	switch err.Errno {
	case unix.EEXIST:
		return &causeError{text: "there is an entry for this address already", err: err}
	case unix.ENOENT:
		return &causeError{text: "there is no entry for this address", err: err}
	case unix.ENODEV:
		return notExist("the link is gone", err)
	case unix.EPERM:
		if err.Hint != "" {
			return err
		}
		if how == editDelete {
			return &causeError{text: "in a user namespace this needs Linux 6.18, or a stable release since the end of 2025: " + err.Error(), err: err}
		}
		if !e.Self && e.Type == FDBDynamic {
			return &causeError{text: "a port that is neither learning nor forwarding takes no dynamic entries: " + err.Error(), err: err}
		}
	case unix.ENOSPC: // vxlan_fdb_create
		if e.Self {
			return &causeError{text: "the VXLAN has as many entries, the learned ones included, as VXLAN.MaxAddresses allows: " + err.Error(), err: err}
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
