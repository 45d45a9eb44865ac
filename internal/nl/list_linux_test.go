package nl_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// manyAddresses gives lo 127.1.0.0 to 127.1.n-1 and returns the request for them
// and for 127.0.0.1, which is the first.
func manyAddresses(t testing.TB, c *nl.Conn, n int) nl.Request {
	t.Helper()
	reqs := make([]nl.Request, n)
	for i := range reqs {
		reqs[i] = address(unix.RTM_NEWADDR, i)
	}
	if err := c.Exec(t.Context(), reqs, nil); err != nil {
		t.Fatal(err)
	}
	return nl.Request{Type: unix.RTM_GETADDR, Body: []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}}
}

// local reads the address in a message.
func local(m nl.Message, a *uint32) (bool, error) {
	for w := nl.Walk(m.Body[unix.SizeofIfAddrmsg:]); w.Next(); {
		if w.Type() == unix.IFA_LOCAL {
			*a = binary.BigEndian.Uint32(w.Data())
			return true, nil
		}
	}
	return false, errors.New("no address in the message")
}

func TestListIsTheTableInItsOrder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 300, 3000} { // in one reply, and in more and more
		c := exchange(t, netnstest.New(t))
		req := manyAddresses(t, c, n)
		var want []uint32
		err := c.Dump(t.Context(), req, nil, func(m nl.Message) error {
			var a uint32
			_, err := local(m, &a)
			want = append(want, a)
			return err
		})
		if err != nil || len(want) != n+1 {
			t.Fatalf("%d addresses, %v", len(want), err)
		}
		all, err := nl.List(t.Context(), c, req, nil, local)
		if err != nil || len(all) != len(want) || cap(all) != len(all) {
			t.Fatalf("a list of %d with room for %d, %v; want %d", len(all), cap(all), err, len(want))
		}
		for i := range all {
			if all[i] != want[i] {
				t.Fatalf("entry %d of %d is %x, want %x", i, n, all[i], want[i])
			}
		}
	}
}

// What decode does not want leaves no trace: neither an entry nor what was written
// to its place.
func TestListOfSome(t *testing.T) {
	t.Parallel()
	c := exchange(t, netnstest.New(t))
	req := manyAddresses(t, c, 1000)
	for _, every := range []int{2, 100} {
		i := 0
		some, err := nl.List(t.Context(), c, req, nil, func(m nl.Message, a *uint32) (bool, error) {
			if *a != 0 {
				t.Errorf("a place holds %x", *a)
			}
			_, err := local(m, a)
			i++
			return i%every == 1, err
		})
		want := 1000/every + 1
		if err != nil || len(some) != want || cap(some) > 2*want {
			t.Errorf("one of %d: %d entries and room for %d, %v; want %d", every, len(some), cap(some), err, want)
		}
	}
	stop := errors.New("stop")
	if _, err := nl.List(t.Context(), c, req, nil, func(nl.Message, *uint32) (bool, error) { return false, stop }); err != stop {
		t.Errorf("an error of decode: %v", err)
	}
	if all, err := nl.List(t.Context(), c, req, nil, local); err != nil || len(all) != 1001 {
		t.Errorf("after that: %d entries, %v", len(all), err)
	}
	if _, err := nl.List(t.Context(), c, nl.Request{Type: unix.RTM_GETLINK, Body: []byte{1}}, nil, local); err == nil {
		t.Error("a request that is too short is no error")
	}
}

// Events that come up meanwhile are not in the list, not even one with the number
// of its own request; and a list that one of them voids is read again, of which
// nothing of the try before is left.
func TestListUnderGuard(t *testing.T) {
	t.Parallel()
	const n = 3000
	ns := netnstest.New(t)
	c := exchange(t, ns)
	other, err := nsconn.Own(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	manyAddresses(t, c, n)
	toggled := 0
	toggle := func() {
		change(t, other, [...]uint16{unix.RTM_NEWADDR, unix.RTM_DELADDR}[toggled%2], n)
		toggled++
	}
	for range n { // so that both connections have used as many numbers
		toggle()
	}
	req := nl.Request{Type: unix.RTM_GETROUTE, Body: append([]byte{unix.AF_INET}, make([]byte, unix.SizeofRtMsg-1)...)}
	for _, void := range []bool{false, true} {
		tries, events := 0, 0
		c.Fault(func(r nl.Request) nl.Request { tries++; return r })
		g := &nl.SplitGuard[int]{
			Groups: []uint32{unix.RTNLGRP_IPV4_IFADDR},
			Boundary: func(nl.Message) (int, bool) {
				for range 20 {
					if tries == 1 {
						toggle()
					}
				}
				return 0, true
			},
			Change: func(nl.Message) (int, bool) {
				events++
				return 0, void
			},
		}
		all, err := nl.List(t.Context(), c, req, g, func(m nl.Message, r *route4) (bool, error) {
			if m.Type != unix.RTM_NEWROUTE {
				t.Fatalf("a message of type %d", m.Type)
			}
			r.typ, r.bits = m.Body[7], m.Body[1]
			for w := nl.Walk(m.Body[unix.SizeofRtMsg:]); w.Next(); {
				if w.Type() == unix.RTA_DST {
					r.dst = w.BE32()
				}
			}
			return true, nil
		})
		if err != nil || events == 0 || (tries > 1) != void || len(all) < n {
			t.Fatalf("%d entries after %d tries and %d events, %v", len(all), tries, events, err)
		}
		seen := map[route4]bool{}
		for _, r := range all {
			if seen[r] {
				t.Fatalf("%+v stands there twice", r)
			}
			seen[r] = true
		}
	}
}

// route4 is what distinguishes the routes of a namespace with lo alone.
type route4 struct {
	typ, bits byte
	dst       uint32
}

func TestListAllocations(t *testing.T) {
	c := exchange(t, netnstest.New(t))
	req := manyAddresses(t, c, 5000)
	if n := allocs.PerRun(t, 20, func() {
		if all, err := nl.List(t.Context(), c, req, nil, local); err != nil || len(all) != 5001 {
			t.Fatal(len(all), err)
		}
	}); n > 16 {
		t.Errorf("a list of 5,000 allocates %v times, want at most 16", n)
	}
}
