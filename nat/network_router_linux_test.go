package nat

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// secondRouter puts a router on the bridge br0, 10.88.0.254 and fd88::fe, with a link
// of its own to the outside, 192.0.2.9 and 2001:db8:9::9 there.
func secondRouter(t *testing.T, s topology) *netns.NS {
	t.Helper()
	router := netnstest.New(t)
	// Before it has links: a router whose link-local address is tentative finds no neighbours, and
	// reports so with an address of its other link.
	setSysctl(t, router, "ipv6/conf/default/dad_transmits", "0")
	ip(t, s.host, fmt.Sprintf(`
		link add rtr0 type veth peer name eth0 netns %d
		link set rtr0 master br0 up`, standIn(t, router)))
	setSysctl(t, router, "ipv4/ip_forward", "1")
	setSysctl(t, router, "ipv6/conf/all/forwarding", "1")
	ip(t, router, fmt.Sprintf(`
		link set eth0 up
		addr add 10.88.0.254/16 dev eth0
		addr add fd88::fe/64 dev eth0 nodad
		link add far0 type veth peer name far0 netns %d
		link set far0 up
		addr add 192.0.2.1/24 dev far0
		addr add 2001:db8:9::1/64 dev far0 nodad
		route add default via 10.88.0.1
		route add ::/0 via fd88::1`, standIn(t, s.outside)))
	ip(t, s.outside, `
		link set far0 up
		addr add 192.0.2.9/24 dev far0
		addr add 2001:db8:9::9/64 dev far0 nodad`)
	for _, ns := range []*netns.NS{s.host, s.outside, router, s.box} {
		for _, dev := range []string{"all", "default"} {
			setSysctl(t, ns, "ipv4/conf/"+dev+"/rp_filter", "0")
		}
	}
	for _, dev := range []string{"up0", "br0"} {
		setSysctl(t, s.host, "ipv4/conf/"+dev+"/rp_filter", "0")
	}
	setSysctl(t, s.outside, "ipv4/conf/wan0/rp_filter", "0")
	setSysctl(t, s.outside, "ipv4/conf/far0/rp_filter", "0")
	return router
}

// Where a second router is on the bridge of a routed network, the host sees one side
// of a connection only.
func TestARoutedNetworkMayHaveASecondRouter(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := wire(t)
		bridgeNF(t, s.host, filtered)
		secondRouter(t, s)
		routed := network0()
		routed.Masquerade = false
		routed.Pinholes = []Pinhole{pinhole("10.88.0.2:80", 0, "web"), pinhole("[fd88::2]:80", 0, "web"), udpPinhole("10.88.0.2:80"), udpPinhole("[fd88::2]:80")}
		s.gw = open(t, s.host)
		if err := s.gw.AddNetwork(t.Context(), routed); err != nil {
			t.Fatal(err)
		}
		s.waitReady(t)
		for _, proto := range []Proto{TCP, UDP} {
			answer(t, s.box, proto)
			answer(t, s.outside, proto)
		}
		in := []attempt{
			{"outside", s.outside, TCP, "10.88.0.2:80", "203.0.113.9"}, {"outside", s.outside, TCP, "[fd88::2]:80", "2001:db8:1::9"},
			{"outside", s.outside, UDP, "10.88.0.2:80", "203.0.113.9"}, {"outside", s.outside, UDP, "[fd88::2]:80", "2001:db8:1::9"},
		}
		t.Run("in by the router and back by the host", func(t *testing.T) {
			ip(t, s.outside, `
				route replace 10.88.0.0/16 via 192.0.2.1 src 203.0.113.9
				route replace fd88::/64 via 2001:db8:9::1 src 2001:db8:1::9`)
			try(t, in...)
			closed := pinhole("10.88.0.2:80", 0, "web")
			if err := s.gw.DeletePinholes(t.Context(), closed); err != nil { // the router's to judge
				t.Fatal(err)
			}
			try(t, in...)
			if err := s.gw.AddPinholes(t.Context(), closed); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("in by the host and back by the router", func(t *testing.T) {
			ip(t, s.outside, `
				route replace 10.88.0.0/16 via 203.0.113.1
				route replace fd88::/64 via 2001:db8:1::1`)
			ip(t, s.box, `
				route replace default via 10.88.0.254
				route del ::/0
				route add ::/0 via fd88::fe`)
			try(t, in...)
		})
		if nets, err := s.gw.ListNetworks(t.Context()); err != nil || nets[0].Drops.Source+nets[0].Drops.Invalid != 0 {
			t.Errorf("%+v, %v", nets, err)
		}
	})
}

