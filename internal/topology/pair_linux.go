package topology

import (
	"context"

	"github.com/boxwire/boxwire/link"
)

// place is a link by its namespace and index.
type place struct {
	in    *space
	index int
}

// pair finds the other ends of links. A link names the namespace of its other end by an id that its
// own namespace has given it, so that the ids of all are asked for.
func pair(ctx context.Context, spaces []*space) {
	all := make(map[place]*Link)
	for _, x := range spaces {
		for _, l := range x.is.Links {
			all[place{x, l.Index}] = l
		}
	}
	for _, x := range spaces {
		ids := x.ids(ctx, spaces)
		for i, l := range x.links {
			index, is := other(l), x.is.Links[i]
			in := x
			if l.LinkNSID >= 0 {
				in = ids[l.LinkNSID]
			}
			if index == 0 || in == nil {
				continue
			}
			if peer := all[place{in, index}]; peer != nil {
				is.Peer = &End{Inode: in.is.Inode, Link: peer.Name, Index: index}
			}
		}
	}
}

// other is the index of a link's other end, or of the link that it lies on; 0 is none.
func other(l link.Link) int {
	if l.PeerIndex != 0 {
		return l.PeerIndex
	}
	return l.ParentIndex
}

// ids returns the namespaces by the ids that a namespace knows them by. It asks only if a link of
// the namespace leads to another one.
func (x *space) ids(ctx context.Context, spaces []*space) map[int]*space {
	leads := false
	for _, l := range x.links {
		leads = leads || l.LinkNSID >= 0
	}
	if !leads {
		return nil
	}
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
