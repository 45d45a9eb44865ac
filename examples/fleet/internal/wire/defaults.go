package wire

import (
	"context"
	"errors"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// watchDefaults follows the default routes of the main table. It reads the kernel's events alone: route.Watch would read the whole
// table, which a router has a million routes in, and again whenever a box's link ends. Routes that end without an event end with a link
// or an address, which watchLinks follows.
func (w *Wire) watchDefaults(ctx context.Context, synced chan<- struct{}, notify func()) error {
	events, err := nsconn.Subscribe(ctx, w.ns, unix.NETLINK_ROUTE, nl.EventConfig{
		Groups: []uint32{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE},
	})
	if err != nil {
		return err
	}
	defer events.Close()
	synced <- struct{}{}
	for {
		err := events.Receive(ctx, func(_ int, m nl.Message) error {
			if isDefault(m) {
				notify()
			}
			return nil
		})
		switch {
		case errors.Is(err, nl.ErrOverflow):
			notify()
		case err != nil:
			return err
		}
	}
}

// isDefault reports whether an event is about a default route of the main table (struct rtmsg in linux/rtnetlink.h).
func isDefault(m nl.Message) bool {
	const dstLen, table = 1, 4
	return len(m.Body) >= unix.SizeofRtMsg && m.Body[dstLen] == 0 && m.Body[table] == unix.RT_TABLE_MAIN
}
