package nat

import (
	"fmt"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Rules that judge sources, by how they begin.
const (
	claimed4  = "ip saddr . meta protocol @nets4"
	claimed6  = "ip6 saddr . meta protocol @nets6"
	forTheOwn = "fib daddr type"
)

// claims are the rules of near for sources of networks from elsewhere, which without
// ownSources are those of boxes, too.
var claims = [][2]string{{"near", claimed4}, {"near", claimed6}}

// eachWay runs fn as a subtest for both families and the protocols, without and with
// br_netfilter. in writes an IPv4 text in the family.
func eachWay(t *testing.T, protos []Proto, fn func(t *testing.T, filtered bool, proto Proto, v6 bool, in func(string) string)) {
	t.Parallel()
	way := 0
	for _, filtered := range []bool{false, true} {
		for _, proto := range protos {
			for _, v6 := range []bool{false, true} {
				if way++; !testutil.Spread(way, 4) {
					continue
				}
				t.Run(fmt.Sprintf("%v over IPv%d, br_netfilter %v", proto, map[bool]int{false: 4, true: 6}[v6], filtered), func(t *testing.T) {
					t.Parallel()
					fn(t, filtered, proto, v6, func(addr string) string {
						if v6 {
							return inIPv6.Replace(addr)
						}
						return addr
					})
				})
			}
		}
	}
}

// inIPv6 writes addresses of the topology with their ports as those of IPv6.
var inIPv6 = strings.NewReplacer(
	"10.88.0.2:", "[fd88::2]:", "10.88.0.3:", "[fd88::3]:", "10.89.0.2:", "[fd89::2]:", "203.0.113.1:", "[2001:db8:1::1]:",
	"203.0.113.9:", "[2001:db8:1::9]:", "198.51.100.9:", "[2001:db8:2::9]:",
	"10.88.0.2", "fd88::2", "10.88.0.3", "fd88::3", "10.89.0.2", "fd89::2", "203.0.113.9", "2001:db8:1::9",
)

// A packet with a false source makes the answers to it pass for those of a
// connection that was let in.
func TestNobodyOpensAWayByAFalseSource(t *testing.T) {
	netnstest.NeedIPv6(t)
	eachWay(t, []Proto{TCP, UDP}, func(t *testing.T, filtered bool, proto Proto, v6 bool, in func(string) string) {
		routed, internal := network0(), network1()
		routed.Masquerade, internal.Internal = false, true
		routed.Pinholes = []Pinhole{{Proto: proto, Box: ap(in("10.88.0.2:80")), Owner: "web"}}
		s, build := newAttacked(t, routed, internal)
		bridgeNF(t, s.host, filtered)
		// A router before the networks came.
		setSysctl(t, s.host, "ipv4/ip_forward", "1")
		setSysctl(t, s.host, "ipv6/conf/all/forwarding", "1")
		mute(t, s.box)
		mute(t, s.sibling)
		mute(t, s.other)
		mute(t, s.outside)
		box, other, outside := newWireEnd(t, s.box, "eth0"), newWireEnd(t, s.other, "eth0"), newWireEnd(t, s.outside, "wan0")
		gate0, gate1, uplink := macOf(t, s.host, "br0"), macOf(t, s.host, "br1"), macOf(t, s.host, "up0")
		atBox, atOutside := capture(t, s.box, "eth0"), capture(t, s.outside, "wan0")
		claim := claims[0]
		if v6 {
			claim = claims[1]
		}
		attacks := []attack{
			{
				name: "published port and a sibling network's source", end: other, to: gate1, at: atBox,
				lure: &lure{src: "10.88.0.2:9", dst: "203.0.113.1:8081"}, src: "10.89.0.2:90", dst: "10.88.0.2:9",
				chain: "near", rule: ownSources, others: claims, stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "own address and a sibling network's source", end: other, to: gate1, at: atBox,
				lure: &lure{src: "10.88.0.2:9", dst: "10.89.0.2:90"}, src: "10.89.0.2:90", dst: "10.88.0.2:9",
				// An internal network's packet does not come as far as to_box.
				chain: "near", rule: ownSources, others: claims, stopChain: "new_flow", stopRule: noWayOut,
			},
			{
				name: "published port and a source outside", end: other, to: gate1, at: atOutside,
				lure: &lure{src: "203.0.113.9:9", dst: "203.0.113.1:8081"}, src: "10.89.0.2:90", dst: "203.0.113.9:9",
				chain: "guard", rule: ownSources, others: claims, stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "own address and a source outside", end: other, to: gate1, at: atOutside,
				lure: &lure{src: "203.0.113.9:9", dst: "10.89.0.2:90"}, src: "10.89.0.2:90", dst: "203.0.113.9:9",
				chain: "guard", rule: ownSources, others: claims, stopChain: "new_flow", stopRule: noWayOut,
			},
			{
				name: "into a connection that there is", end: other, to: gate1, at: atBox,
				lure: &lure{end: box, to: gate0, src: "10.88.0.2:9", dst: "203.0.113.9:53"}, src: "203.0.113.9:53", dst: "10.88.0.2:9",
				chain: "guard", rule: ownSources, others: claims, stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "out of the network with another's source", end: box, to: gate0, src: "10.89.0.2", dst: "203.0.113.9:9", at: atOutside,
				chain: "near", rule: ownSources, others: claims, stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "to a box by a neighbour with its source", end: outside, to: uplink, at: atBox,
				lure: &lure{src: "10.88.0.2:9", dst: "203.0.113.9:90"}, src: "203.0.113.9:90", dst: "10.88.0.2:9",
				chain: claim[0], rule: claim[1], stopChain: "to_box", stopRule: theRest,
			},
			{
				name: "to an opened port by a neighbour with a sibling's source", end: outside, to: uplink,
				src: "10.88.0.3", dst: "10.88.0.2:80", at: atBox, chain: claim[0], rule: claim[1], stopChain: "untracked", stopRule: claim[1],
			},
		}
		for i, a := range attacks {
			if !testutil.Spread(i+map[bool]int{true: 1}[filtered], 2) { // a kernel takes half with br_netfilter, half without
				continue
			}
			if l := a.lure; l != nil {
				l.src, l.dst = in(l.src), in(l.dst)
			}
			a.src, a.dst, a.proto = in(a.src), in(a.dst), proto
			build(t)
			p := tcp(in("203.0.113.1:8081"), in("10.89.0.2:90"), "other")
			p.Proto = proto
			if err := s.gw.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			a.expectBlocked(t, s.host)
		}
	})
}

// Nor does the host itself take a false source.
func TestTheHostTakesNoFalseSource(t *testing.T) {
	netnstest.NeedIPv6(t)
	eachWay(t, []Proto{UDP}, func(t *testing.T, filtered bool, _ Proto, _ bool, in func(string) string) {
		s, build := newAttacked(t, network0(), network1())
		bridgeNF(t, s.host, filtered)
		service := listen(t, s.host, ":7777")
		for _, a := range []attack{
			{
				name: "a box with another network's source", end: newWireEnd(t, s.box, "eth0"), to: macOf(t, s.host, "br0"),
				src: "10.89.0.2", rule: ownSources, chain: "near", others: claims, stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "a box with a source outside", end: newWireEnd(t, s.box, "eth0"), to: macOf(t, s.host, "br0"),
				src: "203.0.113.9", rule: ownSources, chain: "guard", stopChain: "strangers", stopRule: theRest,
			},
			{
				name: "a neighbour with a box's source", end: newWireEnd(t, s.outside, "wan0"), to: macOf(t, s.host, "up0"),
				src: "10.88.0.2", rule: forTheOwn, chain: "claimed",
			},
		} {
			a.src, a.dst, a.at = in(a.src), in("203.0.113.1:7777"), service
			build(t)
			a.expectBlocked(t, s.host)
		}
	})
}
