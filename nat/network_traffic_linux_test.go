package nat

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// newPublished is a topology with networks, ports published on every address, and a
// server at port 80 of everybody but the host.
func newPublished(t *testing.T, filtered bool, nets ...Network) topology {
	t.Helper()
	s := wire(t)
	bridgeNF(t, s.host, filtered)
	s.gw = open(t, s.host)
	for _, net := range nets {
		if err := s.gw.AddNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	for _, ns := range []*netns.NS{s.box, s.sibling, s.other, s.outside, s.beyond} {
		answer(t, ns, TCP)
	}
	return s
}

// each runs fn as a subtest without and with br_netfilter.
func each(t *testing.T, fn func(t *testing.T, filtered bool)) {
	t.Parallel()
	for i, name := range []string{"bridged past the firewall", "bridged through the firewall"} {
		if !testutil.Spread(i, 2) {
			continue
		}
		filtered := i == 1
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, filtered)
		})
	}
}

// dropping makes attempts without an answer until the networks have counted what
// they should, and returns them.
func (s topology) dropping(t *testing.T, counted func([]NetworkState) bool, all ...attempt) (nets []NetworkState) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	for _, a := range all {
		calls.Go(func() { call(ctx, a.from, a.proto, a.addr) })
	}
	var err error
	if !until(func() bool {
		nets, err = s.gw.ListNetworks(t.Context())
		return err != nil || counted(nets)
	}) || err != nil {
		t.Fatalf("drops: %+v, %v", nets, err)
	}
	return nets
}

func TestBoxesHaveTheAddressTheNetworkSays(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		fixed := network1()
		fixed.Masquerade, fixed.SNAT = false, addrs("203.0.113.1", "2001:db8:1::1")
		s := newPublished(t, filtered, network0(), fixed)
		try(t,
			attempt{"masqueraded box", s.box, TCP, "203.0.113.9:80", "203.0.113.1"},
			attempt{"masqueraded box", s.box, TCP, "198.51.100.9:80", "198.51.100.1"},
			attempt{"masqueraded box", s.box, TCP, "[2001:db8:1::9]:80", "2001:db8:1::1"},
			attempt{"masqueraded box", s.box, TCP, "[2001:db8:2::9]:80", "2001:db8:2::1"},
			attempt{"box with a fixed address", s.other, TCP, "203.0.113.9:80", "203.0.113.1"},
			attempt{"box with a fixed address", s.other, TCP, "198.51.100.9:80", "203.0.113.1"},
			attempt{"box with a fixed address", s.other, TCP, "[2001:db8:2::9]:80", "2001:db8:1::1"},
			attempt{"host", s.host, TCP, "10.88.0.2:80", "10.88.0.1"},
			attempt{"sibling", s.sibling, TCP, "10.88.0.2:80", "10.88.0.3"},
			attempt{"sibling", s.sibling, TCP, "[fd88::2]:80", "fd88::3"},
			attempt{"other network", s.other, TCP, "10.88.0.2:80", none},
			attempt{"other network", s.other, TCP, "[fd88::2]:80", none},
		)
	})
}

func TestLinkedNetworksReachEachOtherOneWay(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		from := network0()
		from.AllowTo = []string{"br1"}
		s := newPublished(t, filtered, from, network1())
		try(t,
			attempt{"linked network", s.box, TCP, "10.89.0.2:80", "10.88.0.2"},
			attempt{"linked network", s.box, TCP, "[fd89::2]:80", "fd88::2"},
			attempt{"network linked to", s.other, TCP, "10.88.0.2:80", none},
			attempt{"network linked to", s.other, TCP, "[fd88::2]:80", none},
			attempt{"network linked to", s.other, TCP, "203.0.113.1:8080", "10.89.0.2"},
		)
	})
}

func TestAnInternalNetworkHasNoWayOut(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		internal := network0()
		internal.Internal = true
		s := newPublished(t, filtered, internal, network1())
		if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8081", "10.89.0.2:80", "other")); err != nil {
			t.Fatal(err)
		}
		serve(t, s.host, ":90")
		try(t,
			attempt{"internal box", s.box, TCP, "203.0.113.9:80", none},
			attempt{"internal box", s.box, TCP, "[2001:db8:1::9]:80", none},
			attempt{"internal box", s.box, TCP, "10.89.0.2:80", none},
			attempt{"internal box", s.box, TCP, "203.0.113.1:8081", none}, // published by another network
			attempt{"internal box", s.box, TCP, "10.88.0.3:80", "10.88.0.2"},
			attempt{"internal box", s.box, TCP, "[fd88::3]:80", "fd88::2"},
			attempt{"internal box", s.box, TCP, "10.88.0.1:90", "10.88.0.2"},
			attempt{"internal box", s.box, TCP, "203.0.113.1:8080", "10.88.0.1"}, // its own
			attempt{"outside", s.outside, TCP, "203.0.113.1:8080", "203.0.113.9"},
			attempt{"outside", s.outside, TCP, "[2001:db8:1::1]:8080", "2001:db8:1::9"},
		)
		got := s.dropping(t, func(all []NetworkState) bool { return all[0].Drops.Out > 0 },
			attempt{"internal box", s.box, TCP, "203.0.113.9:80", none})
		if got[1].Drops != (Drops{}) {
			t.Errorf("drops: %+v", got)
		}
	})
}

