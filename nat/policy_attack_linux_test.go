package nat

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// breach is traffic that a policy denies, and what lets it through.
type breach struct {
	name string
	end  wireEnd
	to   net.HardwareAddr

	// frames are what is sent each time: a type and a packet each, the last of them with the text.
	// n is another number each time.
	frames func(n uint16, text string) [][]byte
	at     hearer // who must not hear it

	// The rule whose counter says that it was stopped; the last one of deny_out if empty.
	stopChain, stopRule string

	// What takes the protection away, as commands of nft. Without one, the kernel itself denies it.
	open []string
}

// hearer is a receiver or a sniffer.
type hearer interface{ has(text string) bool }

// expectDenied shows that the breach fails, and that it gets through where it is not denied.
func (b breach) expectDenied(t *testing.T, host *netns.NS) {
	t.Helper()
	if b.stopChain == "" {
		b.stopChain = "deny_out"
	}
	if b.stopRule == "" {
		b.stopRule = theRest
	}
	n := uint16(0)
	send := func(text string) {
		t.Helper()
		n++
		for _, f := range b.frames(n, text) {
			b.end.sendFrame(t, b.to, f)
		}
	}
	if len(b.open) == 0 {
		for range 20 {
			send(b.name)
		}
	} else {
		_, before := findRule(t, host, b.stopChain, b.stopRule)
		if !until(func() bool {
			send(b.name)
			_, count := findRule(t, host, b.stopChain, b.stopRule)
			return count > before
		}) {
			t.Errorf("%s: the rule %q in %s stopped nothing", b.name, b.stopRule, b.stopChain)
		}
	}
	for _, command := range b.open {
		if chain, begins, ok := strings.Cut(command, ": "); ok {
			deleteRule(t, host, chain, begins)
		} else {
			testutil.Run(t, host, "nft", command)
		}
	}
	if len(b.open) > 0 {
		text := b.name + ", not denied"
		if !until(func() bool { send(text); return b.at.has(text + ".") }) {
			t.Errorf("%s: does not arrive where nothing denies it: the test proves nothing", b.name)
		}
	}
	if b.at.has(b.name + ".") {
		t.Errorf("%s: arrived", b.name)
	}
}

// sniffer hears what arrives at a link, whatever the stack behind it thinks of it.
type sniffer struct {
	mu   sync.Mutex // guards seen
	seen []string
}

func overhear(t *testing.T, ns *netns.NS, dev string) *sniffer {
	t.Helper()
	s := new(sniffer)
	watchFrames(t, ns, dev, false, func(p parsed) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, string(p.payload))
	})
	return s
}

func (s *sniffer) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.seen, func(p string) bool { return strings.Contains(p, text) })
}

// from makes frames of packets between two addresses. A source without a port has another one each time.
func from(proto Proto, src, dst string) func(n uint16, text string) [][]byte {
	return func(n uint16, text string) [][]byte {
		return [][]byte{shot(proto, source(src, n), ap(dst), text+".")}
	}
}

func source(src string, n uint16) netip.AddrPort {
	if a, err := netip.ParseAddrPort(src); err == nil {
		return a
	}
	return netip.AddrPortFrom(netip.MustParseAddr(src), 20000+n)
}

// raw makes frames of a protocol's bytes, with a checksum at an offset that the packet may ignore.
func raw(proto byte, src, dst string, head ...byte) func(n uint16, text string) [][]byte {
	return func(n uint16, text string) [][]byte {
		return [][]byte{bare(proto, src, dst, slices.Concat(head, []byte(text+".")))}
	}
}

// What takes the policies of the box away.
var (
	anyEgress = []string{
		"delete element inet boxwire egress4 { 10.88.0.2 }", "delete element inet boxwire egress6 { fd88::2 }",
	}
	anyIngress = []string{
		"delete element inet boxwire ingress4 { 10.88.0.2 }", "delete element inet boxwire ingress6 { fd88::2 }",
	}
)

