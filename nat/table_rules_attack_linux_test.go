package nat

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// attack is a datagram that has no business to arrive, and the rule that keeps it
// from arriving.
type attack struct {
	name     string
	end      wireEnd
	to       net.HardwareAddr
	proto    Proto     // 0 is UDP
	src, dst string    // a source without a port has one of its own each time
	at       *receiver // who must not hear it

	// What goes before it each time: a packet that makes it pass for an answer. Without
	// an end, it is from the attacker's.
	lure *lure

	chain, rule string // the protecting rule: how it begins
	instead     string // what to put in the rule's place for it not to protect; "" to delete it

	// Other rules that would stop it, too: chain and how they begin. They are deleted
	// first.
	others [][2]string

	// The rule whose counter says that the datagram was stopped; "" for the
	// protecting one.
	stopChain, stopRule string
}

// lure is a packet that goes before an attack.
type lure struct {
	end      wireEnd
	to       net.HardwareAddr
	src, dst string
}

// shoot sends the attack.
func (a attack) shoot(t *testing.T, port uint16, text string) {
	t.Helper()
	if l := a.lure; l != nil {
		end, to := l.end, l.to
		if end.from == nil {
			end, to = a.end, a.to
		}
		end.sendFrame(t, to, shot(a.proto, ap(l.src), ap(l.dst), "lure"))
	}
	src, err := netip.ParseAddrPort(a.src)
	if err != nil {
		// A port of its own each: no packet shall pass as one of a connection.
		src = netip.AddrPortFrom(netip.MustParseAddr(a.src), port)
	}
	a.end.sendFrame(t, a.to, shot(a.proto, src, ap(a.dst), text))
}

// expectBlocked shows that the attack fails, and that it is the rule that it fails by:
// without it, the datagram arrives.
func (a attack) expectBlocked(t *testing.T, host *netns.NS) {
	t.Helper()
	if ap(a.dst).Addr().Is6() && !netnstest.HasIPv6() {
		return
	}
	if a.stopRule == "" {
		a.stopChain, a.stopRule = a.chain, a.rule
	}
	for _, o := range a.others {
		deleteRule(t, host, o[0], o[1])
	}
	port := uint16(20000)
	send := func(text string) {
		t.Helper()
		port++
		a.shoot(t, port, text)
	}
	_, before := findRule(t, host, a.stopChain, a.stopRule)
	var count uint64
	stopped := until(func() bool {
		if count == before {
			send(a.name) // again: a link that has just come up may lose it
		}
		_, count = findRule(t, host, a.stopChain, a.stopRule)
		return count > before
	})
	if !stopped {
		t.Errorf("%s: the rule %q in %s stopped nothing", a.name, a.stopRule, a.stopChain)
	}
	if a.at.has(a.name) {
		t.Errorf("%s: arrived", a.name)
	}
	if a.instead == "" {
		deleteRule(t, host, a.chain, a.rule)
	} else {
		handle, _ := findRule(t, host, a.chain, a.rule)
		testutil.Run(t, host, "nft", "replace", "rule", "inet", "boxwire", a.chain, "handle", handle, a.instead)
	}
	unguarded := a.name + " without its rule"
	if !until(func() bool { send(unguarded); return a.at.has(unguarded) }) {
		t.Errorf("%s: does not arrive without the rule %q in %s either: the test proves nothing", a.name, a.rule, a.chain)
	}
}

var counted = regexp.MustCompile(`counter packets (\d+) `)

// findRule returns the handle of the rule that begins so, and what it has counted.
func findRule(t *testing.T, ns *netns.NS, chain, begins string) (handle string, packets uint64) {
	t.Helper()
	out := testutil.Run(t, ns, "nft", "-a", "list", "chain", "inet", "boxwire", chain)
	for line := range strings.Lines(out) {
		rule, h, ok := strings.Cut(strings.TrimSpace(line), " # handle ")
		if !ok || !strings.HasPrefix(rule, begins) {
			continue
		}
		if m := counted.FindStringSubmatch(rule); m != nil {
			packets, _ = strconv.ParseUint(m[1], 10, 64)
		}
		return h, packets
	}
	t.Fatalf("no rule of %s begins with %q:\n%s", chain, begins, out)
	return "", 0
}

// deleteRule deletes the rule that begins so.
func deleteRule(t *testing.T, ns *netns.NS, chain, begins string) {
	t.Helper()
	handle, _ := findRule(t, ns, chain, begins)
	testutil.Run(t, ns, "nft", "delete", "rule", "inet", "boxwire", chain, "handle", handle)
}