func udpPinhole(box string) Pinhole { return Pinhole{Proto: UDP, Box: ap(box), Owner: "web"} }

// What a box forwards for others has their source; the network says whose.
func TestARouterInABoxNeedsItsPrefixesNamed(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := wire(t)
		bridgeNF(t, s.host, filtered)
		secondRouter(t, s)
		// The host knows the way back, and outside asks by the router.
		ip(t, s.host, `
			route add 192.0.2.0/24 via 10.88.0.254
			route add 2001:db8:9::/64 via fd88::fe`)
		ip(t, s.outside, `
			route add 198.51.100.0/24 via 192.0.2.1 src 192.0.2.9
			route add 2001:db8:2::/64 via 2001:db8:9::1 src 2001:db8:9::9
			route add 10.88.0.1 via 192.0.2.1 src 192.0.2.9
			route add fd88::1 via 2001:db8:9::1 src 2001:db8:9::9`)
		s.gw = open(t, s.host)
		network := network0()
		if err := s.gw.AddNetwork(t.Context(), network); err != nil {
			t.Fatal(err)
		}
		s.waitReady(t)
		answer(t, s.beyond, TCP)
		serve(t, s.host, ":90")
		through := []attempt{
			{"a VPN's client", s.outside, TCP, "198.51.100.9:80", none}, {"a VPN's client", s.outside, TCP, "[2001:db8:2::9]:80", none},
			{"a VPN's client", s.outside, TCP, "10.88.0.1:90", none}, {"a VPN's client", s.outside, TCP, "[fd88::1]:90", none},
		}
		try(t, append(through, attempt{"box", s.box, TCP, "198.51.100.9:80", "198.51.100.1"})...)
		nets := s.dropping(t, func(all []NetworkState) bool { return all[0].Drops.Source > 0 }, through...)
		if nets[0].Drops.In+nets[0].Drops.Out != 0 {
			t.Errorf("%+v", nets)
		}
		network.Behind = prefixes("192.0.2.0/24", "2001:db8:9::9/128")
		if err := s.gw.SetNetwork(t.Context(), network); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"198.51.100.1", "2001:db8:2::1", "192.0.2.9", "2001:db8:9::9"} {
			through[i].want = want
		}
		try(t, through...)
	})
}

// ICMPv6 of neighbour and listener discovery is not tracked, and so not translated.
func TestWhatIsNotTrackedDoesNotLeaveATranslatedNetwork(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		fixed := network1()
		fixed.Masquerade, fixed.SNAT = false, addrs("203.0.113.1", "2001:db8:1::1")
		s := newPublished(t, filtered, network0(), fixed)
		var mu sync.Mutex // guards leaks
		leaks := map[netip.Addr]byte{}
		watchFrames(t, s.outside, "wan0", false, func(p parsed) {
			if p.proto == unix.IPPROTO_ICMPV6 && len(p.payload) > 4 {
				mu.Lock()
				defer mu.Unlock()
				leaks[p.src.Addr()] = p.payload[0]
			}
		})
		for _, c := range []struct {
			ns      *netns.NS
			dev, me string
			at      int
		}{{s.box, "br0", "fd88::2", 0}, {s.other, "br1", "fd89::2", 1}} {
			end, to := newWireEnd(t, c.ns, "eth0"), macOf(t, s.host, c.dev)
			me := netip.MustParseAddr(c.me)
			send := func() {
				for typ := byte(130); typ <= 143; typ++ {
					body := []byte{typ, 0, 0, 0, 0, 0, 0, 0}
					end.sendFrame(t, to, ipPacket(me, netip.MustParseAddr("2001:db8:1::9"), unix.IPPROTO_ICMPV6, 64, body, 2))
				}
			}
			leaked := func() byte {
				mu.Lock()
				defer mu.Unlock()
				return leaks[me]
			}
			send()
			nets := s.dropping(t, func(all []NetworkState) bool { return all[c.at].Drops.Invalid >= 7 },
				attempt{"box", c.ns, TCP, "[2001:db8:1::9]:81", none})
			if typ := leaked(); typ != 0 {
				t.Errorf("%s: type %d left the network: %+v", c.me, typ, nets)
			}
			if !filtered { // what would arrive without the rule
				testutil.Run(t, s.host, "nft", "delete", "element", "inet", "boxwire", "translated6", fmt.Sprintf("{ %q }", c.dev))
				if !until(func() bool { send(); return leaked() != 0 }) {
					t.Errorf("%s: nothing leaves without the rule: the test proves nothing", c.me)
				}
			}
		}
	})
}
