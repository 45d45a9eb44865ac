package link

import (
	"context"
	"errors"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// SyncNeighbours makes an owner's neighbours of the link exactly those given, proxy
// entries included: all of it or nothing. It sends only the difference, and may be
// repeated. With an error the Changes are zero.
//
// An owner is a protocol number from 4 on that no other program uses. The kernel
// keeps it with the entry (Neighbour.Protocol), and nothing that it learns has one.
// So SyncNeighbours finds the owner's entries after a restart, whatever their
// state, and leaves those of other programs alone. The neighbours given have that
// Protocol, or 0.
//
// Learned entries stay, and so do those that the kernel makes for groups and on
// links without ARP. One whose address is given is replaced. Another program's entry
// for an address that is given is os.ErrExist. It has another protocol; or it has
// none, and is permanent, a proxy entry, or has the flag NeighbourExtLearned,
// NeighbourManaged or NeighbourExtValidate.
//
// State is NeighbourPermanent, NeighbourNoARP, NeighbourReachable, NeighbourStale or
// 0. What the kernel makes of the last three, and of an address without a MAC, is no
// difference. A kernel that lacks NeighbourManaged or NeighbourExtValidate is
// errors.ErrUnsupported.
func (l Link) SyncNeighbours(ctx context.Context, owner uint8, list ...Neighbour) (Changes, error) {
	s, err := newSyncer(neighbourTable, l, "link.SyncNeighbours", checkSyncNeighbours(owner, list))
	if err != nil {
		return Changes{}, err
	}
	want := make([]Neighbour, len(list))
	for i := range list {
		want[i] = list[i]
		want[i].Protocol = owner
		if want[i].State == 0 && want[i].MAC != nil {
			want[i].State = NeighbourPermanent
		}
	}
	s.plan = func(ctx context.Context) (syncPlan[Neighbour], error) {
		have, err := allNeighbours(ctx, l)
		if err != nil {
			return syncPlan[Neighbour]{}, err
		}
		return planNeighbours(owner, have, want), nil
	}
	s.restore = restoreNeighbour
	s.verify = func(ctx context.Context, p *syncPlan[Neighbour]) ([]syncClash[Neighbour], error) {
		return verifyNeighbours(ctx, l, p)
	}
	return s.run(ctx)
}

// allNeighbours lists the neighbours of the link with proxy entries.
func allNeighbours(ctx context.Context, l Link) ([]Neighbour, error) {
	list, err := neighbours(ctx, l.ns, NeighbourFilter{Link: l.Ref()})
	if err != nil {
		return nil, err
	}
	proxies, err := neighbours(ctx, l.ns, NeighbourFilter{Link: l.Ref(), Proxy: true})
	return append(list, proxies...), err
}

// planNeighbours compares what the link has with what the owner wants. What is not
// wanted goes first, so that there is room.
func planNeighbours(owner uint8, have, want []Neighbour) (p syncPlan[Neighbour]) {
	wanted := make(map[neighPlace]int, len(want))
	for i := range want {
		wanted[want[i].place()] = i
	}
	there := make([]*Neighbour, len(want))
	for i := range have {
		n := &have[i]
		if at, ok := wanted[n.place()]; ok {
			there[at] = n
		} else if n.Protocol == owner {
			p.remove(n)
		}
	}
	for i := range want {
		switch w, n := &want[i], there[i]; {
		case n == nil:
			p.add(w)
		case n.strangeTo(owner):
			p.clash(w, n.taken())
		case n.Protocol != owner || !n.satisfies(w):
			p.replace(w, n)
		}
	}
	return p
}

// taken says which entry of another program is in the way.
func (n *Neighbour) taken() error {
	if n.Protocol == 0 {
		return exist(unix.EEXIST, "the link has another program's entry %s", n)
	}
	return exist(unix.EEXIST, "the link has the entry %s of the protocol %d", n, n.Protocol)
}

// restoreNeighbour brings back what there was before a step. The kernel changes the
// protocol of an entry to another one but not to none; such an entry is deleted first. A learned
// entry without a hardware address is not made again: the kernel resolves it when it
// is used.
func restoreNeighbour(index int, s *syncStep[Neighbour]) (reqs []nl.Request) {
	var before Neighbour
	if len(s.before) > 0 {
		before = *s.before[0]
	}
	if s.how != editDelete && before.Protocol == 0 {
		reqs = append(reqs, encodeNeighbour(index, s.item, editDelete))
	}
	switch {
	case before.MAC == nil && before.Protocol == 0:
		return reqs
	case before.MAC == nil:
		before.State = 0
	case before.State&(NeighbourDelay|NeighbourProbe) != 0:
		before.State = NeighbourStale // checked when it is used
	}
	return append(reqs, encodeNeighbour(index, &before, editReplace))
}

// verifyNeighbours reads back the entries with flags that older kernels ignore.
func verifyNeighbours(ctx context.Context, l Link, p *syncPlan[Neighbour]) (lacks []syncClash[Neighbour], err error) {
	const newer = NeighbourManaged | NeighbourExtValidate
	asked := map[neighPlace]*Neighbour{}
	for i := range p.steps {
		if s := &p.steps[i]; s.how != editDelete && s.item.Flags&newer != 0 {
			asked[s.item.place()] = s.item
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	have, err := neighbours(ctx, l.ns, NeighbourFilter{Link: l.Ref()})
	for i := range have {
		if w := asked[have[i].place()]; w != nil && w.Flags&newer&^have[i].Flags != 0 {
			lacks = append(lacks, syncClash[Neighbour]{w, refuse.As(errors.ErrUnsupported, "the kernel did not take the flag NeighbourManaged (Linux >= 5.16) or NeighbourExtValidate (Linux >= 6.18)")})
		}
	}
	return lacks, err
}
