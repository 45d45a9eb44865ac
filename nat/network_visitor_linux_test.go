package nat

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A published port may lead to a box of another host, whose way to the visitors is another one. With
// VisitorSNAT, the answers come back.
func TestAPublishedPortOfABoxOnAnotherHost(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	net := trusting("10.70.0.0/16", "fd70::/16")
	s := newFar(t, net, network1())
	ip(t, s.beyond, `
		route del default
		route del ::/0
		route add 198.51.100.3/32 dev wan0 src 10.70.0.9
		route add 2001:db8:2::3/128 dev wan0 src fd70::9
		route add 10.88.0.0/16 via 198.51.100.1 src 10.70.0.9
		route add fd88::/64 via 2001:db8:2::1 src fd70::9`)
	// Addresses that a masquerade does not take.
	ip(t, s.host, "addr add 198.51.100.3/24 dev up1\naddr add 2001:db8:2::3/64 dev up1 nodad preferred_lft 0")
	ports := []Port{
		tcp("0.0.0.0:8080", "10.70.0.9:80", "far"), tcp("[::]:8080", "[fd70::9]:80", "far"),
		udp("0.0.0.0:8080", "10.70.0.9:80", "far"), udp("[::]:8080", "[fd70::9]:80", "far"),
	}
	if err := s.gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	kinds := func() (all []CauseKind) {
		causes, err := s.gw.Explain(t.Context(), ports[0], Hints{From: netip.MustParseAddr("203.0.113.9"), Box: s.beyond})
		if err != nil {
			t.Error(err)
		}
		for _, c := range causes {
			all = append(all, c.Kind)
		}
		return all
	}
	if got := kinds(); !slices.Equal(got, []CauseKind{CauseOtherHost}) {
		t.Errorf("without VisitorSNAT, Explain finds %v", got)
	}
	const me4, me6, own4, own6 = "198.51.100.3", "2001:db8:2::3", "10.88.0.2", "fd88::2"
	visit := func(four, six string) {
		t.Helper()
		for _, proto := range []Proto{TCP, UDP} {
			try(t,
				attempt{"outside", s.outside, proto, "203.0.113.1:8080", four}, attempt{"outside", s.outside, proto, "[2001:db8:1::1]:8080", six},
				attempt{"other", s.other, proto, "203.0.113.1:8080", four}, attempt{"other", s.other, proto, "[2001:db8:1::1]:8080", six},
				// Its own network's boxes keep their addresses, as when they ask the box itself.
				attempt{"box", s.box, proto, "203.0.113.1:8080", own4}, attempt{"box", s.box, proto, "[2001:db8:1::1]:8080", own6},
				attempt{"box", s.box, proto, "10.70.0.9:80", own4}, attempt{"box", s.box, proto, "[fd70::9]:80", own6},
			)
		}
	}
	try(t, attempt{"outside", s.outside, UDP, "203.0.113.1:8080", none}, attempt{"outside", s.outside, UDP, "[2001:db8:1::1]:8080", none},
		attempt{"box", s.box, UDP, "203.0.113.1:8080", own4}, attempt{"box", s.box, UDP, "[2001:db8:1::1]:8080", own6})

	for _, set := range []struct {
		name string
		do   func(Network) error
		snat []netip.Addr
	}{
		{"SetNetwork", func(n Network) error { return s.gw.SetNetwork(t.Context(), n) }, addrs(me4, me6)},
		{"Sync without", func(n Network) error {
			return s.gw.Sync(t.Context(), State{Networks: []Network{n, network1()}, Ports: ports})
		}, nil},
		{"Sync", func(n Network) error {
			return s.gw.Sync(t.Context(), State{Networks: []Network{n, network1()}, Ports: ports})
		}, addrs(me4, me6)},
	} {
		net.VisitorSNAT = set.snat
		other := net
		other.VisitorSNAT = addrs(me4, "2001:db8:2::5")
		if err := set.do(net); err != nil {
			t.Fatalf("%s: %v", set.name, err)
		}
		if got, err := s.gw.ListNetworks(t.Context()); err != nil || !reflect.DeepEqual(plain(got), []Network{net, network1()}) {
			t.Errorf("%s: listed are %+v, %v", set.name, got, err)
		}
		for _, n := range []Network{net, other} {
			err := Check(t.Context(), s.host, "", State{Networks: []Network{n, network1()}, Ports: ports})
			if wrong := !reflect.DeepEqual(n, net); wrong != errors.Is(err, ErrDamaged) || !wrong && err != nil {
				t.Errorf("%s: Check for VisitorSNAT %v: %v", set.name, n.VisitorSNAT, err)
			}
		}
		flows, err := s.gw.ListFlows(t.Context(), addrs("10.70.0.9", "fd70::9")...)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			if !slices.Contains(addrs(own4, own6), f.Original.Src.Addr()) {
				t.Errorf("%s: a flow goes on that would be translated otherwise now: %v", set.name, f)
			}
		}
		if set.snat == nil {
			continue
		}
		visit(me4, me6)
		try(t, attempt{"host", s.host, TCP, "203.0.113.1:8080", me4}, attempt{"host", s.host, TCP, "[2001:db8:1::1]:8080", me6})
		if got := kinds(); len(got) != 0 {
			t.Errorf("%s: Explain finds %v", set.name, got)
		}
	}

	// An address of no link.
	net.VisitorSNAT = addrs("198.51.100.4", "2001:db8:2::4")
	if err := s.gw.SetNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	if got := kinds(); !slices.Equal(got, []CauseKind{CauseAddressNotLocal}) {
		t.Errorf("with an address that the host has not, Explain finds %v", got)
	}
	ip(t, s.host, "addr add 198.51.100.4/24 dev up1")
	if got := kinds(); len(got) != 0 {
		t.Errorf("with the address, Explain finds %v", got)
	}
	net.VisitorSNAT = addrs(me4, me6)
	if err := s.gw.SetNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}

	// One address for a prefix.
	again := network1()
	again.Trusted, again.VisitorSNAT = prefixes("10.70.8.0/24", "fd80::/12"), addrs(me4)
	for name, err := range map[string]error{
		"SetNetwork":     s.gw.SetNetwork(t.Context(), again),
		"Sync of a part": s.gw.Sync(t.Context(), State{Networks: []Network{again}, Owners: func(string) bool { return false }}),
	} {
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "the trusted prefix 10.70.8.0/24 overlaps one of the network br0") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.gw.Sync(t.Context(), State{Networks: []Network{net, again}}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "10.70.0.0/16 and 10.70.8.0/24 overlap") {
		t.Errorf("Sync: %v", err)
	}
	again.Trusted = prefixes("10.71.0.0/16", "fd80::/12")
	if err := s.gw.SetNetwork(t.Context(), again); err != nil {
		t.Errorf("beside each other: %v", err)
	}
	visit(me4, me6)
}

