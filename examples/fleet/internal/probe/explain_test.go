//go:build linux

package probe

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// Each test breaks one thing, and Explain must name that and nothing else.
func TestExplain(t *testing.T) {
	t.Parallel()
	const tunnel = "udp dport 4790"
	type finding struct {
		cause Cause
		side  Side
		text  string // part of Measured
	}
	none := finding{}
	for _, tt := range []struct {
		name  string
		shape shape
		alone bool // the peer's agent does not run
		spoil func(w *world)
		want  finding
	}{
		{"nothing is wrong", shape{}, false, func(w *world) {}, none},
		{"nothing is wrong, IPv6 underlay", shape{v6: true}, false, func(w *world) {}, none},
		{"nothing is wrong, one network", shape{bridged: true}, false, func(w *world) {}, none},
		{"nothing is wrong, direct", shape{bridged: true, direct: true}, false, func(w *world) {}, none},

		{"store", shape{}, false, func(w *world) { w.q.Store = errors.New("connection refused") }, finding{StoreAway, Here, "connection refused"}},
		{"claim of another", shape{}, false, func(w *world) { w.q.Snapshot.Claims[w.nodeB.Prefixes[0]] = w.nodeA.ID },
			finding{ClaimDisagrees, Between, "10.100.2.0/24, which a (01000000) has claimed"}},

		{"link deleted", shape{}, false, func(w *world) { check(w.t, w.link(w.a, "fl0").Delete(w.t.Context())) }, finding{LinkMissing, Here, "no link fl0"}},
		{"link down", shape{}, false, func(w *world) { check(w.t, w.link(w.a, "fl0").SetDown(w.t.Context())) }, finding{LinkDown, Here, "fl0 is down"}},
		{"peer's link deleted", shape{}, false, func(w *world) { check(w.t, w.link(w.b, "fl0").Delete(w.t.Context())) }, finding{LinkMissing, There, ""}},
		{"peer's link down", shape{}, false, func(w *world) { check(w.t, w.link(w.b, "fl0").SetDown(w.t.Context())) }, finding{LinkDown, There, ""}},
		{"own address deleted", shape{}, false, func(w *world) {
			r := w.own()
			r.Src = netip.Addr{}
			check(w.t, w.link(w.a, "fl0").DeleteAddrs(w.t.Context(), netip.MustParsePrefix("10.100.1.1/32"))) // and the route that prefers it
			check(w.t, route.Add(w.t.Context(), w.a, r))
		}, finding{AddressMissing, Here, "10.100.1.1"}},

		{"route deleted", shape{}, false, func(w *world) { check(w.t, route.Delete(w.t.Context(), w.a, w.own())) }, finding{RouteMissing, Here, "10.100.2.1"}},
		{"route of another", shape{}, false, func(w *world) {
			check(w.t, route.Add(w.t.Context(), w.a, route.To(netip.MustParsePrefix("10.100.2.0/25"), netip.MustParseAddr("192.0.2.254"))))
		}, finding{RouteForeign, Here, "10.100.2.0/25 via 192.0.2.254"}},
		{"route of another that refuses", shape{}, false, func(w *world) {
			check(w.t, route.Add(w.t.Context(), w.a, route.Route{Dst: netip.MustParsePrefix("10.100.2.0/25"), Type: route.TypeProhibit}))
		}, finding{RouteForeign, Here, "prohibit 10.100.2.0/25"}},
		{"route to another endpoint", shape{}, false, func(w *world) {
			r := w.own()
			r.Encap = route.IPEncap{ID: 7, Dst: netip.MustParseAddr("192.0.2.77"), TTL: 64}
			check(w.t, route.Replace(w.t.Context(), w.a, r))
		}, finding{RouteOther, Here, "192.0.2.77"}},
		{"taken for dead", shape{}, false, func(w *world) {
			r := route.Route{Dst: w.nodeB.Prefixes[0], Type: route.TypeUnreachable, Protocol: owner}
			check(w.t, route.Replace(w.t.Context(), w.a, r))
		}, finding{PeerTakenForDead, Here, "unreachable 10.100.2.0/24"}},
		{"taken for dead, IPv6 boxes", shape{}, false, func(w *world) {
			netnstest.NeedIPv6(w.t)
			r := route.Route{Dst: w.nodeB.Prefixes[1], Type: route.TypeUnreachable, Protocol: owner}
			check(w.t, route.Replace(w.t.Context(), w.a, r))
		}, finding{PeerTakenForDead, Here, "unreachable fd99:0:0:2::/64"}},
		{"route deleted, a default route is left", shape{}, false, func(w *world) {
			pool := route.Route{Dst: netip.MustParsePrefix("10.100.0.0/16"), Type: route.TypeUnreachable, Metric: 1<<32 - 1, Protocol: owner}
			check(w.t, route.Delete(w.t.Context(), w.a, w.own(), pool))
		}, finding{RouteMissing, Here, "no route of the fleet leads to 10.100.2.1; the kernel chooses default via 192.0.2.254"}},
		{"route back deleted", shape{}, false, func(w *world) {
			_, err := route.Sync(w.t.Context(), w.b, owner, route.Route{Dst: netip.MustParsePrefix("10.100.0.0/16"), Type: route.TypeUnreachable, Metric: 1<<32 - 1})
			check(w.t, err)
		}, finding{RouteMissing, There, ""}},

		{"no way on the underlay", shape{}, false, func(w *world) {
			check(w.t, route.Delete(w.t.Context(), w.a, route.Default(netip.MustParseAddr("192.0.2.254"))))
		}, finding{NoUnderlayRoute, Here, "198.51.100.1"}},
		{"no such address", shape{bridged: true}, false, func(w *world) {
			check(w.t, w.link(w.b, "eth0").DeleteAddrs(w.t.Context(), netip.MustParsePrefix("192.0.2.2/24")))
		}, finding{NeighbourSilent, Between, "nobody answers ARP for 192.0.2.2, the peer, on link eth0"}},
		{"no such address, IPv6", shape{bridged: true, v6: true}, false, func(w *world) {
			check(w.t, w.link(w.b, "eth0").DeleteAddrs(w.t.Context(), netip.MustParsePrefix("2001:db8:1::2/64")))
		}, finding{NeighbourSilent, Between, "nobody answers neighbour discovery for 2001:db8:1::2"}},
		{"gateway gone", shape{}, false, func(w *world) {
			check(w.t, w.link(w.mid, "a0").DeleteAddrs(w.t.Context(), netip.MustParsePrefix("192.0.2.254/24")))
		},
			finding{NeighbourSilent, Between, "192.0.2.254, the gateway to the peer"}},
		{"machine drops all", shape{bridged: true}, false, func(w *world) { nft(w.t, w.b, filter("input", "ip saddr 192.0.2.1")) }, finding{MachineSilent, Between, "is there"}},

		{"no agent", shape{}, true, func(w *world) {}, finding{AgentSilent, There, "nothing listens on UDP port 4791"}},
		{"agent's port dropped", shape{}, false, func(w *world) { nft(w.t, w.b, filter("input", "iifname eth0 udp dport 4791")) }, finding{AgentSilent, There, "nothing on UDP port 4791"}},
		{"another node there", shape{}, false, func(w *world) { w.self.ID = state.ID{9} }, finding{WrongNode, There, "node 0900"}},
		{"an old agent there", shape{}, false, func(w *world) { w.self.Generation = 2 }, finding{OldAgent, There, "generation 2, and the store 3"}},
		{"clock ahead", shape{}, false, func(w *world) { w.self.now = func() time.Time { return time.Now().Add(time.Minute) } }, finding{ClockSkew, Between, "clock is 1m0s off"}},
		{"clock behind", shape{}, false, func(w *world) { w.self.now = func() time.Time { return time.Now().Add(-time.Hour) } }, finding{ClockSkew, Between, "clock is -1h0m0s off"}},

		{"dropped here", shape{}, false, func(w *world) { nft(w.t, w.a, filter("output", tunnel)) }, finding{FilteredHere, Here, "do not leave this host"}},
		{"dropped here before the tunnel", shape{}, false, func(w *world) { nft(w.t, w.a, filter("output", "oifname fl0")) }, finding{FilteredHere, Here, "do not leave by the tunnel link"}},
		{"dropped here on the way in", shape{}, false, func(w *world) { nft(w.t, w.a, filter("input", tunnel)) }, finding{FilteredHere, Here, "do not come out of the tunnel link"}},
		{"dropped here behind the tunnel", shape{}, false, func(w *world) { nft(w.t, w.a, filter("input", "iifname fl0")) }, finding{FilteredHere, Here, "this host drops them"}},
		{"dropped on the way", shape{}, false, func(w *world) { nft(w.t, w.mid, filter("forward", "iifname a0 "+tunnel)) }, finding{FilteredOnWay, Between, "do not arrive at the peer"}},
		{"dropped on the way, IPv6", shape{v6: true}, false, func(w *world) { nft(w.t, w.mid, filter("forward", "iifname a0 "+tunnel)) }, finding{FilteredOnWay, Between, "do not arrive at the peer"}},
		{"dropped on the way back", shape{}, false, func(w *world) { nft(w.t, w.mid, filter("forward", "iifname b0 "+tunnel)) }, finding{FilteredOnWay, Between, "do not arrive here"}},
		{"dropped at the peer", shape{}, false, func(w *world) { nft(w.t, w.b, filter("input", tunnel)) }, finding{FilteredAtPeer, There, "do not come out of its tunnel link"}},
		{"dropped at the peer on the way out", shape{}, false, func(w *world) { nft(w.t, w.b, filter("output", tunnel)) }, finding{FilteredAtPeer, There, "do not leave the peer"}},
		{"dropped in the peer's overlay", shape{}, false, func(w *world) { nft(w.t, w.b, filter("input", "iifname fl0")) }, finding{OverlaySilent, There, "sends no answer"}},
		{"UDP dropped in the peer's overlay", shape{}, false, func(w *world) { nft(w.t, w.b, filter("input", "iifname fl0 meta l4proto udp")) }, finding{OverlaySilent, There, "UDP packets to 10.100.2.1"}},
		{"direct, dropped at the peer", shape{bridged: true, direct: true}, false, func(w *world) { nft(w.t, w.b, filter("input", "ip daddr 10.100.2.1")) }, finding{OverlaySilent, There, "no answer leaves it"}},
		{"direct, dropped here", shape{bridged: true, direct: true}, false, func(w *world) { nft(w.t, w.a, filter("output", "ip daddr 10.100.2.1")) }, finding{FilteredHere, Here, "do not leave this host"}},

		{"MTU on the way", shape{}, false, func(w *world) { w.mtu("b0", 1337) }, finding{MTUTooBig, Between, "packets of 1500 bytes to 198.51.100.1 are lost (on the way there), and 1337 bytes pass; this node's MTU is 1500 and the peer's 1500"}},
		{"MTU on the way back", shape{}, false, func(w *world) { w.mtu("a0", 1499) }, finding{MTUTooBig, Between, "are lost (on the way back), and 1499 bytes pass"}},
		{"MTU on the way, IPv6", shape{v6: true}, false, func(w *world) { w.mtu("b0", 1281) }, finding{MTUTooBig, Between, "packets of 1500 bytes to 2001:db8:2::1 are lost (on the way there), and 1281 bytes pass"}},
		{"MTU of a link here", shape{}, false, func(w *world) { w.claimMTU(9000); w.resize("b", 9000) }, finding{MTUTooBig, Here, "packets of 9000 bytes to 198.51.100.1 are lost (this host's link refuses them), and 1500 bytes pass"}},
		{"MTU of a link there", shape{}, false, func(w *world) { w.shrinkPeer(1497) }, finding{MTUTooBig, There, "the peer's own link refuses the answers), and 1497 bytes pass"}},

		{"outer checksum", shape{}, false, func(w *world) {
			nft(w.t, w.mid, "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c iifname a0 "+tunnel+" udp checksum set 0xbeef")
		}, finding{BadChecksum, Here, "echo requests that arrived at the peer"}},
		{"outer checksum on the way back", shape{}, false, func(w *world) {
			nft(w.t, w.mid, "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c iifname b0 "+tunnel+" udp checksum set 0xbeef")
		}, finding{BadChecksum, There, "answers to echo requests to 10.100.2.1 that arrived here"}},
		{"inner checksum", shape{}, false, func(w *world) {
			// The last four bytes of what follows 8 bytes of UDP, 8 of VXLAN and 20 of IP: length and checksum of the inner UDP.
			check(w.t, w.link(w.a, "fl0").SetFeatures(w.t.Context(), map[string]bool{"tx-checksum-ip-generic": false}))
			nft(w.t, w.mid, "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c iifname a0 "+tunnel+" @th,200,8 17 @th,336,16 set 0xbeef")
		}, finding{BadChecksum, Here, "UDP packets that arrived at the peer"}},
		{"no checksum over IPv6", shape{v6: true}, false, func(w *world) {
			l := w.link(w.b, "fl0")
			routes := must(route.List(w.t.Context(), w.b, route.Filter{Dev: l.Index, Protocol: owner}))(w.t)
			check(w.t, l.Delete(w.t.Context()))
			w.makeTunnel(w.b, w.nodeB, l.MTU, false)
			for i := range routes {
				routes[i].Dev = w.link(w.b, "fl0").Index
			}
			check(w.t, route.Add(w.t.Context(), w.b, routes...))
		}, finding{BadChecksum, There, "by UDP over IPv6 without a checksum"}},
		{"no agent, dropped on the way", shape{}, true, func(w *world) { nft(w.t, w.mid, filter("forward", "iifname b0 "+tunnel)) }, finding{TunnelSilent, Between, "nothing comes back"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.shape)
			tt.spoil(w)
			if !tt.alone {
				w.serve()
			}
			r := must(Explain(t.Context(), w.q))(t)
			findings := slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool {
				return tt.alone && f.Cause == AgentSilent && tt.want.cause != AgentSilent
			})
			if tt.want == none {
				if len(findings) > 0 {
					t.Errorf("nothing is wrong, and this is found:\n%v", r)
				}
				return
			}
			if len(findings) != 1 || findings[0].Cause != tt.want.cause || findings[0].Side != tt.want.side || !strings.Contains(findings[0].Measured, tt.want.text) {
				t.Errorf("want %s %s %q, got\n%v", tt.want.cause, tt.want.side, tt.want.text, r)
			}
		})
	}
}

