package wire

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

func TestBoxesReachEachOtherInEveryMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		mode state.Mode
		u    underlays
		way  string // in the routes to peers
	}{
		{"tunnel by IPv4", state.Tunnel, underlays{v4: true}, "encap"},
		{"tunnel by IPv6", state.Tunnel, underlays{v6: true}, "encap"},
		{"tunnel by both", state.Tunnel, underlays{v4: true, v6: true}, "encap"},
		{"direct", state.Direct, underlays{v4: true, v6: true}, "via"},
		{"auto", state.Auto, underlays{v4: true, v6: true}, "via"},
		{"auto, IPv6 only", state.Auto, underlays{v6: true}, "via"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			hosts := newHosts(t, 3, c.u)
			s := snapshotOf(t, config(c.mode), hosts)
			for _, h := range hosts {
				try(t, h.wire.Check(t.Context(), *s.Config, h.prefixes...))
			}
			join(t, s, hosts)
			out := testutil.Run(t, hosts[0].ns, "ip", "route", "show", "10.100.2.0/24")
			if !strings.Contains(out, c.way) {
				t.Errorf("the route is %q, without %q", out, c.way)
			}
			allReachAll(t, hosts)
			// The host itself reaches boxes, from its own address of the overlay.
			for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
				seen, err := reach(t.Context(), hosts[0].ns, hosts[1].box, hosts[1].boxAddr(f))
				if want := state.Gateway(hosts[0].prefixes[f/netns.IPv6]); err != nil || seen != want {
					t.Errorf("host 1 to box 2 by %v: it comes from %v, want %v; %v", f, seen, want, err)
				}
			}
		})
	}
}

func TestAFleetWithoutIPv6(t *testing.T) {
	t.Parallel()
	for _, mode := range []state.Mode{state.Tunnel, state.Direct} {
		hosts := newHosts(t, 2, underlays{v4: true, only4: true})
		cfg := config(mode)
		cfg.Pools, cfg.Size6 = cfg.Pools[:1], 0
		s := snapshotOf(t, cfg, hosts)
		try(t, hosts[0].wire.Check(t.Context(), cfg, hosts[0].prefixes...))
		join(t, s, hosts)
		allReachAll(t, hosts)
	}
}

func TestAFleetWithIPv6OnAHostWithoutIt(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true, only4: true})[0]
	err := h.wire.Check(t.Context(), config(state.Tunnel), h.prefixes...)
	if _, missing := h.ns.Sysctl(t.Context(), "net.ipv6.conf.all.forwarding"); missing == nil {
		try(t, err)
	} else if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "it has no IPv6") {
		t.Errorf("the error is %v", err)
	}
}

func TestADownPeerIsRefusedAtOnceAndComesBack(t *testing.T) {
	t.Parallel()
	hosts := newHosts(t, 2, underlays{v4: true, v6: true})
	for _, mode := range []state.Mode{state.Tunnel, state.Auto} {
		s := snapshotOf(t, config(mode), hosts)
		join(t, s, hosts)
		did, _, err := hosts[0].reconcile(t.Context(), s, map[state.ID]bool{hosts[1].id: true})
		try(t, err)
		if did.Routes.Replaced != 2 || did.Routes.Added+did.Routes.Deleted != 0 {
			t.Errorf("%s: down: %v", mode, did)
		}
		for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
			_, err := hosts[0].box.Dial(t.Context(), "tcp", netip.AddrPortFrom(hosts[1].boxAddr(f), 7000).String())
			if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s: a box dials one of a peer that is down by %v: %v", mode, f, err)
			}
		}
		did, _, err = hosts[0].reconcile(t.Context(), s, nil)
		try(t, err)
		if did.Routes.Replaced != 2 || did.Routes.Added+did.Routes.Deleted != 0 {
			t.Errorf("%s: back: %v", mode, did)
		}
		allReachAll(t, hosts)
	}
}

func TestAnUnderlayThatComesBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	for _, mode := range []state.Mode{state.Tunnel, state.Direct} {
		for _, u := range []underlays{{v4: true}, {v4: true, v6: true}} {
			hosts := newHosts(t, 2, u)
			cfg := config(mode)
			if !u.v6 && mode == state.Direct { // IPv6 has no gateway
				continue
			}
			s := snapshotOf(t, cfg, hosts)
			join(t, s, hosts)
			a := run(t, hosts[0], s)
			eventually(t, "the first round", func() bool { return a.count() > 0 })
			before := hosts[0].state(t)
			rounds := a.count()
			testutil.Run(t, hosts[0].ns, "ip", "link", "set", "eth0", "down")
			eventually(t, "a round", func() bool { return a.count() > rounds })
			if mode == state.Tunnel && hosts[0].state(t) != before {
				t.Errorf("the routes change when the underlay's link goes down:\n%s", hosts[0].state(t))
			}
			testutil.Run(t, hosts[0].ns, "ip", "link", "set", "eth0", "up")
			for _, p := range []string{"192.0.2.1/24", "fd77::1/64"} { // as whoever manages the link does
				if u.v6 {
					testutil.Try(t, hosts[0].ns, "ip", "addr", "add", p, "dev", "eth0", "nodad")
				}
			}
			eventually(t, "the routes", func() bool { return hosts[0].state(t) == before })
			eventually(t, "the link", func() bool {
				_, err := reach(t.Context(), hosts[0].ns, hosts[1].ns, netip.MustParseAddr("192.0.2.2"))
				return err == nil
			})
			allReachAll(t, hosts)
		}
	}
}

// A stream of packets, one each millisecond, is whole while the agents restart, peers come, go and change, and the wiring's MTU and
// addresses change in place.
func TestNoPacketIsLostWhileThingsChange(t *testing.T) {
	t.Parallel()
	for _, mode := range []state.Mode{state.Tunnel, state.Auto} {
		hosts := newHosts(t, 3, underlays{v4: true, v6: true})
		s := snapshotOf(t, config(mode), hosts)
		join(t, s, hosts)
		for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
			_, err := reach(t.Context(), hosts[0].box, hosts[1].box, hosts[1].boxAddr(f)) // neighbours are known from here on
			try(t, err)
			const count = 300
			in, err := hosts[1].box.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(hosts[1].boxAddr(f), 0).String())
			try(t, err)
			out, err := hosts[0].box.Dial(t.Context(), "udp", in.LocalAddr().String())
			try(t, err)
			var got atomic.Int64
			go func() {
				b := make([]byte, 8)
				for {
					if _, _, err := in.ReadFrom(b); err != nil {
						return
					}
					got.Add(1)
				}
			}()
			sent := make(chan error)
			go func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for range count {
					<-tick.C
					if _, err := out.Write([]byte("x")); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			fewer := *s
			fewer.Nodes = maps.Clone(s.Nodes)
			delete(fewer.Nodes, hosts[2].id)
			for i := 0; ; i++ {
				for _, h := range hosts[:2] {
					h.wire = New(h.ns, h.wire.o)
					now := []*state.Snapshot{s, &fewer}[i%2]
					_, _, err := h.reconcile(t.Context(), now, map[state.ID]bool{hosts[2].id: i%3 == 0})
					try(t, err)
					testutil.Run(t, h.ns, "ip", "link", "set", "fl0", "mtu", "1300")
					testutil.Run(t, h.ns, "ip", "addr", "add", "10.9.9.9/32", "dev", "fl0")
				}
				select {
				case err = <-sent:
				default:
					continue
				}
				break
			}
			try(t, err)
			deadline := time.Now().Add(5 * time.Second)
			eventually(t, "the packets", func() bool { return got.Load() >= count || time.Now().After(deadline) })
			if n := got.Load(); n != count {
				t.Errorf("%s, %v: %d of %d packets have come", mode, f, n, count)
			}
			in.Close()
			out.Close()
		}
	}
}
