package nl_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A dump under guard hears of the changes that another socket makes meanwhile,
// and the connection is as good as before afterwards.
func TestDumpUnderGuard(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := exchange(t, ns)
	other, err := nsconn.Own(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i := range 2000 { // several datagrams
		change(t, c, unix.RTM_NEWADDR, i)
	}
	req := nl.Request{Type: unix.RTM_GETADDR, Body: []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}}
	boundaries, events, seen, tries := 0, 0, 0, 0
	g := &nl.SplitGuard[int]{
		Groups:   []uint32{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR},
		Boundary: func(nl.Message) (int, bool) { boundaries++; return 0, true },
		Change: func(m nl.Message) (int, bool) {
			events++
			if m.Type != unix.RTM_DELADDR || binary.NativeEndian.Uint32(m.Body[4:]) != 1 {
				t.Errorf("an event of type %d", m.Type)
			}
			return 0, true
		},
	}
	disturb := true
	each := func(m nl.Message) error {
		if seen++; seen == 1 && disturb {
			change(t, other, unix.RTM_DELADDR, 1999)
		}
		return nil
	}
	if err := c.DumpOnce(t.Context(), req, g, each); !errors.Is(err, nl.ErrInterrupted) {
		t.Errorf("a table that changed: %v", err)
	}
	if boundaries < 2 || events != 1 {
		t.Errorf("%d boundaries and %d events seen, want several and one", boundaries, events)
	}
	change(t, other, unix.RTM_NEWADDR, 1999)
	if err := c.DumpGuarded(t.Context(), req, g, func() { seen = 0; tries++; disturb = tries == 1 }, each); err != nil {
		t.Error(err)
	}
	if tries != 2 || seen != 2000 { // 1,999 and that of the link itself
		t.Errorf("%d addresses after %d tries, want 2000 after 2", seen, tries)
	}
	// A change that the kernel reports behind the last address counts if it does
	// so before it answers the barrier.
	disturb, seen = false, 0
	late := &nl.SplitGuard[int]{Groups: g.Groups, Boundary: g.Boundary, Change: g.Change, Barrier: &nl.Request{Type: unix.RTM_GETLINK, Body: make([]byte, unix.SizeofIfInfomsg)}}
	binary.NativeEndian.PutUint32(late.Barrier.Body[4:], 1)
	if err := c.DumpOnce(t.Context(), req, late, each); err != nil || seen != 2000 {
		t.Errorf("with a barrier: %d addresses, %v", seen, err)
	}
	seen = 0
	err = c.DumpOnce(t.Context(), req, late, func(m nl.Message) error {
		if seen++; seen == 2000 {
			change(t, other, unix.RTM_DELADDR, 0)
		}
		return nil
	})
	if !errors.Is(err, nl.ErrInterrupted) {
		t.Errorf("a change at the end: %v", err)
	}
	// No event is left over for the exchanges that follow.
	change(t, other, unix.RTM_DELADDR, 1998)
	events = 0
	if err := c.Dump(t.Context(), req, nil, each); err != nil || events != 0 {
		t.Errorf("a dump without guard: %v, %d events", err, events)
	}
}
