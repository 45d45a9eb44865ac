package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/portlock"
)

// claim is what a published port takes of the host.
func (p Port) claim() portlock.Range {
	return portlock.Range{Proto: uint8(p.Proto), Addr: p.Host.Addr(), First: p.Host.Port(), Last: p.last()}
}

// overlap returns the indexes of some two ports that claim the same, the later one
// second. It sorts, so that thousands of ports are no problem.
func overlap(ports []Port) (i, j int, found bool) {
	if len(ports) < 2 {
		return 0, 0, false
	}
	order := make([]int, len(ports))
	for i := range order {
		order[i] = i
	}
	// Those on all addresses come before the others of their family.
	slices.SortFunc(order, func(i, j int) int { return compareHost(&ports[i], &ports[j]) })
	var wild []portlock.Range // those on all addresses, of one protocol and family
	var of []int              // the index of the port of each
	last, before := -1, portlock.Range{}
	for _, at := range order {
		c := ports[at].claim()
		if last >= 0 && before.Overlaps(c) { // none of those on its address reaches further
			return min(at, last), max(at, last), true
		}
		if before.Proto != c.Proto || before.Addr.BitLen() != c.Addr.BitLen() {
			wild, of = wild[:0], of[:0]
		}
		last, before = at, c
		if c.Wildcard() {
			wild, of = append(wild, c), append(of, at)
			continue
		}
		// The first of them that does not end below c.
		n, _ := slices.BinarySearchFunc(wild, c.First, func(w portlock.Range, first uint16) int { return cmp.Compare(w.Last, first) })
		if n < len(wild) && wild[n].Overlaps(c) {
			return min(at, of[n]), max(at, of[n]), true
		}
	}
	return 0, 0, false
}

// compareHost orders ports by protocol, host address (IPv4 first) and first port.
func compareHost(p, o *Port) int {
	if p.Proto != o.Proto {
		return cmp.Compare(p.Proto, o.Proto)
	}
	return p.Host.Compare(o.Host)
}

// unspecified stands for all addresses of a's family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