// Published ports stay reachable, and so does neighbour discovery work
// (moby#45460, netavark#709).
func TestBoxesOfAnIsolatedNetworkMeetAtPublishedPortsOnly(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		isolated := network0()
		isolated.Isolated = true
		s := newPublished(t, filtered, isolated, network1())
		if !filtered { // the caller who adds the ports sets the flag; with it, siblings would not meet through the firewall
			for _, port := range []string{"box0", "sib0"} {
				testutil.Run(t, s.host, "ip", "link", "set", port, "type", "bridge_slave", "isolated", "on")
			}
		}
		for _, ns := range []*netns.NS{s.box, s.sibling, s.host} {
			testutil.Run(t, ns, "ip", "neigh", "flush", "all")
		}
		try(t,
			attempt{"sibling", s.sibling, TCP, "10.88.0.2:80", none},
			attempt{"sibling", s.sibling, TCP, "[fd88::2]:80", none},
			attempt{"sibling", s.sibling, TCP, "203.0.113.1:8080", "10.88.0.1"},
			attempt{"sibling", s.sibling, TCP, "[2001:db8:1::1]:8080", "fd88::1"},
			attempt{"sibling", s.sibling, TCP, "203.0.113.9:80", "203.0.113.1"},
			attempt{"sibling", s.sibling, TCP, "[2001:db8:1::9]:80", "2001:db8:1::1"},
			attempt{"box itself", s.box, TCP, "203.0.113.1:8080", "10.88.0.1"},
			attempt{"host", s.host, TCP, "10.88.0.2:80", "10.88.0.1"},
			attempt{"host", s.host, TCP, "[fd88::2]:80", "fd88::1"},
			attempt{"outside", s.outside, TCP, "203.0.113.1:8080", "203.0.113.9"},
			attempt{"other network", s.other, TCP, "203.0.113.1:8080", "10.89.0.2"},
			attempt{"other network", s.other, TCP, "10.88.0.2:80", none},
		)
		got := s.dropping(t, func(all []NetworkState) bool {
			return all[0].Drops.In > 0 && (!filtered || all[0].Drops.InterBox > 0)
		}, attempt{"sibling", s.sibling, TCP, "10.88.0.2:80", none}, attempt{"other network", s.other, TCP, "10.88.0.2:80", none})
		open := []string(nil) // to frames that the firewall is not shown
		if filtered {
			open = []string{"box0", "sib0"}
		}
		if !filtered && got[0].Drops.InterBox > 0 || !slices.Equal(got[0].LeakyPorts, open) {
			t.Errorf("%+v", got)
		}
	})
}

func TestPinholesAreReachedAtTheBox(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		routed := network0()
		routed.Masquerade = false
		s := newPublished(t, filtered, routed, network1())
		for _, port := range []string{":81", ":8005"} {
			serve(t, s.box, port)
		}
		err := s.gw.AddPinholes(t.Context(), pinhole("10.88.0.2:80", 0, "web"), pinhole("[fd88::2]:80", 0, "web"),
			pinhole("10.88.0.2:8000", 8010, "web"))
		if err != nil {
			t.Fatal(err)
		}
		try(t,
			attempt{"outside", s.outside, TCP, "10.88.0.2:80", "203.0.113.9"},
			attempt{"outside", s.outside, TCP, "[fd88::2]:80", "2001:db8:1::9"},
			attempt{"outside", s.outside, TCP, "10.88.0.2:8005", "203.0.113.9"},
			attempt{"outside", s.outside, TCP, "10.88.0.2:81", none},
			attempt{"outside", s.outside, TCP, "[fd88::2]:8005", none},
			attempt{"outside", s.outside, TCP, "10.88.0.3:80", none},
			attempt{"other network", s.other, TCP, "10.88.0.2:80", "10.89.0.2"},
			attempt{"routed box", s.box, TCP, "203.0.113.9:80", "10.88.0.2"},
			attempt{"routed box", s.box, TCP, "[2001:db8:1::9]:80", "fd88::2"},
		)
		if err := s.gw.DeletePinholes(t.Context(), pinhole("10.88.0.2:80", 0, "web")); err != nil {
			t.Fatal(err)
		}
		try(t,
			attempt{"outside", s.outside, TCP, "10.88.0.2:80", none},
			attempt{"outside", s.outside, TCP, "10.88.0.2:8005", "203.0.113.9"},
		)
	})
}