// newPoliced is a topology with a policed box, and ports and pinholes that lead around policies.
func newPoliced(t *testing.T, filtered, strict bool) (*topology, State) {
	t.Helper()
	s := new(wire(t))
	bridgeNF(t, s.host, filtered)
	setSysctl(t, s.host, "ipv4/conf/br0/route_localnet", "1")
	setSysctl(t, s.host, "ipv4/icmp_echo_ignore_broadcasts", "0")
	var err error
	if s.gw, err = Open(t.Context(), s.host, Options{NoReserve: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.gw.Close() })
	net0, net1 := network0(), network1()
	net0.Strict = strict
	net1.AllowTo = []string{"br0"}
	for _, a := range []string{"10.88.0.2:80", "[fd88::2]:80"} {
		net0.Pinholes = append(net0.Pinholes, Pinhole{Proto: UDP, Box: ap(a), Owner: "web"})
	}
	state := State{Networks: []Network{net0, net1}}
	for host, box := range map[string]string{
		"0.0.0.0:8080": "10.88.0.3:80", "[::]:8080": "[fd88::3]:80", "0.0.0.0:8081": "10.88.0.2:80", "[::]:8081": "[fd88::2]:80",
	} {
		state.Ports = append(state.Ports, udp(host, box, "web"))
	}
	state.Policies = []Policy{{
		Box: addrs("10.88.0.2", "fd88::2"), Owner: "web",
		Egress: allows(t, "udp 203.0.113.0/24 port 443", "udp 2001:db8:1::/64 port 443",
			"tcp 203.0.113.0/24 except 203.0.113.9/32", "tcp 2001:db8:1::/64 except 2001:db8:1::9/128", "udp host port 53"),
		Ingress: allows(t, "udp 192.0.2.0/24 port 80", "udp 2001:db8:9::/64 port 80"),
	}}
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	s.waitHost(t)
	return s, state
}

// waitHost waits until the links of all namespaces take packets, as frames from them show.
func (s topology) waitHost(t *testing.T) {
	t.Helper()
	for ns, addrs := range map[*netns.NS][]string{
		s.sibling: {"10.88.0.3", "fd88::3"}, s.other: {"10.89.0.2", "fd89::2"}, s.box: {"10.88.0.2", "fd88::2"},
		s.outside: {"203.0.113.9", "2001:db8:1::9"}, s.beyond: {"198.51.100.9", "2001:db8:2::9"},
	} {
		at := listen(t, ns, ":4444")
		for _, a := range addrs {
			c, err := s.host.Dial(t.Context(), "udp", net.JoinHostPort(a, "4444"))
			if err != nil {
				t.Fatal(err)
			}
			if !until(func() bool { c.Write([]byte(a)); return at.has(a) }) {
				t.Fatalf("the host does not reach %s", a)
			}
			c.Close()
		}
	}
}