// Rules that protect, by how they begin.
const (
	toLoopback   = "ip daddr 127.0.0.0/8"
	fromLoopback = "ip saddr 127.0.0.0/8"
	theRest      = "counter packets"
	localOnly    = "fib daddr type local"
	noWayOut     = "iifname @internal"
	ownSources   = "iifname @ifs goto sources"
	noRouter4    = "meta nfproto ipv4 iifname @flipped4"
	noRouter6    = "meta nfproto ipv6 iifname @flipped6"
)

// newAttacked is a topology with networks, ports published for the attacker to try, and
// links that are set up as carelessly as can be. build makes the table again.
func newAttacked(t *testing.T, nets ...Network) (*topology, func(t *testing.T)) {
	t.Helper()
	s := new(wire(t))
	// Another program's settings: packets for 127.0.0.0/8 are let in everywhere.
	setSysctl(t, s.host, "ipv4/conf/up0/route_localnet", "1")
	for _, dev := range []string{"all", "up0", "br0", "br1"} {
		setSysctl(t, s.host, "ipv4/conf/"+dev+"/rp_filter", "0")
	}
	return s, func(t *testing.T) {
		t.Helper()
		if s.gw != nil {
			if err := s.gw.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// Not reserved: a process that another test starts may hold a port for a
		// moment longer.
		var err error
		if s.gw, err = Open(t.Context(), s.host, Options{NoReserve: true}); err != nil {
			t.Fatal(err)
		}
		for _, net := range nets {
			if err := s.gw.AddNetwork(t.Context(), net); err != nil {
				t.Fatal(err)
			}
		}
		for host, box := range map[string]string{
			"0.0.0.0:8080": "10.88.0.2:80", "[::]:8080": "[fd88::2]:80", "127.0.0.1:9090": "10.88.0.2:80",
		} {
			p := tcp(host, box, "web")
			p.Proto = UDP
			if err := s.gw.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A neighbour on the segment of the host's uplink (CVE-2020-8558, CVE-2021-20199,
// CVE-2025-67499; moby#41872, moby#45610, moby#39439).
func TestANeighbourGetsNothingButPublishedPorts(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, build := newAttacked(t, network0(), network1())
	end, to := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
	box, unpublished := listen(t, s.box, ":80"), listen(t, s.box, ":81")
	local, service := listen(t, s.host, "127.0.0.1:5353"), listen(t, s.host, ":7777")
	beyond := listen(t, s.beyond, ":9")
	const me4, me6 = "203.0.113.9", "2001:db8:1::9"
	attacks := []attack{
		{name: "to a port published on 127.0.0.1", src: me4, dst: "127.0.0.1:9090", at: box, chain: "guard", rule: toLoopback, others: [][2]string{{"prerouting", toLoopback}}},
		{name: "before the guard, to a port published on 127.0.0.1", src: me4, dst: "127.0.0.1:9090", at: box, chain: "prerouting", rule: toLoopback, others: [][2]string{{"guard", toLoopback}}},
		{name: "to a service of the host on 127.0.0.1", src: me4, dst: "127.0.0.1:5353", at: local, chain: "guard", rule: toLoopback, others: [][2]string{{"prerouting", toLoopback}}},
		{name: "before the guard, to a service of the host on 127.0.0.1", src: me4, dst: "127.0.0.1:5353", at: local, chain: "prerouting", rule: toLoopback, others: [][2]string{{"guard", toLoopback}}},
		{name: "from 127.0.0.2 to a service of the host", src: "127.0.0.2", dst: "203.0.113.1:7777", at: service, chain: "guard", rule: fromLoopback, others: [][2]string{{"prerouting", fromLoopback}}},
		{name: "before the guard, from 127.0.0.3 to a service of the host", src: "127.0.0.3", dst: "203.0.113.1:7777", at: service, chain: "prerouting", rule: fromLoopback, others: [][2]string{{"guard", fromLoopback}}},
		{name: "from 127.0.0.2 to a published port", src: "127.0.0.2", dst: "203.0.113.1:8080", at: box, chain: "guard", rule: fromLoopback, others: [][2]string{{"prerouting", fromLoopback}}},
		{name: "before the guard, from 127.0.0.3 to a published port", src: "127.0.0.3", dst: "203.0.113.1:8080", at: box, chain: "prerouting", rule: fromLoopback, others: [][2]string{{"guard", fromLoopback}}},
		{name: "to a box's address", src: me4, dst: "10.88.0.2:80", at: box, chain: "to_box", rule: theRest},
		{name: "to a box's address over IPv6", src: me6, dst: "[fd88::2]:80", at: box, chain: "to_box", rule: theRest},
		{name: "to an unpublished port", src: me4, dst: "10.88.0.2:81", at: unpublished, chain: "to_box", rule: theRest},
		{name: "to an unpublished port over IPv6", src: me6, dst: "[fd88::2]:81", at: unpublished, chain: "to_box", rule: theRest},
		{
			name: "in transit, on a published port", src: me4, dst: "198.51.100.9:8080", at: box,
			chain: "prerouting", rule: localOnly, instead: "goto publish", stopChain: "new_flow", stopRule: noRouter4,
		},
		{
			name: "in transit over IPv6, on a published port", src: me6, dst: "[2001:db8:2::9]:8080", at: box,
			chain: "prerouting", rule: localOnly, instead: "goto publish", stopChain: "new_flow", stopRule: noRouter6,
		},
		{name: "in transit", src: me4, dst: "198.51.100.9:9", at: beyond, chain: "new_flow", rule: noRouter4},
		{name: "in transit over IPv6", src: me6, dst: "[2001:db8:2::9]:9", at: beyond, chain: "new_flow", rule: noRouter6},
	}
	for i, a := range attacks {
		if !testutil.Spread(i, 3) {
			continue
		}
		build(t)
		a.end, a.to = end, to
		a.expectBlocked(t, s.host)
	}
}

// A box whose network is isolated, and one whose network is internal (moby#45610,
// CVE-2020-8558).
func TestABoxGetsNothingOfOthers(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("br_netfilter %v", filtered), func(t *testing.T) {
			t.Parallel()
			isolated, internal := network0(), network1()
			isolated.Isolated, internal.Internal = true, true
			s, build := newAttacked(t, isolated, internal)
			bridgeNF(t, s.host, filtered)
			if !filtered {
				for _, port := range []string{"box0", "sib0"} {
					testutil.Run(t, s.host, "ip", "link", "set", port, "type", "bridge_slave", "isolated", "on")
				}
			}
			box, gate0, beside := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0"), macOf(t, s.sibling, "eth0")
			other, gate1 := newWireEnd(t, s.other, "eth0"), macOf(t, s.host, "br1")
			local, service := listen(t, s.host, "127.0.0.1:5353"), listen(t, s.host, ":7777")
			atBox, atSibling, atOther, atOutside := listen(t, s.box, ":80"), listen(t, s.sibling, ":80"), listen(t, s.other, ":80"), listen(t, s.outside, ":80")
			const me4, me6, you4, you6 = "10.88.0.2", "fd88::2", "10.89.0.2", "fd89::2"
			attacks := []attack{
				{name: "to a service of the host on 127.0.0.1", src: me4, dst: "127.0.0.1:5353", at: local, chain: "guard", rule: toLoopback, others: [][2]string{{"prerouting", toLoopback}}},
				{name: "before the guard, to a service of the host on 127.0.0.1", src: me4, dst: "127.0.0.1:5353", at: local, chain: "prerouting", rule: toLoopback, others: [][2]string{{"guard", toLoopback}}},
				{name: "from 127.0.0.2 to a service of the host", src: "127.0.0.2", dst: "10.88.0.1:7777", at: service, chain: "guard", rule: fromLoopback, others: [][2]string{{"guard", ownSources}, {"prerouting", fromLoopback}}},
				{name: "to another network", src: me4, dst: "10.89.0.2:80", at: atOther, chain: "to_box", rule: theRest},
				{name: "to another network over IPv6", src: me6, dst: "[fd89::2]:80", at: atOther, chain: "to_box", rule: theRest},
				{name: "to the sibling through the host", src: me4, dst: "10.88.0.3:80", at: atSibling, chain: "icc_off", rule: theRest},
				{name: "to the sibling through the host over IPv6", src: me6, dst: "[fd88::3]:80", at: atSibling, chain: "icc_off", rule: theRest},
				{name: "to the outside", end: other, src: you4, dst: "203.0.113.9:80", at: atOutside, chain: "new_flow", rule: noWayOut},
				{name: "to the outside over IPv6", end: other, src: you6, dst: "[2001:db8:1::9]:80", at: atOutside, chain: "new_flow", rule: noWayOut},
				{name: "to another network's published port", end: other, src: you4, dst: "203.0.113.1:8080", at: atBox, chain: "new_flow", rule: noWayOut},
				{name: "to another network's published port over IPv6", end: other, src: you6, dst: "[2001:db8:1::1]:8080", at: atBox, chain: "new_flow", rule: noWayOut},
			}
			if filtered {
				attacks = append(attacks,
					attack{name: "to the sibling", to: beside, src: me4, dst: "10.88.0.3:80", at: atSibling, chain: "icc_off", rule: theRest},
					attack{name: "to the sibling over IPv6", to: beside, src: me6, dst: "[fd88::3]:80", at: atSibling, chain: "icc_off", rule: theRest})
			}
			for i, a := range attacks {
				if !testutil.Spread(i, 4) {
					continue
				}
				build(t)
				switch {
				case a.end.from != nil:
					a.to = gate1
				case a.to == nil:
					a.end, a.to = box, gate0
				default:
					a.end = box
				}
				a.expectBlocked(t, s.host)
			}
		})
	}
}

// What is bridged past the firewall is for the flag of the bridge ports to stop.
func TestTheIsolatedFlagKeepsSiblingsApart(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	isolated := network0()
	isolated.Isolated = true
	s, build := newAttacked(t, isolated)
	bridgeNF(t, s.host, false)
	build(t)
	end, gate, beside := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0"), macOf(t, s.sibling, "eth0")
	sibling, service := listen(t, s.sibling, ":80"), listen(t, s.host, ":7777")
	attack := func(text string) {
		t.Helper()
		end.send(t, beside, ap("10.88.0.2:7"), ap("10.88.0.3:80"), text)
		end.send(t, beside, ap("[fd88::2]:7"), ap("[fd88::3]:80"), text+" over IPv6")
		// A packet sent after it, to a receiver that must get it, shows that it has passed.
		end.send(t, gate, ap("10.88.0.2:7"), ap("10.88.0.1:7777"), text)
	}
	flag := func(value string) {
		t.Helper()
		for _, port := range []string{"box0", "sib0"} {
			testutil.Run(t, s.host, "ip", "link", "set", port, "type", "bridge_slave", "isolated", value)
		}
	}
	flag("on")
	if !until(func() bool { attack("isolated"); return service.has("isolated") }) {
		t.Fatal("the box does not reach the host")
	}
	if sibling.has("isolated") || sibling.has("isolated over IPv6") {
		t.Error("the box reaches its sibling")
	}
	flag("off")
	if !until(func() bool { attack("open"); return sibling.has("open") && sibling.has("open over IPv6") }) {
		t.Error("without the flag it does not either: the test proves nothing")
	}
}

// What br_netfilter does not show to the firewall is for the flag, too: Networks names
// the ports without.
func TestFramesThatTheFirewallIsNotShownNeedTheIsolatedFlag(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	isolated := network0()
	isolated.Isolated = true
	s, build := newAttacked(t, isolated)
	bridgeNF(t, s.host, true)
	build(t)
	end, beside := newWireEnd(t, s.box, "eth0"), macOf(t, s.sibling, "eth0")
	sibling := listen(t, s.sibling, ":80")
	// IEEE 802.1Q and 802.1ad, VLAN 0.
	tags := map[string][]byte{"802.1Q": {0x81, 0x00, 0, 0}, "802.1ad": {0x88, 0xa8, 0, 0}, "802.1Q twice": {0x81, 0x00, 0, 0, 0x81, 0x00, 0, 0}}
	attack := func(when string) (all []string) {
		for name, tag := range tags {
			for _, c := range [][2]string{{"10.88.0.2:7", "10.88.0.3:80"}, {"[fd88::2]:7", "[fd88::3]:80"}} {
				text := when + " " + name + " " + c[1]
				end.sendFrame(t, beside, append(slices.Clone(tag), datagram(ap(c[0]), ap(c[1]), text)...))
				all = append(all, text)
			}
		}
		return all
	}
	heard := func(all []string) (n int) {
		for _, text := range all {
			if sibling.has(text) {
				n++
			}
		}
		return n
	}
	named := func(want ...string) {
		t.Helper()
		if nets, err := s.gw.ListNetworks(t.Context()); err != nil || !slices.Equal(nets[0].LeakyPorts, want) {
			t.Errorf("%+v, %v; want the ports %v named", nets, err, want)
		}
	}
	named("box0", "sib0")
	if !until(func() bool { return heard(attack("open")) == 6 }) {
		t.Errorf("%d of 6 kinds of frames arrive without the flag", heard(attack("open")))
	}
	for _, port := range []string{"box0", "sib0"} {
		testutil.Run(t, s.host, "ip", "link", "set", port, "type", "bridge_slave", "isolated", "on")
	}
	named()
	all := attack("isolated")
	// What the host sends after it, by the same link, says that it has gone by.
	after, err := s.host.Dial(t.Context(), "udp", "10.88.0.3:80")
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if !until(func() bool { attack("isolated"); after.Write([]byte("after")); return sibling.has("after") }) {
		t.Fatal("the host does not reach the sibling")
	}
	if n := heard(all); n > 0 {
		t.Errorf("%d kinds of frames arrive in spite of the flag", n)
	}
}
