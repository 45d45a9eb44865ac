package topology

import (
	"cmp"
	"context"
	"slices"

	"github.com/boxwire/boxwire/link"
)

// place is a link by its namespace and index.
type place struct {
	in    *space
	index int
}

// pair finds the other ends of links. A link names the namespace of its other end by an id that its
// own namespace has given it. The ids are asked for where most links lead elsewhere first, which
// answers for both ends of a pair: on a host of a thousand boxes the boxes need not be asked.
func pair(ctx context.Context, spaces []*space) {
	all := make(map[place]int) // the number of a link in its namespace
	for _, x := range spaces {
		for i, l := range x.links {
			all[place{x, l.Index}] = i
		}
	}
	order := slices.Clone(spaces)
	slices.SortStableFunc(order, func(a, b *space) int { return cmp.Compare(b.leading(), a.leading()) })
	for _, x := range order {
		var ids map[int]*space
		if x.leading() > 0 {
			ids = x.ids(ctx, spaces)
		}
		for i, l := range x.links {
			index, in := cmp.Or(l.PeerIndex, l.ParentIndex), x
			if l.LinkNSID >= 0 {
				in = ids[l.LinkNSID]
			}
			if index == 0 || in == nil || x.is.Links[i].Peer != nil {
				continue
			}
			j, ok := all[place{in, index}]
			if !ok {
				continue
			}
			x.is.Links[i].Peer = &End{Inode: in.is.Inode, Link: in.links[j].Name, Index: index}
			if isPair(l, in.links[j]) {
				in.is.Links[j].Peer = &End{Inode: x.is.Inode, Link: l.Name, Index: l.Index}
			}
		}
	}
}

// isPair reports whether two links are the ends of one pair.
func isPair(a, b link.Link) bool {
	return a.PeerIndex != 0 && a.PeerIndex == b.Index && b.PeerIndex == a.Index
}

// leading counts the links that lead to another namespace and whose other end is not known yet.
func (x *space) leading() (n int) {
	for i, l := range x.links {
		if l.LinkNSID >= 0 && x.is.Links[i].Peer == nil {
			n++
		}
	}
	return n
}

// ids returns the namespaces by the ids that a namespace knows them by.
func (x *space) ids(ctx context.Context, spaces []*space) map[int]*space {
	ids := make(map[int]*space)
	for _, y := range spaces {
		if y == x {
			continue
		}
		if id, err := x.ns.NSID(ctx, y.ns); err == nil {
			ids[id] = y
		}
	}
	return ids
}
