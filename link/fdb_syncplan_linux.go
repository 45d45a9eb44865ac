package link

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// fdbPlan is what a sync does, in three parts: what goes, so that there is room; what comes; and
// destinations that go from an entry that stays.
type fdbPlan struct {
	*fdbSync
	first, then, last syncPlan[FDBEntry]
}

// plan compares what there is with what is wanted, address by address.
func (s *fdbSync) plan(have, want []FDBEntry) syncPlan[FDBEntry] {
	p := fdbPlan{fdbSync: s}
	h := s.sorted(have, func(e *FDBEntry) bool { return !e.Self || e.Link == s.index && s.vxlan != nil })
	w := s.sorted(want, func(*FDBEntry) bool { return true })
	for len(h) > 0 || len(w) > 0 {
		var one *FDBEntry
		if len(w) == 0 || len(h) > 0 && s.compare(h[0], w[0]) < 0 {
			one = h[0]
		} else {
			one = w[0]
		}
		n, m := s.same(h, one), s.same(w, one)
		switch {
		case !one.Self:
			p.bridge(h[:n], w[:m])
		case one.several():
			p.destinations(h[:n], w[:m])
		default:
			p.vxlanHost(h[:n], w[:m])
		}
		h, w = h[n:], w[m:]
	}
	all := p.then
	all.steps = slices.Concat(p.first.steps, p.then.steps, p.last.steps)
	for _, c := range []Changes{p.first.changes, p.last.changes} {
		all.changes.Added += c.Added
		all.changes.Replaced += c.Replaced
		all.changes.Deleted += c.Deleted
	}
	return all
}

// sorted returns the entries that keep returns true for, those for one address together.
func (s *fdbSync) sorted(list []FDBEntry, keep func(*FDBEntry) bool) []*FDBEntry {
	all := make([]*FDBEntry, 0, len(list))
	for i := range list {
		if keep(&list[i]) {
			all = append(all, &list[i])
		}
	}
	slices.SortStableFunc(all, s.compare)
	return all
}

// compare orders entries by table, address and, in an external VXLAN, the VNI they are for.
func (s *fdbSync) compare(a, b *FDBEntry) int {
	if a.Self != b.Self {
		if b.Self {
			return -1
		}
		return 1
	}
	c := bytes.Compare(a.MAC, b.MAC)
	if c == 0 && a.Self && s.vxlan.External {
		c = cmp.Compare(a.SrcVNI, b.SrcVNI)
	}
	return c
}

// same counts the entries at the front of the list that are for the same address as one.
func (s *fdbSync) same(list []*FDBEntry, one *FDBEntry) int {
	n := 0
	for n < len(list) && s.compare(list[n], one) == 0 {
		n++
	}
	return n
}

// several reports whether a VXLAN's entry may have several destinations.
func (e *FDBEntry) several() bool { return e.MAC[0]&1 != 0 || bytes.Equal(e.MAC, make([]byte, 6)) }

// learned reports whether the kernel has learned the entry.
func (e *FDBEntry) learned() bool { return e.Type == FDBDynamic && e.Flags&FDBExtLearned == 0 }

// own reports whether an entry of the bridge's table is one that a sync of the link has made.
func (s *fdbSync) own(e *FDBEntry) bool {
	return e.Link == s.index && e.Type == FDBStatic && e.Flags&FDBExtLearned == 0
}

// bridge plans the entries of the bridge's table for one address.
func (p *fdbPlan) bridge(have, want []*FDBEntry) {
	for i, w := range want {
		if i > 0 && (want[0].VLAN == 0 || w.VLAN == 0) {
			p.then.clash(w, refuse.Input("the address is given twice, once without a VLAN"))
			return
		}
		if inVLAN(want[:i], w.VLAN) != nil {
			p.then.clash(w, refuse.Input("it is given twice"))
			return
		}
	}
	all := len(want) > 0 && want[0].VLAN == 0
	var stale []*FDBEntry
	for _, h := range have {
		if p.own(h) && !all && inVLAN(want, h.VLAN) == nil {
			stale = append(stale, h)
		}
	}
	// A request that names no VLAN deletes the entries of all.
	if e := inVLAN(stale, 0); e != nil {
		p.first.remove(e)
		p.first.steps[len(p.first.steps)-1].before = have
		p.first.steps[len(p.first.steps)-1].parts = len(p.vlans) > 1
		// It deletes those of a routing daemon, too, which are made again.
		for _, h := range have {
			if h.Link == p.index && h.Flags&FDBExtLearned != 0 {
				p.then.steps = append(p.then.steps, syncStep[FDBEntry]{how: editReplace, item: h})
			}
		}
		have = slices.DeleteFunc(slices.Clone(have), p.own)
	} else {
		for _, e := range stale {
			p.first.remove(e)
		}
	}
	for _, w := range want {
		p.bridgeEntry(have, w)
	}
}

// bridgeEntry plans one wanted entry of the bridge's table.
func (p *fdbPlan) bridgeEntry(have []*FDBEntry, w *FDBEntry) {
	vlans := p.vlans
	if w.VLAN != 0 {
		vlans = []uint16{w.VLAN}
	}
	there, right := 0, 0
	for _, vlan := range vlans {
		h := inVLAN(have, vlan)
		if h == nil {
			continue
		}
		there++
		switch {
		case p.own(h):
			if h.Flags&FDBSticky == w.Flags&FDBSticky {
				right++
			}
		case !h.learned():
			p.then.clash(w, takenFDB(h))
			return
		}
	}
	switch {
	case right == len(vlans):
		return
	case there == 0:
		p.then.add(w)
	default:
		p.then.replace(w, slices.DeleteFunc(slices.Clone(have), func(e *FDBEntry) bool { return !slices.Contains(vlans, e.VLAN) })...)
	}
	p.then.steps[len(p.then.steps)-1].parts = len(vlans) > 1
}

