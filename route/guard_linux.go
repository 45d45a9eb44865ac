package route

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// A leaf is what the IPv4 table keeps the routes of one address in.
type leaf struct {
	table Table
	addr  netip.Addr
}

// newGuard returns the guard for a dump of routes, which the kernel does not
// flag when they change underneath.
//
// IPv4 (fib_table_dump) resumes a dump at the address where it stopped, and among
// the routes of one address, which differ in length, metric or type of service, by
// position. So only a change at such an address can make it miss one.
//
// IPv6 (fib6_dump_table) starts a changed table again at the root and skips as many
// nodes as it had read. So any change counts, wherever it is. A table that fits one
// reply is read in one piece.
func newGuard(af uint8, f Filter) *nl.SplitGuard[leaf] {
	in := Filter{Table: f.Table}
	leafOf := func(m nl.Message) (l leaf, ok bool) {
		var r Route
		if _, ok, err := decodeAny(m.Body, &r); err != nil || !ok || !in.match(&r) {
			return leaf{}, false
		}
		return leaf{r.Table, r.Dst.Addr()}, true
	}
	g := &nl.SplitGuard[leaf]{Groups: []uint32{unix.RTNLGRP_IPV4_ROUTE}, Boundary: leafOf, Change: leafOf, Barrier: new(settled())}
	if af == unix.AF_INET6 { // the tables together are one part
		g.Groups = []uint32{unix.RTNLGRP_IPV6_ROUTE}
		g.Boundary = func(nl.Message) (leaf, bool) { return leaf{}, true }
		g.Change = func(m nl.Message) (leaf, bool) {
			_, ok := leafOf(m)
			return leaf{}, ok
		}
	}
	return g
}