// What a policy denies, it denies in whatever form it comes (egress).
func TestAPolicedBoxGetsNoFurther(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, filtered := range []bool{false, true} {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(fmt.Sprintf("br_netfilter %v", filtered), func(t *testing.T) {
			t.Parallel()
			s, state := newPoliced(t, filtered, false)
			end, gate, beside := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0"), macOf(t, s.sibling, "eth0")
			closed, transit := listen(t, s.outside, ":9"), listen(t, s.beyond, ":443")
			sibling, own, other := listen(t, s.sibling, ":80"), listen(t, s.box, ":80"), listen(t, s.other, ":80")
			wan, far := overhear(t, s.outside, "wan0"), overhear(t, s.beyond, "wan0")
			const me4, me6, you4, you6 = "10.88.0.2", "fd88::2", "203.0.113.9", "2001:db8:1::9"
			udpTo := func(src, dst string) func(n uint16, text string) [][]byte { return from(UDP, src, dst) }
			mid := func(src, dst string) func(n uint16, text string) [][]byte {
				return func(n uint16, text string) [][]byte {
					return [][]byte{segment{src: source(src, n), dst: ap(dst), seq: 7, ack: 7, flags: flagACK, text: text + "."}.packet()}
				}
			}
			cut := func(src, dst string, at int) func(n uint16, text string) [][]byte {
				return func(n uint16, text string) [][]byte {
					return cutUp(datagram(source(src, n), ap(dst), text+"."), at, n)
				}
			}
			with := func(dst string, headers ...[]byte) func(n uint16, text string) [][]byte {
				return func(n uint16, text string) [][]byte {
					return [][]byte{extended(datagram(source(me6, n), ap(dst), text+"."), headers...)}
				}
			}
			lite := func(src, dst string) func(n uint16, text string) [][]byte {
				return func(n uint16, text string) [][]byte {
					from, to := source(src, n), ap(dst)
					p := binary.BigEndian.AppendUint16(nil, from.Port())
					p = binary.BigEndian.AppendUint16(p, to.Port())
					p = append(append(p, 0, 0, 0, 0), text+"."...)
					return [][]byte{ipPacket(from.Addr(), to.Addr(), unix.IPPROTO_UDPLITE, 64, p, 6)}
				}
			}
			// The error quotes an answer of an open flow, and goes to another address than its source.
			lured := func(src, peer, dst string) func(n uint16, text string) [][]byte {
				return func(n uint16, text string) [][]byte {
					me := source(src, n)
					return [][]byte{
						datagram(me, ap(peer), "open"),
						forged(src, dst, datagram(ap(peer), me, text+".")),
					}
				}
			}
			// Conntrack may find these invalid, and then they are not translated.
			notTranslated := append(slices.Clone(anyEgress), "stateless: meta nfproto ipv4", "stateless: meta nfproto ipv6")
			breaches := []breach{
				{name: "to a closed port", frames: udpTo(me4, you4+":9"), at: closed},
				{name: "to a closed port over IPv6", frames: udpTo(me6, "["+you6+"]:9"), at: closed},
				{name: "to a closed peer", frames: udpTo(me4, "198.51.100.9:443"), at: transit},
				{name: "to a closed peer over IPv6", frames: udpTo(me6, "[2001:db8:2::9]:443"), at: transit},
				{name: "from the port of DNS", frames: udpTo(me4+":53", you4+":9"), at: closed},
				{name: "from the open port", frames: udpTo(me6+"", "["+you6+"]:9"), at: closed},
				{name: "from the port of DHCP to that of DHCP", frames: udpTo(me4+":68", you4+":67"), at: wan},
				{name: "to an exception", frames: from(TCP, me4, you4+":443"), at: wan},
				{name: "to an exception over IPv6", frames: from(TCP, me6, "["+you6+"]:443"), at: wan},
				{name: "in the midst of a stream", frames: mid(me4, you4+":9"), at: wan},
				{name: "in the midst of a stream over IPv6", frames: mid(me6, "["+you6+"]:9"), at: wan},
				{name: "in fragments", frames: cut(me4, you4+":9", 16), at: closed},
				{name: "in fragments over IPv6", frames: cut(me6, "["+you6+"]:9", 16), at: closed},
				{name: "in tiny fragments", frames: cut(me4, you4+":9", 8), at: closed},
				{name: "in tiny fragments over IPv6", frames: cut(me6, "["+you6+"]:9", 8), at: closed},
				{name: "fragments without the first", frames: func(n uint16, text string) [][]byte {
					return cut(me4, you4+":9", 8)(n, text)[1:]
				}, at: wan},
				{name: "fragments that overlap", frames: func(n uint16, text string) [][]byte {
					open, shut := cut(me4, you4+":443", 16)(n, text), cut(me4, you4+":9", 16)(n, text)
					return [][]byte{open[0], shut[0], shut[1]}
				}, at: closed},
				{name: "behind options per hop", frames: with("["+you6+"]:9", hopByHop), at: closed},
				{name: "behind options", frames: with("["+you6+"]:9", destOptions), at: closed},
				{name: "behind a routing header", frames: with("["+you6+"]:9", routing), at: wan},
				{name: "behind a fragment header", frames: with("["+you6+"]:9", atomicFrag), at: closed},
				{name: "behind all headers", frames: with("["+you6+"]:9", hopByHop, destOptions, routing, destOptions), at: wan},
				{name: "an unknown next header", frames: raw(253, me6, you6, 1, 187, 1, 187), at: wan},
				{name: "an unknown protocol", frames: raw(253, me4, you4, 1, 187, 1, 187), at: wan},
				{name: "GRE", frames: raw(unix.IPPROTO_GRE, me4, you4, 0, 0, 8, 0), at: wan},
				{name: "GRE over IPv6", frames: raw(unix.IPPROTO_GRE, me6, you6, 0, 0, 8, 0), at: wan},
				{name: "UDP-Lite to the open port", frames: lite(me4, you4+":443"), at: wan, open: notTranslated},
				{name: "SCTP to the open port", frames: func(n uint16, text string) [][]byte {
					return [][]byte{sctpInit(source(me4, n), ap(you4+":443"), text+".")}
				}, at: wan, open: notTranslated},
				{name: "UDP-Lite to the open port over IPv6", frames: lite(me6, "["+you6+"]:443"), at: wan, open: notTranslated},
				{name: "SCTP to the open port over IPv6", frames: func(n uint16, text string) [][]byte {
					return [][]byte{sctpInit(source(me6, n), ap("["+you6+"]:443"), text+".")}
				}, at: wan, open: notTranslated},
				{name: "a ping", frames: func(n uint16, text string) [][]byte {
					return [][]byte{ipPacket(netip.MustParseAddr(me4), netip.MustParseAddr(you4), unix.IPPROTO_ICMP, 64, slices.Concat([]byte{8, 0, 0, 0, 1, 187, byte(n >> 8), byte(n)}, []byte(text+".")), 2)}
				}, at: wan},
				{name: "a ping over IPv6", frames: func(n uint16, text string) [][]byte {
					return [][]byte{ipPacket(netip.MustParseAddr(me6), netip.MustParseAddr(you6), unix.IPPROTO_ICMPV6, 64, slices.Concat([]byte{128, 0, 0, 0, 1, 187, byte(n >> 8), byte(n)}, []byte(text+".")), 2)}
				}, at: wan},
				{name: "a question for the time", frames: func(n uint16, text string) [][]byte {
					return [][]byte{ipPacket(netip.MustParseAddr(me4), netip.MustParseAddr(you4), unix.IPPROTO_ICMP, 64, slices.Concat([]byte{13, 0, 0, 0, 1, 187, byte(n >> 8), byte(n)}, make([]byte, 12), []byte(text+".")), 2)}
				}, at: wan},
				{name: "an error about nothing", open: []string{}, frames: func(n uint16, text string) [][]byte {
					return [][]byte{forged(me4, you4, datagram(ap(you4+":9"), source(me4, n), text+"."))}
				}, at: wan},
				{name: "an error about an open flow, to another", open: []string{}, frames: lured(me4, you4+":443", "198.51.100.9"), at: far},
				{name: "an error about an open flow, to another over IPv6", open: []string{}, frames: lured(me6, "["+you6+"]:443", "2001:db8:2::9"), at: far},
				{name: "to a sibling's published port", frames: udpTo(me4, "203.0.113.1:8080"), at: sibling},
				{name: "to a sibling's published port over IPv6", frames: udpTo(me6, "[2001:db8:1::1]:8080"), at: sibling},
				{name: "to a sibling's published port by the bridge's address", frames: udpTo(me4, "10.88.0.1:8080"), at: sibling},
				{name: "to a sibling's published port from the open port", frames: udpTo(me4+":443", "203.0.113.1:8080"), at: sibling},
				{name: "to its own published port", frames: udpTo(me4, "203.0.113.1:8081"), at: own, open: slices.Concat(anyEgress, anyIngress)},
				{name: "to the sibling through the host", frames: udpTo(me4, "10.88.0.3:80"), at: sibling},
				{name: "to the sibling through the host over IPv6", frames: udpTo(me6, "[fd88::3]:80"), at: sibling},
				{name: "to the port of DHCP of another network", frames: udpTo(me4, "10.89.0.2:67"), at: other, open: []string{}},
			}
			if filtered {
				breaches = append(breaches,
					breach{name: "to the sibling", to: beside, frames: udpTo(me4, "10.88.0.3:80"), at: sibling},
					breach{name: "to the sibling over IPv6", to: beside, frames: udpTo(me6, "[fd88::3]:80"), at: sibling})
			}
			for i, b := range breaches {
				if !testutil.Spread(i, 8) {
					continue
				}
				b.end = end
				if b.to == nil {
					b.to = gate
				}
				switch {
				case b.open == nil && !strings.HasPrefix(b.name, "fragments"):
					b.open = anyEgress
				}
				b.expectDenied(t, s.host)
				if err := s.gw.Sync(t.Context(), state); err != nil {
					t.Fatal(err)
				}
			}
			// What is allowed gets through in those forms, too.
			open := listen(t, s.outside, ":443")
			for name, frames := range map[string]func(n uint16, text string) [][]byte{
				"a datagram": udpTo(me4, you4+":443"), "a datagram over IPv6": udpTo(me6, "["+you6+"]:443"),
				"fragments": cut(me4, you4+":443", 8), "fragments over IPv6": cut(me6, "["+you6+"]:443", 8),
				"headers": with("["+you6+"]:443", hopByHop, destOptions),
			} {
				n := uint16(1000)
				if !until(func() bool {
					n++
					for _, f := range frames(n, name) {
						end.sendFrame(t, gate, f)
					}
					return open.has(name + ".")
				}) {
					t.Errorf("%s: what is allowed does not arrive", name)
				}
			}
		})
	}
}

