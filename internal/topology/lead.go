package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// lead finds the links that published ports lead to, and what the snapshot shows to be wrong with
// them.
func (s *Snapshot) lead() {
	type home struct {
		in *Namespace
		on *Link
	}
	homes := make(map[netip.Addr][]home)
	for _, n := range s.Namespaces {
		for _, l := range n.Links {
			for _, a := range l.Addrs {
				if !a.Addr().IsLoopback() {
					homes[a.Addr()] = append(homes[a.Addr()], home{n, l})
				}
			}
		}
	}
	for _, n := range s.Namespaces {
		for i := range n.Ports {
			p := &n.Ports[i]
			// Several namespaces may have the address. The one that is wired to this one is meant.
			all := homes[p.Box.Addr()]
			j := slices.IndexFunc(all, func(h home) bool { return h.on.Peer != nil && h.on.Peer.Inode == n.Inode })
			if j < 0 && len(all) == 1 {
				j = 0
			}
			if j < 0 {
				continue
			}
			p.To = &End{Inode: all[j].in.Inode, Link: all[j].on.Name, Index: all[j].on.Index}
			if p.Last == 0 && !all[j].in.listens(p.Proto, p.Box) {
				p.Fault = fmt.Sprintf("no program listens on %s port %d in %s", p.Proto, p.Box.Port(), all[j].in.Title())
			}
		}
	}
}

// listens reports whether a program waits at an address, or may.
func (n *Namespace) listens(proto string, at netip.AddrPort) bool {
	if n.unread || proto != "tcp" && proto != "udp" {
		return true
	}
	return slices.ContainsFunc(n.Listeners, func(l Listener) bool {
		a := l.Addr.Addr()
		return l.Proto == proto && l.Addr.Port() == at.Port() && (a == at.Addr() || a.IsUnspecified() && (a.Is6() || at.Addr().Is4()))
	})
}