// newFarPort is a topology where port 8007 leads to port 7 of a box of another host, which answers with the
// address and the port that it sees (tellPorts). Visitors have the address of br0 there. It returns the
// box's UDP socket.
func newFarPort(t *testing.T, filtered bool) (topology, net.PacketConn) {
	t.Helper()
	trusted := trusting("10.70.0.0/16", "fd70::/16")
	trusted.VisitorSNAT = addrs("10.88.0.1", "fd88::1")
	s := wire(t)
	bridgeNF(t, s.host, filtered)
	ip(t, s.beyond, "addr add 10.70.0.9/32 dev lo\naddr add fd70::9/128 dev lo nodad")
	s.as(t, "10.70.0.9", "fd70::9")
	ip(t, s.host, "route add 10.70.0.0/16 via 198.51.100.9\nroute add fd70::/16 via 2001:db8:2::9")
	s.gw = openWith(t, s.host, Options{NoReserve: true}) // a program of the host has the port, too
	var ports []Port
	for _, proto := range []Proto{TCP, UDP} {
		ports = append(ports, Port{Proto: proto, Host: ap("0.0.0.0:8007"), Box: ap("10.70.0.9:7"), Owner: "far"},
			Port{Proto: proto, Host: ap("[::]:8007"), Box: ap("[fd70::9]:7"), Owner: "far"})
	}
	if err := s.gw.Sync(t.Context(), State{Networks: []Network{trusted, network1()}, Ports: ports}); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	return s, tellPorts(t, s.beyond)
}

