package link

import (
	"context"
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// dumpWhole is Conn.Dump for tables that the kernel reads on in by number after
// every reply: what goes in between makes it pass one over, and what comes makes
// it tell one twice. Of addresses it flags only some of that (since Linux 6.9,
// when it ceased to lock them), of neighbours and forwarding databases nothing.
// Links it finds by their index.
//
// Addresses are numbered by link and family; a change of another is none. A
// neighbour that comes is no reason to begin again, as the kernel learns all the
// time, and of a new IPv6 address it tells later, when it has looked for
// duplicates: twice says that one may stand there twice.
//
// The table of neighbours is shared by the namespaces of the machine. What others
// do to it nobody is told, nor when it grows: a new one has to come into the same
// hash bucket, or to double the machine's largest number of them, between two
// replies.
func dumpWhole(ctx context.Context, conn *nl.Conn, req nl.Request, reset func(), each func(nl.Message) error) error {
	g, ok := newGuard(&req)
	if !ok {
		return conn.Dump(ctx, req, reset, each)
	}
	return conn.DumpGuarded(ctx, req, &g.Guard, func() { g.reset(); reset() }, each)
}

// listWhole is nl.List for these tables. twice says that an item may stand there
// twice.
func listWhole[T any](ctx context.Context, conn *nl.Conn, req nl.Request, decode func(nl.Message, *T) (bool, error)) (all []T, twice bool, err error) {
	g, _ := newGuard(&req)
	all, err = nl.List(ctx, conn, req, &g.Guard, g.reset, decode)
	return all, g.came, err
}

// newGuard returns the guard for a dump; ok is false for a table that needs none.
func newGuard(req *nl.Request) (g *guard, ok bool) {
	g = &guard{}
	switch req.Type {
	case unix.RTM_GETADDR:
		g.Groups = addrGroups
	case unix.RTM_GETNEIGH:
		g.Groups = neighGroups
	default:
		return nil, false
	}
	g.Settle, g.Break, g.Event, g.Resume = new(getLink("", 1)), g.split, g.change, g.resume
	return g, true
}

var (
	addrGroups  = []uint32{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}
	neighGroups = []uint32{unix.RTNLGRP_NEIGH}
)

// guard watches a dump.
type guard struct {
	nl.Guard
	splits, changes map[run]bool
	came            bool // something may stand there twice
	split6          bool // among the IPv6 addresses of a link just now
}

// run is a part of a table within which the kernel numbers.
type run struct {
	family uint8
	link   uint32 // of addresses
}

func (g *guard) reset() { *g = guard{Guard: g.Guard} }

// split notes where the kernel let go of the table.
func (g *guard) split(last nl.Message) (void bool) {
	r, ok := runOf(last)
	if ok {
		mark(&g.splits, r)
		g.split6 = last.Type == unix.RTM_NEWADDR && r.family == unix.AF_INET6
	}
	return g.changes[r]
}

// resume notes that the IPv6 addresses of a link go on.
func (g *guard) resume(first nl.Message) {
	if g.split6 {
		r, _ := runOf(first)
		g.came, g.split6 = g.came || g.splits[r], false
	}
}

// change notes where the table was changed.
func (g *guard) change(m nl.Message) (void bool) {
	r, ok := runOf(m)
	switch {
	case !ok:
		return false
	case m.Type == unix.RTM_NEWNEIGH:
		g.came = true
		return false
	}
	mark(&g.changes, r)
	return g.splits[r]
}

func runOf(m nl.Message) (r run, ok bool) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return run{}, false
	}
	r.family = m.Body[0]
	if m.Type == unix.RTM_NEWADDR || m.Type == unix.RTM_DELADDR {
		r.link = binary.NativeEndian.Uint32(m.Body[4:])
	}
	return r, true
}

func mark(set *map[run]bool, r run) {
	if *set == nil {
		*set = map[run]bool{}
	}
	(*set)[r] = true
}

// once drops all but the last of the items with the same key, in their order.
func once[T any, K comparable](list []T, key func(*T) K) []T {
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