// mtu makes packets that leave the router by a link smaller. The hosts' own links keep theirs.
func (w *world) mtu(name string, mtu int) {
	_, err := w.link(w.mid, name).Update(w.t.Context(), link.Spec{MTU: mtu})
	check(w.t, err)
}

// claimMTU makes both nodes say that they have it.
func (w *world) claimMTU(mtu int) {
	for id, n := range w.q.Snapshot.Nodes {
		n.MTU = mtu
		w.q.Snapshot.Nodes[id] = n
	}
}

// resize gives all links but those of the other host an MTU.
func (w *world) resize(host string, mtu int) {
	w.mtu(host+"0", mtu)
	ns := w.b
	if host == "a" {
		ns = w.a
	}
	_, err := w.link(ns, "eth0").Update(w.t.Context(), link.Spec{MTU: mtu})
	check(w.t, err)
}

// shrinkPeer makes what b sends smaller by at most 4 bytes, and not what it takes: a veth lets room for a VLAN's header.
func (w *world) shrinkPeer(mtu int) {
	_, err := w.link(w.b, "eth0").Update(w.t.Context(), link.Spec{MTU: mtu})
	check(w.t, err)
}

func TestExplainUnknownPeer(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	cfg := state.DefaultConfig()
	one, two := node(1, "one", netip.MustParseAddr("192.0.2.1")), node(2, "two", netip.MustParseAddr("192.0.2.2"))
	twin := one
	twin.ID = state.ID{1, 2}
	snap := &state.Snapshot{Config: &cfg, Nodes: map[state.ID]state.Node{one.ID: one, two.ID: two, twin.ID: twin}}
	skipped := state.ID{0xee, 0xee}
	snap.Skipped = []state.Skipped{{Key: state.NodeKey(skipped), Err: errors.New("prefix 10.100.7.0/24: claimed by one (01000000)")}}
	for _, tt := range []struct {
		peer string
		want Cause
		text string
	}{
		{"nobody", PeerUnknown, `none of 3 nodes in the store is "nobody"`},
		{"", PeerUnknown, ""},
		{"02", PeerUnknown, ""}, // too short for an ID
		{"one", PeerAmbiguous, "2 nodes match"},
		{"eeee", ClaimDisagrees, "10.100.7.0/24: claimed by one"},
	} {
		r, err := Explain(t.Context(), Question{Host: Host{NS: ns, Tunnel: "fl0", Owner: owner}, Snapshot: snap, Peer: tt.peer})
		if err != nil || len(r.Findings) != 1 || r.Findings[0].Cause != tt.want || !strings.Contains(r.Findings[0].Measured, tt.text) {
			t.Errorf("%q: want %s %q, got %v, %v", tt.peer, tt.want, tt.text, r, err)
		}
	}
	if r, err := Explain(t.Context(), Question{Host: Host{NS: ns}, Snapshot: snap, Self: two.ID, Peer: "two"}); err != nil || len(r.Findings) != 0 || len(r.Facts) != 1 {
		t.Errorf("the node itself: %v, %v", r, err)
	}
	if r, err := Explain(t.Context(), Question{Host: Host{NS: ns}, Store: errors.New("refused"), Peer: "one"}); err != nil || !r.Has(StoreAway) {
		t.Errorf("without a snapshot: %v, %v", r, err)
	}
}

func TestExplainEndsWithContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shape{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Explain(ctx, w.q); !errors.Is(err, context.Canceled) {
		t.Errorf("a done context: %v", err)
	}
}
