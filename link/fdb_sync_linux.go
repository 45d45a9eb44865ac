package link

import (
	"context"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// SyncFDB makes the static entries of a bridge port or a VXLAN exactly those given,
// in the bridge's table and in a VXLAN's own: all of it or nothing. It sends only the
// difference, and may be repeated. With an error the Changes are zero.
//
// An entry does not say which program has made it, so a link's entries are one
// program's. SyncFDB deletes each one that does not age, save what the kernel makes
// itself: the local entries of a bridge's table and, in a VXLAN's, that of
// VXLAN.Remote. It keeps learned entries, and those with FDBExtLearned, which a
// routing daemon manages.
//
// The entries given are of the type FDBStatic or, in a VXLAN's own table, where it is
// the same, FDBLocal. One without a VLAN is there in each VLAN of the port. An all-zero
// address and a group may have several destinations (see [Link.AppendFDBEntries]). A
// learned entry for an address that is given is replaced, also one of another port of
// the bridge. An entry for it with FDBExtLearned, a local one, or a static one of
// another port is os.ErrExist.
func (l Link) SyncFDB(ctx context.Context, list ...FDBEntry) (Changes, error) {
	s, err := newSyncer(fdbTable, l, "link.SyncFDB", checkFDB(list))
	if err != nil {
		return Changes{}, err
	}
	var f *fdbSync
	s.plan = func(ctx context.Context) (p syncPlan[FDBEntry], err error) {
		if f, err = newFDBSync(ctx, l, s.conn); err != nil {
			return p, err
		}
		if err := f.check(list); err != nil {
			return p, err
		}
		have, err := listFDB(ctx, l.ns, f.filter)
		if err != nil {
			return p, err
		}
		return f.plan(have, list), nil
	}
	s.restore = func(_ int, s *syncStep[FDBEntry]) []nl.Request { return f.restore(s) }
	return s.run(ctx)
}

// fdbSync is what a sync of forwarding databases knows of the link.
type fdbSync struct {
	index  int
	vxlan  *VXLAN // nil: it is none
	port   bool   // it is the port of a bridge
	filter FDBFilter
	vlans  []uint16 // that the kernel makes an entry without a VLAN in; 0 is without
}

func newFDBSync(ctx context.Context, l Link, conn *nl.Conn) (*fdbSync, error) {
	now, err := l.details(ctx)
	if err != nil {
		return nil, err
	}
	s := &fdbSync{index: l.Index, filter: FDBFilter{Link: l.Ref()}, vlans: []uint16{0}}
	if k, ok := now.Spec.Kind.(VXLAN); ok {
		s.vxlan = &k
	}
	if s.port = now.SlaveKind == "bridge"; !s.port {
		return s, nil
	}
	s.filter = FDBFilter{Bridge: Ref{Index: now.Master}} // entries of other ports may be in the way
	ranges, err := readVLANs(ctx, conn, l.Index)
	if _, _, none := refused(err); none {
		return s, nil // the kernel has no VLANs in bridges
	}
	for _, v := range ranges {
		for id := v.ID; id <= v.last(); id++ {
			s.vlans = append(s.vlans, id)
		}
	}
	return s, err
}

// check refuses entries that a sync cannot keep on such a link.
func (s *fdbSync) check(list []FDBEntry) error {
	if !s.port && s.vxlan == nil {
		return refuse.Input("the link is neither the port of a bridge nor a VXLAN")
	}
	for i := range list {
		e := &list[i]
		switch {
		case e.Self && s.vxlan == nil:
			return refuse.Input("entry %s is for the link's own table (Self), which can be synced for a VXLAN only: other links' have what the kernel puts there", e)
		case !e.Self && !s.port:
			return refuse.Input("entry %s is for the table of a bridge, and the link is not the port of one: set Self", e)
		case e.Type != FDBStatic && !(e.Self && e.Type == FDBLocal):
			return refuse.Input("entry %s is not static: entries of another type are the kernel's", e)
		case e.Flags&(FDBUse|FDBExtLearned) != 0:
			return refuse.Input("entry %s has the flag FDBUse or FDBExtLearned, which static entries do not keep", e)
		case e.Self && e.VLAN != 0:
			return refuse.Input("entry %s has a VLAN, which those of a VXLAN do not have", e)
		case e.Self && e.several() && (!e.Dst.IsValid() && e.NextHop == 0 || e.Flags&FDBRouter != 0):
			return refuse.Input("entry %s is for many addresses: it has a destination or a next hop, and is no router", e)
		}
	}
	return nil
}

// restore returns the requests that bring back what there was before a step.
func (s *fdbSync) restore(step *syncStep[FDBEntry]) (reqs []nl.Request) {
	if step.parts {
		return s.restoreParts(step)
	}
	if len(step.before) == 0 {
		return []nl.Request{encodeFDB(s.index, step.item, editDelete)}
	}
	for _, e := range step.before {
		reqs = append(reqs, putFDB(e))
	}
	return reqs
}

// putFDB builds the message that makes an entry as it was, whatever there is.
func putFDB(e *FDBEntry) nl.Request {
	if e.Self && e.several() {
		return encodeFDB(e.Link, e, editAppend)
	}
	return encodeFDB(e.Link, e, editReplace)
}

// restoreParts is restore for an entry without a VLAN that the kernel makes or deletes in each VLAN of
// the port. What was there without a VLAN is made again in each, and then deleted in
// those that had none.
func (s *fdbSync) restoreParts(step *syncStep[FDBEntry]) (reqs []nl.Request) {
	find := func(vlan uint16) *FDBEntry { return inVLAN(step.before, vlan) }
	port := s.index
	if e := find(0); e != nil {
		reqs, port = append(reqs, putFDB(e)), e.Link
	} else if step.how != editDelete {
		reqs = append(reqs, encodeFDB(s.index, step.item, editDelete))
	}
	for _, vlan := range s.vlans[1:] {
		e := find(vlan)
		if find(0) != nil && (e == nil || e.Flags&FDBExtLearned != 0) { // what is static would stay so
			none := FDBEntry{MAC: step.item.MAC, VLAN: vlan}
			reqs = append(reqs, encodeFDB(port, &none, editDelete))
		}
		if e != nil {
			reqs = append(reqs, putFDB(e))
		}
	}
	return reqs
}

func inVLAN(list []*FDBEntry, vlan uint16) *FDBEntry {
	for _, e := range list {
		if e.VLAN == vlan {
			return e
		}
	}
	return nil
}
