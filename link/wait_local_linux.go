package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// localWait waits until the kernel takes packets for IPv6 addresses of a link.
//
// The kernel answers RTM_NEWADDR before it has finished the address, without
// duplicate address detection too: a worker in the background (addrconf_dad_work)
// joins the group in which neighbours ask for the address, and then puts the route
// of type "local" into the table. Until then a dial of the address fails, and packets
// for it are routed as if it were another host's. On a machine under load that is
// milliseconds. The route is the last that the worker makes. The kernel
// notifies it to RTNLGRP_IPV6_ROUTE.
type localWait struct {
	ns    *netns.NS
	conn  *nl.Conn
	index int
	addrs []netip.Addr // not local yet
}

// awaitLocal waits for those of the addresses that are usable without detection.
func awaitLocal(ctx context.Context, ns *netns.NS, conn *nl.Conn, index int, addrs []netip.Addr) error {
	w := localWait{ns: ns, conn: conn, index: index, addrs: addrs}
	if len(addrs) == 0 {
		return nil
	}
	if err := w.look(ctx, unix.RT_TABLE_LOCAL); err != nil || len(w.addrs) == 0 {
		return err
	}
	return w.follow(ctx)
}

// follow looks again after each event, until all addresses are local or gone.
func (w *localWait) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, errNeverLocal)
	defer cancel()
	events, err := nsconn.Subscribe(ctx, w.ns, unix.NETLINK_ROUTE, nl.EventConfig{
		Groups: []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE},
	})
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		if err := w.lookAgain(ctx); err != nil || len(w.addrs) == 0 {
			return err
		}
		for relevant := false; !relevant; {
			err := events.Receive(ctx, func(_ int, m nl.Message) error {
				relevant = relevant || w.concerns(m)
				return nil
			})
			switch {
			case errors.Is(err, nl.ErrOverflow):
				relevant = true
			case err != nil && errors.Is(context.Cause(ctx), errNeverLocal):
				return fmt.Errorf("%v: %w", w.addrs, errNeverLocal)
			case err != nil:
				return err
			}
		}
	}
}

var errNeverLocal = errors.New("the kernel has made no local route for the address in half a minute")

// concerns reports whether a message may be about one of the addresses.
func (w *localWait) concerns(m nl.Message) bool {
	switch m.Type {
	case unix.RTM_NEWROUTE:
		return len(m.Body) >= unix.SizeofRtMsg && m.Body[7] == unix.RTN_LOCAL
	case unix.RTM_DELROUTE:
		return false
	}
	return eventIndex(m) == w.index
}

// lookAgain forgets the addresses that are local by now, and those that nothing
// will come of: the link or the address is gone or down, or its detection runs.
func (w *localWait) lookAgain(ctx context.Context) error {
	now, err := read(ctx, w.ns, w.conn, "", w.index)
	if err != nil {
		return err
	}
	if !now.Up {
		w.addrs = nil
		return nil
	}
	table := unix.RT_TABLE_LOCAL
	if now.Master != 0 { // a VRF has a table of its own
		table = unix.RT_TABLE_UNSPEC
	}
	if err := w.look(ctx, table); err != nil || len(w.addrs) == 0 {
		return err
	}
	have, err := readAddrs(ctx, w.conn, w.index)
	if err != nil {
		return err
	}
	w.addrs = slices.DeleteFunc(w.addrs, func(a netip.Addr) bool {
		return !slices.ContainsFunc(have, func(h Addr) bool { return h.Prefix.Addr() == a && h.usable() })
	})
	return nil
}

// look reads the link's local routes, and forgets the addresses that have one. The
// table 0 is all tables.
func (w *localWait) look(ctx context.Context, table int) error {
	local := make([]netip.Addr, 0, 8)
	err := w.conn.Dump(ctx, getLocalRoutes(w.index, table), func() { local = local[:0] }, func(m nl.Message) error {
		if m.Type != unix.RTM_NEWROUTE || len(m.Body) < unix.SizeofRtMsg || m.Body[7] != unix.RTN_LOCAL {
			return nil
		}
		var dst netip.Addr
		index := 0
		attrs := nl.Walk(m.Body[unix.SizeofRtMsg:])
		for attrs.Next() {
			switch attrs.Type() {
			case unix.RTA_DST:
				dst = addrOf(m.Body[0], attrs.Data())
			case unix.RTA_OIF:
				index = int(int32(attrs.U32()))
			}
		}
		if index == w.index {
			local = append(local, dst)
		}
		return attrs.Err()
	})
	if err != nil {
		return fmt.Errorf("reading the local routes: %w", err)
	}
	w.addrs = slices.DeleteFunc(w.addrs, func(a netip.Addr) bool { return slices.Contains(local, a) })
	return nil
}

// getLocalRoutes asks for a link's IPv6 routes of type local. The kernel filters
// when the socket is strict (>= 4.20).
func getLocalRoutes(index, table int) nl.Request {
	b := make([]byte, unix.SizeofRtMsg, unix.SizeofRtMsg+8)
	b[0], b[4], b[7] = unix.AF_INET6, byte(table), unix.RTN_LOCAL
	b = nl.AppendU32(b, unix.RTA_OIF, uint32(index))
	return nl.Request{Type: unix.RTM_GETROUTE, Body: b}
}

// usable reports whether an address can be used, as far as its flags say.
func (a *Addr) usable() bool { return !a.Tentative() || a.Flags&AddrOptimistic != 0 }

// nodad returns the IPv6 addresses that are given without detection.
func nodad(lists ...[]Addr) (all []netip.Addr) {
	for _, addrs := range lists {
		for i := range addrs {
			if a := &addrs[i]; a.Prefix.Addr().Is6() && a.Flags&AddrNoDAD != 0 && !a.Prefix.Addr().IsMulticast() {
				all = append(all, a.Prefix.Addr())
			}
		}
	}
	return all
}