// What Ingress denies comes in by no way.
func TestNobodyGetsAtAPolicedBox(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, filtered := range []bool{false, true} {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(fmt.Sprintf("br_netfilter %v", filtered), func(t *testing.T) {
			t.Parallel()
			s, state := newPoliced(t, filtered, false)
			box, mac := listen(t, s.box, ":80"), macOf(t, s.box, "eth0")
			br0, br1, up0 := macOf(t, s.host, "br0"), macOf(t, s.host, "br1"), macOf(t, s.host, "up0")
			sibling, other, outside := newWireEnd(t, s.sibling, "eth0"), newWireEnd(t, s.other, "eth0"), newWireEnd(t, s.outside, "wan0")
			breaches := []breach{
				{name: "from a sibling through the host", end: sibling, to: br0, frames: from(UDP, "10.88.0.3", "10.88.0.2:80")},
				{name: "from a sibling through the host over IPv6", end: sibling, to: br0, frames: from(UDP, "fd88::3", "[fd88::2]:80")},
				{name: "from a sibling by the published port", end: sibling, to: br0, frames: from(UDP, "10.88.0.3", "203.0.113.1:8081")},
				{name: "from another network", end: other, to: br1, frames: from(UDP, "10.89.0.2", "10.88.0.2:80")},
				{name: "from another network over IPv6", end: other, to: br1, frames: from(UDP, "fd89::2", "[fd88::2]:80")},
				{name: "from outside by the pinhole", end: outside, to: up0, frames: from(UDP, "203.0.113.9", "10.88.0.2:80")},
				{name: "from outside by the pinhole over IPv6", end: outside, to: up0, frames: from(UDP, "2001:db8:1::9", "[fd88::2]:80")},
				{name: "from outside by the published port", end: outside, to: up0, frames: from(UDP, "203.0.113.9", "203.0.113.1:8081")},
				{name: "from outside by the published port over IPv6", end: outside, to: up0, frames: from(UDP, "2001:db8:1::9", "[2001:db8:1::1]:8081")},
			}
			if filtered {
				breaches = append(breaches,
					breach{name: "from a sibling", end: sibling, to: mac, frames: from(UDP, "10.88.0.3", "10.88.0.2:80")},
					breach{name: "from a sibling over IPv6", end: sibling, to: mac, frames: from(UDP, "fd88::3", "[fd88::2]:80")})
			}
			for i, b := range breaches {
				if !testutil.Spread(i, 8) {
					continue
				}
				b.at, b.open, b.stopChain = box, anyIngress, "deny_in"
				b.expectDenied(t, s.host)
				if err := s.gw.Sync(t.Context(), state); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Under Strict, what no policy names reaches nothing: a box before its policy, another address of a box.
func TestStrictLeavesNoAddressOut(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, state := newPoliced(t, false, true)
	end, sibling, gate := newWireEnd(t, s.box, "eth0"), newWireEnd(t, s.sibling, "eth0"), macOf(t, s.host, "br0")
	out, service := listen(t, s.outside, ":443"), listen(t, s.host, ":7777")
	for _, b := range []breach{
		{name: "a box before its policy", end: sibling, frames: from(UDP, "10.88.0.3", "203.0.113.9:443"), at: out},
		{name: "a box before its policy over IPv6", end: sibling, frames: from(UDP, "fd88::3", "[2001:db8:1::9]:443"), at: out},
		{name: "a box before its policy, to the host", end: sibling, frames: from(UDP, "10.88.0.3", "10.88.0.1:7777"), at: service},
		{name: "another address of the box", end: end, frames: from(UDP, "10.88.0.22", "203.0.113.9:443"), at: out},
		{name: "another address of the box over IPv6", end: end, frames: from(UDP, "fd88::22", "[2001:db8:1::9]:443"), at: out},
		{name: "another address of the box, to the host", end: end, frames: from(UDP, "fd88::22", "[fd88::1]:7777"), at: service},
	} {
		b.to = gate
		b.open = []string{"flush set inet boxwire strict"}
		b.expectDenied(t, s.host)
		if err := s.gw.Sync(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
}

// A flow that a policy has let begin ends with it, however it goes on; a flow that a grant has let begin goes
// on when the grant has run out, and no new one begins.
func TestFlowsEndWithTheirPolicyAndOutliveTheirGrant(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, state := newPoliced(t, false, false)
	end, gate, out := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0"), listenAndAnswer(t, s.outside, ":443")
	arrives := func(src, text string) func() bool {
		dst := ap("203.0.113.9:443")
		if ap(src).Addr().Is6() {
			dst = ap("[2001:db8:1::9]:443")
		}
		return func() bool { end.send(t, gate, ap(src), dst, text); return out.has(text) }
	}
	for _, src := range []string{"10.88.0.2:1", "[fd88::2]:1"} {
		if !until(arrives(src, "begin "+src)) {
			t.Fatalf("%s is denied", src)
		}
	}
	tight := state.Policies[0]
	tight.Egress = allows(t, "udp 203.0.113.9 port 444")
	if err := s.gw.SetPolicies(t.Context(), tight); err != nil {
		t.Fatal(err)
	}
	denied := func(src string) {
		t.Helper()
		_, before := findRule(t, s.host, "deny_out", theRest)
		text := "denied " + src
		if !until(func() bool {
			if arrives(src, text)() {
				t.Errorf("%s arrives", src)
			}
			_, now := findRule(t, s.host, "deny_out", theRest)
			return now > before
		}) {
			t.Errorf("%s is not denied", src)
		}
		if out.has(text) {
			t.Errorf("%s arrives", src)
		}
	}
	denied("10.88.0.2:1")
	denied("[fd88::2]:1")
	if err := s.gw.Grant(t.Context(), tight.Box[0], 2*time.Second, allows(t, "udp 203.0.113.9 port 443").Allow...); err != nil {
		t.Fatal(err)
	}
	if !until(arrives("10.88.0.2:2", "granted")) {
		t.Fatal("the grant opens nothing")
	}
	if !until(func() bool { // the flow is used meanwhile: on a slow kernel it would run out by itself
		arrives("10.88.0.2:2", "meanwhile")()
		return len(elements(t, s.host, "grant4")) == 0
	}) {
		t.Fatal("the grant stays")
	}
	if !until(arrives("10.88.0.2:2", "goes on")) {
		t.Error("the flow of the grant has ended with it")
	}
	denied("10.88.0.2:3")
}