// takenFDB says which entry that is not of the link's is in the way.
func takenFDB(e *FDBEntry) error {
	switch {
	case e.Flags&FDBExtLearned != 0:
		return exist(unix.EEXIST, "a program that learns addresses has an entry for it (FDBExtLearned)")
	case e.Type == FDBLocal:
		return exist(unix.EEXIST, "the address is local: the bridge's own, or that of its port %d", e.Link)
	}
	return exist(unix.EEXIST, "the port with the index %d has a static entry for it", e.Link)
}

// vxlanHost plans the entry of a VXLAN for the address of one host.
func (p *fdbPlan) vxlanHost(have, want []*FDBEntry) {
	if len(want) > 1 {
		p.then.clash(want[1], refuse.Input("the address is given twice: only groups and the all-zero address may have several destinations"))
		return
	}
	if len(have) == 0 {
		p.then.add(want[0])
		return
	}
	h := have[0]
	if len(want) == 0 {
		if h.Type != FDBDynamic && h.Flags&FDBExtLearned == 0 {
			p.first.remove(h)
		}
		return
	}
	w := want[0]
	const flags = FDBRouter | FDBSticky
	switch {
	case h.Flags&FDBExtLearned != 0:
		p.then.clash(w, takenFDB(h))
	case h.Type != FDBDynamic && h.Flags&flags == w.Flags&flags && p.vxlan.sends(h) == p.vxlan.sends(w):
	case (h.NextHop == 0) != (w.NextHop == 0): // which the kernel refuses or ignores
		p.first.steps = append(p.first.steps, syncStep[FDBEntry]{how: editDelete, item: h, before: have})
		p.then.steps = append(p.then.steps, syncStep[FDBEntry]{how: editAdd, item: w})
		p.then.changes.Replaced++
	default:
		p.then.replace(w, h)
	}
}

// destinations plans the destinations of a VXLAN's entry for a group or all addresses.
func (p *fdbPlan) destinations(have, want []*FDBEntry) {
	if len(have) > 0 && have[0].Flags&FDBExtLearned != 0 {
		if len(want) > 0 {
			p.then.clash(want[0], takenFDB(have[0]))
		}
		return
	}
	ages := len(have) > 0 && have[0].Type == FDBDynamic // all of them: it is the entry's
	if ages && len(want) == 0 {
		return
	}
	wanted, there := make(map[fdbKey]bool, len(want)), make(map[fdbKey]bool, len(have))
	for _, w := range want {
		to := p.vxlan.leads(w)
		if wanted[to] {
			p.then.clash(w, refuse.Input("its destination is given twice"))
			return
		}
		wanted[to] = true
	}
	whole := ages // the entry goes, and is made again
	var gone, missing, kept []*FDBEntry
	for _, h := range have {
		to := p.vxlan.leads(h)
		there[to] = true
		switch {
		case wanted[to]:
		case p.vxlan.isRemote(h):
			kept = append(kept, h)
		default:
			gone = append(gone, h)
			whole = whole || !h.Dst.IsValid() // a request that names no host deletes all
		}
	}
	for _, w := range want {
		if !there[p.vxlan.leads(w)] {
			missing = append(missing, w)
			whole = whole || w.NextHop != 0 && len(have) > 0 // it has no other one beside it
		}
	}
	p.then.changes.Added += len(missing)
	p.then.changes.Deleted += len(gone)
	to := &p.last
	switch {
	case whole:
		all := &FDBEntry{Link: p.index, Self: true, MAC: have[0].MAC, SrcVNI: have[0].SrcVNI}
		p.first.steps = append(p.first.steps, syncStep[FDBEntry]{how: editDelete, item: all, before: have})
		gone, missing = nil, slices.Concat(kept, want)
	case len(want) == 0:
		to = &p.first
	}
	for _, e := range missing {
		if len(have) > 0 && !whole && e.Type != have[0].Type {
			one := *e // the type is the entry's: that of the other destinations stays
			one.Type, e = have[0].Type, &one
		}
		p.then.steps = append(p.then.steps, syncStep[FDBEntry]{how: editAppend, item: e})
	}
	for _, e := range gone {
		to.steps = append(to.steps, syncStep[FDBEntry]{how: editDelete, item: e, before: []*FDBEntry{e}})
	}
}

// isRemote reports whether an entry is that of VXLAN.Remote.
func (k *VXLAN) isRemote(e *FDBEntry) bool {
	to := k.sends(e)
	return k.Remote.IsValid() && e.Dst == k.Remote && e.MAC[0]&1 == 0 && to.port == 0 && to.vni == 0 && (to.via == 0 || to.via == k.Underlay.Index)
}

// leads is sends, with one destination for that of VXLAN.Remote.
func (k *VXLAN) leads(e *FDBEntry) fdbKey {
	to := k.sends(e)
	if k.isRemote(e) {
		to.via = 0
	}
	return to
}