// farWays are the ways to the box of another host: through the published port, and directly.
var farWays = []struct {
	proto                 Proto
	all, port, box, saddr string
}{
	{TCP, "0.0.0.0", "203.0.113.1:8007", "10.70.0.9:7", "10.88.0.1"},
	{UDP, "0.0.0.0", "203.0.113.1:8007", "10.70.0.9:7", "10.88.0.1"},
	{TCP, "::", "[2001:db8:1::1]:8007", "[fd70::9]:7", "fd88::1"},
	{UDP, "::", "[2001:db8:1::1]:8007", "[fd70::9]:7", "fd88::1"},
}

func isMoved(port uint16) bool { return port >= movedFirst }

// The far box sees one address for visitors and for the host. A visitor must not get what the box sends to
// the host's own services, which replies to the visitor would be if both had one port there.
func TestAVisitorOfAnotherHostsBoxGetsNoRepliesToTheHost(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s, far := newFarPort(t, filtered)
		at := func(addr string, port uint16) string {
			return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
		}
		atVisitor := capture(t, s.outside, "wan0")
		for _, w := range farWays {
			for who, ns := range map[string]*netns.NS{"outside": s.outside, "box of another network": s.other, "host": s.host} {
				for _, port := range []uint16{53, 123, 1023} {
					from := at(w.all, port)
					if ns == s.host { // whose UDP socket would choose another source
						from = at(map[string]string{"0.0.0.0": "203.0.113.1", "::": "2001:db8:1::1"}[w.all], port)
					}
					if a := seenAs(t, ns, w.proto, from, w.port); a.Addr().String() != w.saddr || !isMoved(a.Port()) {
						t.Errorf("%v from %s of the %s: seen as %v", w.proto, from, who, a)
					}
				}
			}
			// The host's own port stays the host's.
			if a := seenAs(t, s.host, w.proto, at(w.saddr, 123), w.box); a != ap(at(w.saddr, 123)) {
				t.Errorf("%v from the host's own port 123: seen as %v", w.proto, a)
			}
			if w.proto != UDP {
				continue
			}
			service, text := listen(t, s.host, at(w.saddr, 53)), "a reply to "+w.saddr
			to := net.UDPAddrFromAddrPort(ap(at(w.saddr, 53)))
			if !until(func() bool { far.WriteTo([]byte(text), to); return service.has(text) }) {
				t.Errorf("what the box sends to %v does not arrive", to)
			}
			if atVisitor.has(text) {
				t.Errorf("what the box sends to %v arrives at the visitor", to)
			}
		}
		// Without the rule it would.
		deleteRule(t, s.host, "far_out", "meta l4proto { ")
		for _, w := range farWays {
			if w.proto != UDP {
				continue
			}
			service, text := listen(t, s.host, at(w.saddr, 54)), "taken over from "+w.saddr
			to := net.UDPAddrFromAddrPort(ap(at(w.saddr, 54)))
			if a := seenAs(t, s.outside, UDP, at(w.all, 54), w.port); a.Port() != 54 {
				t.Errorf("without the rule, it is seen as %v", a)
			}
			if !until(func() bool { far.WriteTo([]byte(text), to); return atVisitor.has(text) }) || service.has(text) {
				t.Errorf("without the rule, what the box sends to %v does not go to the visitor alone", to)
			}
		}
	})
}

