package link

import (
	"context"
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// guard is for addresses, neighbours and forwarding databases. Between reply
// datagrams the kernel resumes these dumps by position (see nl.SplitGuard). It sets
// NLM_F_DUMP_INTR for some address changes only (since Linux 6.9, when it ceased to
// lock them), and never for neighbours and forwarding databases. Links need no
// guard: the kernel finds them by their index.
//
// The table of neighbours is shared by the namespaces of the machine. The kernel
// notifies neither the changes of other namespaces nor that the table grew. A dump
// lacks an entry if the first happens in the same hash bucket, or the second at all,
// between two replies; the table grows when the machine has twice as many neighbours
// as ever.
type guard struct {
	nl.SplitGuard[part]
	repeats bool // an entry may be in the dump twice
}

// part is a part of a table within which the kernel counts.
type part struct {
	family uint8
	link   uint32 // of addresses; 0 for the other tables
}

var (
	addrGroups  = []uint32{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}
	neighGroups = []uint32{unix.RTNLGRP_NEIGH}
)

// newGuard returns the guard for a dump, or nil for a table that needs none.
func newGuard(req *nl.Request) *guard {
	g := &guard{}
	switch req.Type {
	case unix.RTM_GETADDR:
		g.Groups = addrGroups
	case unix.RTM_GETNEIGH:
		g.Groups = neighGroups
	default:
		return nil
	}
	g.Boundary, g.Change, g.Continue, g.Barrier = partOf, g.change, g.resumed, new(getLink("", 1))
	return g
}

// change ignores a neighbour that was added, as the kernel learns all the time: the
// dump lacks nothing then.
func (g *guard) change(m nl.Message) (part, bool) {
	if m.Type == unix.RTM_NEWNEIGH {
		g.repeats = true
		return part{}, false
	}
	return partOf(m)
}

// resumed is for the IPv6 addresses of a link: the kernel notifies a new one only
// when it has looked for duplicates.
func (g *guard) resumed(p part) {
	g.repeats = g.repeats || p.link != 0 && p.family == unix.AF_INET6
}

func partOf(m nl.Message) (p part, ok bool) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return part{}, false
	}
	p.family = m.Body[0]
	if m.Type == unix.RTM_NEWADDR || m.Type == unix.RTM_DELADDR {
		p.link = binary.NativeEndian.Uint32(m.Body[4:])
	}
	return p, true
}

// dumpWhole is Conn.Dump with the guard that the table needs.
func dumpWhole(ctx context.Context, conn *nl.Conn, req nl.Request, reset func(), each func(nl.Message) error) error {
	if g := newGuard(&req); g != nil {
		return conn.DumpGuarded(ctx, req, g, reset, each)
	}
	return conn.Dump(ctx, req, reset, each)
}

// listWhole is nl.List for a table that needs a guard. An item that the kernel
// repeats is in the list once, as last received; key identifies an item.
func listWhole[T any, K comparable](ctx context.Context, conn *nl.Conn, req nl.Request, key func(*T) K, decode func(nl.Message, *T) (bool, error)) ([]T, error) {
	g := newGuard(&req)
	all, err := nl.List(ctx, conn, req, g, decode)
	if g.repeats {
		all = lastOfEach(all, key)
	}
	return all, err
}

// lastOfEach drops all but the last of the items with the same key, in their order.
func lastOfEach[T any, K comparable](list []T, key func(*T) K) []T {
	last := make(map[K]int, len(list))
	for i := range list {
		last[key(&list[i])] = i
	}
	n := 0
	for i := range list {
		if last[key(&list[i])] == i {
			list[n] = list[i]
			n++
		}
	}
	return list[:n]
}