func TestMSSIsClampedForNetworksThatAsk(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	clamped := network1()
	clamped.ClampMSS = true
	s := newPublished(t, false, network0(), clamped)
	testutil.Run(t, s.host, "ip", "link", "set", "up1", "mtu", "1400")
	for _, c := range []struct {
		name       string
		from       *netns.NS
		want4, at6 int
	}{
		{"plain", s.box, 1460, 1440},
		{"clamped", s.other, 1360, 1340},
	} {
		for addr, want := range map[string]int{"198.51.100.9:0": c.want4, "[2001:db8:2::9]:0": c.at6} {
			if got := segmentSize(t, c.from, s.beyond, addr); got != want {
				t.Errorf("%s, %s: the server may send segments of %d bytes, want %d", c.name, addr, got, want)
			}
		}
	}
}

// segmentSize connects and returns the maximum segment size that the server at
// addr of ns was reported by the client. The port is a fresh one: a process that
// another test is starting may hold the last one's socket for a moment.
func segmentSize(t *testing.T, from, ns *netns.NS, addr string) int {
	t.Helper()
	setSysctl(t, ns, "ipv4/tcp_timestamps", "0") // they would take their part of a segment
	ln, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := from.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return int(info.Snd_mss)
}

// Links that only our networks made forward are closed to strangers, but not to
// what another program publishes (moby#39439, moby#50566).
func TestWhatAnotherProgramPublishesPassesTheHost(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newPublished(t, filtered, network0()) // br1 is the other program's
		testutil.Run(t, s.host, "nft", `table inet theirs {
			chain in { type nat hook prerouting priority -100; tcp dport 9000 dnat ip to 10.89.0.2:80; }
			chain fw { type filter hook forward priority 0; policy accept; }
		}`)
		theirs := testutil.Run(t, s.host, "nft", "list", "table", "inet", "theirs")
		expect(t, s.host, map[string]string{"ipv4/conf/all/forwarding": "0", "ipv4/conf/default/forwarding": "0"})
		try(t,
			attempt{"outside", s.outside, TCP, "203.0.113.1:9000", "203.0.113.9"},
			attempt{"outside", s.outside, TCP, "10.89.0.2:80", none},
			attempt{"outside", s.outside, TCP, "198.51.100.9:80", none},
		)
		if got := testutil.Run(t, s.host, "nft", "list", "table", "inet", "theirs"); got != theirs {
			t.Errorf("their table became:\n%s", got)
		}
	})
}

// What is bridged passes the firewall's forward chain where br_netfilter is on,
// with the bridge for both links.
func TestAnotherProgramsBridgeIsNoWayForStrangersAndStillABridge(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := wire(t)
		bridgeNF(t, s.host, filtered)
		// br1 is not ours. Another box is on it.
		beside := netnstest.New(t)
		ip(t, s.host, fmt.Sprintf(`
			link add oth1 type veth peer name eth0 netns %d
			link set oth1 master br1 up`, standIn(t, beside)))
		ip(t, beside, `
			link set eth0 up
			addr add 10.89.0.3/16 dev eth0
			addr add fd89::3/64 dev eth0 nodad
			route add default via 10.89.0.1`)
		s.gw = open(t, s.host)
		if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
			t.Fatal(err)
		}
		s.waitReady(t)
		answer(t, beside, TCP)
		answer(t, s.outside, TCP)
		meet := []attempt{
			{"box on another's bridge", s.other, TCP, "10.89.0.3:80", "10.89.0.2"},
			{"box on another's bridge", s.other, TCP, "[fd89::3]:80", "fd89::2"},
			{"box on another's bridge", s.other, TCP, "203.0.113.9:80", none}, // not without its program's forwarding
		}
		try(t, meet...)
		if err := s.gw.Sync(t.Context(), State{Networks: []Network{network0()}}); err != nil {
			t.Fatal(err)
		}
		try(t, meet...)
		// A network that is no more is a bridge, too.
		if err := s.gw.AddNetwork(t.Context(), network1()); err != nil {
			t.Fatal(err)
		}
		if err := s.gw.DeleteNetwork(t.Context(), "br1"); err != nil {
			t.Fatal(err)
		}
		try(t, meet...)
		if err := s.gw.DeleteNetwork(t.Context(), "br0"); err != nil {
			t.Fatal(err)
		}
		if out := listing(t, s.host); strings.Contains(out, `"br1"`) {
			t.Errorf("after the last network there is left:\n%s", out)
		}
	})
}