// A port that is published is its box's, so no visitor has it towards the box of another host. The visitor
// gets there by another one.
func TestAVisitorFromAPublishedPortReachesAnotherHostsBox(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, name := range []string{"on all addresses", "on the address", "a range on all addresses", "a range on the address", "a range that is shifted"} {
		if !testutil.Spread(i, 3) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, far := newFarPort(t, i%2 == 1)
			visit := func(published bool) {
				t.Helper()
				for _, w := range farWays {
					for who, ns := range map[string]*netns.NS{"outside": s.outside, "box of another network": s.other} {
						from := netip.AddrPortFrom(netip.MustParseAddr(w.all), 5000)
						a := seenAs(t, ns, w.proto, from.String(), w.port)
						if a.Addr().String() != w.saddr || published != isMoved(a.Port()) {
							t.Errorf("%v of the %s: seen as %v", w.proto, who, a)
						}
					}
				}
			}
			var ports []Port
			for _, w := range farWays {
				at, box := netip.MustParseAddr(w.all), netip.MustParseAddr(map[string]string{"0.0.0.0": "10.88.0.2", "::": "fd88::2"}[w.all])
				if strings.HasSuffix(name, "on the address") || strings.HasSuffix(name, "shifted") {
					at = netip.MustParseAddr(w.saddr)
				}
				p := Port{Proto: w.proto, Host: netip.AddrPortFrom(at, 5000), Box: netip.AddrPortFrom(box, 5000), Owner: "web"}
				switch {
				case strings.HasSuffix(name, "shifted"):
					p.HostLast, p.Box = 5010, netip.AddrPortFrom(box, 6000)
				case strings.HasPrefix(name, "a range"):
					p.HostLast = 5300
				}
				ports = append(ports, p)
			}
			if err := s.gw.Publish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
			visit(true)
			for _, p := range ports {
				if p.Proto != UDP {
					continue
				}
				box, text := listen(t, s.box, p.Box.String()), "for "+p.Box.String()
				addr := map[bool]string{false: "10.88.0.1", true: "fd88::1"}[p.Host.Addr().Is6()]
				to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 5000))
				if !until(func() bool { far.WriteTo([]byte(text), to); return box.has(text) }) {
					t.Errorf("to %v: nothing arrives at the box of the port", to)
				}
			}
		})
	}
}

// Visitors from one port are kept apart, and one keeps the port.
func TestVisitorsOfAnotherHostsBoxKeepTheirPorts(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s, _ := newFarPort(t, filtered)
		for _, w := range farWays {
			from := netip.AddrPortFrom(netip.MustParseAddr(w.all), 5000).String()
			a, b := seenAs(t, s.outside, w.proto, from, w.port), seenAs(t, s.other, w.proto, from, w.port)
			if a.Port() != 5000 || b.Port() == 5000 || b.Port() < 1024 || a.Addr() != b.Addr() || a.Addr().String() != w.saddr {
				t.Errorf("%v to %s: seen as %v and %v", w.proto, w.port, a, b)
			}
		}
	})
}

// A port that a visitor is moved to may be published: the packet does not get out.
func TestAVisitorIsNotMovedToAPublishedPort(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, _ := newFarPort(t, false)
	var ports []Port
	for _, w := range farWays {
		if w.proto == UDP { // single ports, but for the last
			box := map[string]string{"0.0.0.0": "10.88.0.2:1000", "::": "[fd88::2]:1000"}[w.all]
			ports = append(ports, ranged(udp(netip.AddrPortFrom(netip.MustParseAddr(w.saddr), movedFirst).String(), box, "web"), movedLast-1))
		}
	}
	if err := s.gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wrong []netip.AddrPort
	watchFrames(t, s.beyond, "wan0", false, func(p parsed) {
		if port := p.src.Port(); p.proto == byte(UDP) && port != movedLast {
			mu.Lock()
			defer mu.Unlock()
			wrong = append(wrong, p.src)
		}
	})
	for _, ns := range []*netns.NS{s.outside, s.other} {
		for _, w := range farWays {
			if w.proto != UDP {
				continue
			}
			port, before := uint16(0), dropsIn(t, s.host, "shadow")
			if !until(func() bool {
				for range 20 { // nft takes long to list so many ports
					port++ // each packet begins a flow
					from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(w.all), port))
					c, err := ns.DialWith(t.Context(), net.Dialer{LocalAddr: from}, "udp", w.port)
					if err != nil {
						t.Fatal(err)
					}
					c.Write([]byte("?"))
					c.Close()
				}
				return dropsIn(t, s.host, "shadow") > before+5
			}) {
				t.Errorf("%s: what would come out by a published port is not dropped", w.port)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(wrong) > 0 {
		t.Errorf("packets have come out from %v", wrong)
	}
}

// dropsIn asks nft how many packets a chain has dropped.
func dropsIn(t *testing.T, ns *netns.NS, chain string) (n int) {
	t.Helper()
	var listed struct {
		Nftables []struct {
			Rule struct {
				Expr []struct {
					Counter struct{ Packets int }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(testutil.Run(t, ns, "nft", "-j", "list", "chain", "inet", "boxwire", chain)), &listed); err != nil {
		t.Fatal(err)
	}
	for _, o := range listed.Nftables {
		for _, e := range o.Rule.Expr {
			n += e.Counter.Packets
		}
	}
	return n
}
