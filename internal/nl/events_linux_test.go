package nl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// An event of the tests: an address that came or went, or a mark.
type addrEvent struct {
	mark string
	gone bool
	addr [4]byte
	id   int
}

func decodeAddr(id int, m nl.Message) (addrEvent, bool, error) {
	e := addrEvent{gone: m.Type == unix.RTM_DELADDR, id: id}
	w := nl.Walk(m.Body[unix.SizeofIfAddrmsg:])
	for w.Next() {
		if w.Type() == unix.IFA_LOCAL {
			copy(e.addr[:], w.Data())
		}
	}
	return e, e.addr != [4]byte{}, w.Err()
}

// addrSource is the IPv4 addresses of a namespace.
func addrSource(t testing.TB, ns *netns.NS, cfg nl.EventConfig) nl.Source[addrEvent] {
	cfg.Groups = []uint32{unix.RTNLGRP_IPV4_IFADDR}
	return nl.Source[addrEvent]{
		Subscribe: func() (*nl.Events, error) { return nsconn.Subscribe(t.Context(), ns, unix.NETLINK_ROUTE, cfg) },
		State: func(ctx context.Context) (state []addrEvent, err error) {
			c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
			if err != nil {
				return nil, err
			}
			req := nl.Request{Type: unix.RTM_GETADDR, Body: []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}}
			err = c.Dump(ctx, req, func() { state = nil }, func(m nl.Message) error {
				e, ok, err := decodeAddr(nl.NoID, m)
				if ok {
					state = append(state, e)
				}
				return err
			})
			return state, err
		},
		Decode: decodeAddr,
		Synced: addrEvent{mark: "synced"},
		Resync: addrEvent{mark: "resync"},
	}
}

func change(t testing.TB, c *nl.Conn, typ uint16, i int) {
	t.Helper()
	if err := c.Call(t.Context(), address(typ, i), nil); err != nil {
		t.Fatal(err)
	}
}

func TestFollowBeginsWithTheStateThenTellsChanges(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := exchange(t, ns)
	change(t, c, unix.RTM_NEWADDR, 1)
	want := []addrEvent{
		{addr: [4]byte{127, 0, 0, 1}, id: nl.NoID},
		{addr: [4]byte{127, 1, 0, 1}, id: nl.NoID},
		{mark: "synced"},
		{addr: [4]byte{127, 1, 0, 2}, id: nl.NoID},
		{addr: [4]byte{127, 1, 0, 1}, id: nl.NoID, gone: true},
	}
	i := 0
	for e, err := range nl.Follow(t.Context(), addrSource(t, ns, nl.EventConfig{})) {
		if err != nil {
			t.Fatal(err)
		}
		if e != want[i] {
			t.Fatalf("event %d is %+v, want %+v", i, e, want[i])
		}
		if i++; i == len(want) {
			break
		}
		if e.mark != "" {
			change(t, c, unix.RTM_NEWADDR, 2)
			change(t, c, unix.RTM_DELADDR, 1)
		}
	}
	if i != len(want) {
		t.Fatalf("%d events, want %d", i, len(want))
	}
}

// A reader that stops reading while 5,000 changes happen sees them all the same
// in the end: as a loss and a new state.
func TestFollowRecoversFromALoss(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := exchange(t, ns)
	src := addrSource(t, ns, nl.EventConfig{Buffer: 4096})
	have := map[[4]byte]bool{}
	resyncs, flooded := 0, false
	for e, err := range nl.Follow(t.Context(), src) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.mark == "resync":
			resyncs++
			clear(have)
		case e.mark == "synced" && !flooded:
			flooded = true
			for i := range 2500 {
				change(t, c, unix.RTM_NEWADDR, i)
				if i != 77 {
					change(t, c, unix.RTM_DELADDR, i)
				}
			}
		case e.mark == "":
			if e.gone {
				delete(have, e.addr)
			} else {
				have[e.addr] = true
			}
		}
		if e.mark == "synced" && resyncs > 0 {
			break
		}
	}
	want := map[[4]byte]bool{{127, 0, 0, 1}: true, {127, 1, 0, 77}: true}
	if resyncs == 0 || len(have) != len(want) || !have[[4]byte{127, 1, 0, 77}] || !have[[4]byte{127, 0, 0, 1}] {
		t.Errorf("%d resyncs, then %v, want %v", resyncs, have, want)
	}
}

func TestFollowEndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	synced := false
	var last error
	for e, err := range nl.Follow(ctx, addrSource(t, netnstest.New(t), nl.EventConfig{})) {
		last = err
		if e.mark == "synced" {
			synced = true
			time.AfterFunc(time.Millisecond, cancel) // while it waits, or just before
		}
	}
	if !synced || !errors.Is(last, context.Canceled) {
		t.Errorf("synced %v, ended with %v", synced, last)
	}
}

func TestFollowReportsWhyItCannotBegin(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	src := addrSource(t, ns, nl.EventConfig{})
	boom := errors.New("no state")
	src.State = func(context.Context) ([]addrEvent, error) { return nil, boom }
	n := 0
	for _, err := range nl.Follow(t.Context(), src) {
		if n++; !errors.Is(err, boom) {
			t.Errorf("got %v, want %v", err, boom)
		}
	}
	if n != 1 {
		t.Errorf("%d results, want the error once", n)
	}
}

// Events of a namespace that has an id here carry it.
func TestEventsOfOtherNamespaces(t *testing.T) {
	t.Parallel()
	here, there := netnstest.New(t), netnstest.New(t)
	c := exchange(t, here)
	const id = 7
	err := there.WithFd(func(fd int) error {
		b := make([]byte, 4) // struct rtgenmsg, padded
		b = nl.AppendU32(b, unix.NETNSA_NSID, id)
		b = nl.AppendU32(b, unix.NETNSA_FD, uint32(fd))
		return c.Call(t.Context(), nl.Request{Type: unix.RTM_NEWNSID, Body: b}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := nsconn.Subscribe(t.Context(), here, unix.NETLINK_ROUTE, nl.EventConfig{
		Groups: []uint32{unix.RTNLGRP_IPV4_IFADDR}, AllIDs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	change(t, exchange(t, there), unix.RTM_NEWADDR, 1)
	change(t, c, unix.RTM_NEWADDR, 2)
	var ids []int
	for len(ids) < 2 {
		err := e.Receive(t.Context(), func(id int, m nl.Message) error {
			if m.Type != unix.RTM_NEWADDR || binary.NativeEndian.Uint32(m.Body[4:]) != 1 {
				t.Errorf("message %d", m.Type)
			}
			ids = append(ids, id)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] != id || ids[1] != nl.NoID {
		t.Errorf("ids %v, want [%d %d]", ids, id, nl.NoID)
	}
}

// An event names the request that caused it.
func TestEventsNameTheirCause(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	one, two := exchange(t, ns), nl.NewConn(unix.NETLINK_ROUTE, dial(ns, unix.NETLINK_ROUTE))
	defer two.Close()
	e, err := nsconn.Subscribe(t.Context(), ns, unix.NETLINK_ROUTE, nl.EventConfig{Groups: []uint32{unix.RTNLGRP_IPV4_IFADDR}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for i, c := range []*nl.Conn{one, two} {
		want, err := c.PortID(t.Context())
		if err != nil || want == 0 {
			t.Fatalf("port %d, %v", want, err)
		}
		change(t, c, unix.RTM_NEWADDR, i+1)
		err = e.Receive(t.Context(), func(_ int, m nl.Message) error {
			if m.Port != want {
				t.Errorf("event %d is from %d, want %d", i, m.Port, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
