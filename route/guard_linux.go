package route

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// newGuard returns the guard for a dump of routes, which the kernel does not
// flag when they change underneath.
//
// IPv4 (fib_table_dump) goes on after a break at the address where it stopped,
// and among the routes of one address, which differ in length, metric or type of
// service, by their number. So only a change at such an address can make it miss
// one.
//
// IPv6 (fib6_dump_table) goes on after a change at the root and passes over as
// many nodes as it had read: one that went, and another that came, make it miss
// one, and one that came makes it tell one twice. So any change counts that comes
// before the last break. A table that fits one reply is read in one piece.
func newGuard(af uint8, f Filter) *guard {
	g := &guard{filter: Filter{Table: f.Table}}
	g.Settle = new(settled())
	g.Groups, g.Break, g.Event = []uint32{unix.RTNLGRP_IPV4_ROUTE}, g.break4, g.event4
	if af == unix.AF_INET6 {
		g.Groups, g.Break, g.Event = []uint32{unix.RTNLGRP_IPV6_ROUTE}, g.break6, g.event6
	}
	return g
}

type guard struct {
	nl.Guard
	filter Filter
	broken bool // IPv6: the kernel let go of the table
	hit    bool // IPv6: it was changed

	breaks  map[leaf]bool // IPv4: where the kernel let go of the table
	changes map[leaf]bool // IPv4: where it was changed
}

// A leaf is what the IPv4 table keeps the routes of one address in.
type leaf struct {
	table Table
	addr  netip.Addr
}

// reset makes the guard ready for the next try.
func (g *guard) reset() {
	g.broken, g.hit, g.breaks, g.changes = false, false, nil, nil
}

func (g *guard) break6(nl.Message) bool {
	g.broken = true
	return g.hit
}

func (g *guard) event6(m nl.Message) bool {
	if _, ok := g.leaf(m); !ok {
		return false
	}
	g.hit = true
	return g.broken
}

func (g *guard) break4(m nl.Message) bool {
	l, ok := g.leaf(m)
	if ok {
		mark(&g.breaks, l)
	}
	return g.changes[l]
}

func (g *guard) event4(m nl.Message) bool {
	l, ok := g.leaf(m)
	if ok {
		mark(&g.changes, l)
	}
	return g.breaks[l]
}

// leaf says where the route in a message belongs; ok is false if that is none of
// the tables that are read.
func (g *guard) leaf(m nl.Message) (l leaf, ok bool) {
	var r Route
	if _, ok, err := decodeAny(m.Body, &r); err != nil || !ok || !g.filter.match(&r) {
		return leaf{}, false
	}
	return leaf{r.Table, r.Dst.Addr()}, true
}

func mark(set *map[leaf]bool, l leaf) {
	if *set == nil {
		*set = map[leaf]bool{}
	}
	(*set)[l] = true
}
