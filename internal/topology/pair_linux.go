package topology

import (
	"cmp"
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
)

// An identity is a link by the inode number of its namespace and its index.
type identity struct {
	inode uint64
	index int
}

// askIDs asks namespaces for the ids that they know others by. A link names the namespace of its other
// end by such an id. The host is asked first. After that, a namespace is asked only if it has links
// whose other ends are not known from there: on a host of a thousand boxes no box is asked.
func (r *reader) askIDs(ctx context.Context) {
	order := make([]*space, 0, len(r.spaces))
	for _, x := range r.spaces {
		if x.closed == "" {
			order = append(order, x)
		}
		for id, inode := range x.ids {
			if r.spaces[inode] == nil {
				delete(x.ids, id)
			}
		}
	}
	leading := make(map[*space]int, len(order))
	for _, x := range order {
		leading[x] = x.leading()
	}
	slices.SortFunc(order, func(a, b *space) int {
		return cmp.Or(cmp.Compare(leading[b], leading[a]), cmp.Compare(a.info.ID.Ino, b.info.ID.Ino))
	})
	host := r.spaces[r.host.ID().Ino]
	if host != nil {
		host.ask(ctx, order, r.wanted)
		for id := range r.wanted {
			if x := r.spaces[host.ids[id]]; x != nil {
				delete(r.wanted, id)
				x.dirty = partAll // what the events were about is not known any more
			} else {
				delete(r.wanted, id)
				if r.unheard == nil {
					r.unheard = make(map[int]bool)
				}
				r.unheard[id] = true
			}
		}
	}
	reached := r.reached()
	for _, x := range order {
		unknown := make(map[int]bool)
		for i := range x.links {
			if id, ok := leads(&x.links[i]); ok && x.ids[id] == 0 && !reached[identity{x.info.ID.Ino, x.links[i].Index}] {
				unknown[id] = true
			}
		}
		if len(unknown) > 0 && x != host {
			x.ask(ctx, order, unknown)
		}
	}
}

// leads returns the id of the namespace that a link leads to, if that is another one.
func leads(l *rtnl.Link) (id int, ok bool) {
	if l.PeerNSID == nil || *l.PeerNSID < 0 {
		return 0, false
	}
	return int(*l.PeerNSID), true
}

// leading counts the links that lead to another namespace.
func (x *space) leading() (n int) {
	for i := range x.links {
		if _, ok := leads(&x.links[i]); ok {
			n++
		}
	}
	return n
}

// reached are the links that others lead to.
func (r *reader) reached() map[identity]bool {
	all := make(map[identity]bool)
	for _, x := range r.spaces {
		for i := range x.links {
			if id, ok := leads(&x.links[i]); ok && x.ids[id] != 0 {
				all[identity{x.ids[id], x.links[i].Linked}] = true
			}
		}
	}
	return all
}

// ask asks a namespace for the ids of others, until those are known that its links name, and some
// more.
func (x *space) ask(ctx context.Context, all []*space, more map[int]bool) {
	unknown := make(map[int]bool)
	for id := range more {
		unknown[id] = x.ids[id] == 0
	}
	known := make(map[uint64]bool)
	for _, inode := range x.ids {
		known[inode] = true
	}
	for i := range x.links {
		if id, ok := leads(&x.links[i]); ok {
			unknown[id] = x.ids[id] == 0
		}
	}
	left := 0
	for _, is := range unknown {
		if is {
			left++
		}
	}
	if left == 0 {
		return
	}
	ns, err := x.open(ctx)
	if err != nil {
		return
	}
	defer ns.Close()
	for _, y := range all {
		if left == 0 {
			return
		}
		if known[y.info.ID.Ino] || x.none[y.info.ID.Ino] {
			continue
		}
		if id, ok := x.idOf(ctx, ns, y); ok && unknown[id] {
			unknown[id] = false
			left--
		}
	}
}

// idOf asks a namespace, that is open, for the id of another one, or its own: before Linux 5.15 it may
// have given itself one.
func (x *space) idOf(ctx context.Context, ns *netns.NS, y *space) (id int, ok bool) {
	other, err := y.open(ctx)
	if err != nil {
		return 0, false
	}
	defer other.Close()
	id, err = ns.NSID(ctx, other)
	if err != nil {
		if x.none == nil {
			x.none = make(map[uint64]bool)
		}
		x.none[y.info.ID.Ino] = true
		return 0, false
	}
	if x.ids == nil {
		x.ids = make(map[int]uint64)
	}
	x.ids[id], x.changed = y.info.ID.Ino, true
	return id, true
}

// pair enters the other ends of the links into a snapshot, and the ids that the host knows namespaces
// by.
func (r *reader) pair(at map[uint64]*Namespace) {
	links := make(map[identity]*Link)
	for inode, n := range at {
		for _, l := range n.Links {
			links[identity{inode, l.Index}] = l
		}
	}
	for inode, x := range r.spaces {
		for i := range x.links {
			from := &x.links[i]
			far := inode
			if id, ok := leads(from); ok {
				far = x.ids[id]
			} else if from.PeerNSID != nil {
				continue // the other namespace is ending
			}
			l, other := links[identity{inode, from.Index}], links[identity{far, from.Linked}]
			if l == nil || other == nil || l == other {
				continue
			}
			l.Peer = &End{Inode: far, Link: other.Name, Index: other.Index}
			if other.Peer == nil && isPair[from.Kind] {
				other.Peer = &End{Inode: inode, Link: l.Name, Index: l.Index}
			}
		}
	}
	if host := r.spaces[r.host.ID().Ino]; host != nil {
		for i := range host.links {
			if id, ok := leads(&host.links[i]); ok && at[host.ids[id]] != nil {
				at[host.ids[id]].NSID = &id
			}
		}
	}
}

// isPair are the kinds of links that come in pairs. Others lie on the link that they lead to.
var isPair = map[string]bool{"veth": true, "netkit": true, "vxcan": true}
