//go:build linux

package probe

import (
	"context"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

const owner = route.Protocol(201)

// world is two nodes and what is between them:
//
//	a  eth0 192.0.2.1, 2001:db8:1::1  ---  a0  mid  b0  ---  eth0 198.51.100.1, 2001:db8:2::1  b     mid is a router
//	a  eth0 192.0.2.1, 2001:db8:1::1  ---  a0  mid  b0  ---  eth0 192.0.2.2, 2001:db8:1::2     b     mid has a bridge
//
// a has the boxes 10.100.1.0/24 and fd99:0:0:1::/64, b has 10.100.2.0/24 and fd99:0:0:2::/64.
type world struct {
	t      *testing.T
	a, b   *netns.NS
	mid    *netns.NS
	nodeA  state.Node
	nodeB  state.Node
	self   Self // b's responder
	q      Question
	direct bool
}

type shape struct {
	v6      bool // the underlay
	bridged bool
	direct  bool // routes without a tunnel
}

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		p := netip.MustParsePrefix(s)
		if p.Addr().Is4() || netnstest.HasIPv6() {
			all = append(all, p)
		}
	}
	return all
}

func newWorld(t *testing.T, s shape) *world {
	t.Helper()
	if s.v6 {
		netnstest.NeedIPv6(t)
	}
	w := &world{t: t, a: netnstest.New(t), mid: netnstest.New(t), b: netnstest.New(t), direct: s.direct}
	ctx := t.Context()
	underA, underB := prefixes("192.0.2.1/24", "2001:db8:1::1/64"), prefixes("198.51.100.1/24", "2001:db8:2::1/64")
	gateA, gateB := prefixes("192.0.2.254/24", "2001:db8:1::ff/64"), prefixes("198.51.100.254/24", "2001:db8:2::ff/64")
	portA, portB := link.Spec{Name: "a0", Up: true, Addrs: gateA}, link.Spec{Name: "b0", Up: true, Addrs: gateB}
	forward := new(true)
	for _, ns := range []*netns.NS{w.a, w.mid, w.b} {
		if netnstest.HasIPv6() {
			check(t, ns.SetSysctl(ctx, "net.ipv6.conf.default.accept_dad", "0"))
			check(t, ns.SetSysctl(ctx, "net.ipv6.conf.all.forwarding", "1"))
		}
		check(t, ns.SetSysctl(ctx, "net.ipv4.ip_forward", "1"))
	}
	if s.bridged {
		underB = prefixes("192.0.2.2/24", "2001:db8:1::2/64")
		br := must(link.Create(ctx, w.mid, link.Spec{Name: "br0", Up: true, Kind: link.Bridge{}}))(t)
		portA.Addrs, portB.Addrs = nil, nil
		portA.Master, portB.Master = br.Ref(), br.Ref()
		forward = nil
	}
	for _, h := range []struct {
		ns   *netns.NS
		port link.Spec
		own  []netip.Prefix
		gate []netip.Prefix
	}{{w.a, portA, underA, gateA}, {w.b, portB, underB, gateB}} {
		h.port.IPv4.Forwarding = forward
		h.port.Kind = link.Veth{Peer: link.Spec{NS: h.ns, Name: "eth0", Up: true, Addrs: h.own}}
		l := must(link.Create(ctx, w.mid, h.port))(t)
		check(t, l.WaitReachable(ctx))
		if !s.bridged {
			for _, g := range h.gate {
				check(t, route.Add(ctx, h.ns, route.Default(g.Addr())))
			}
		}
	}
	at := 0
	overhead := 36
	if s.v6 {
		at, overhead = 1, 56
	}
	w.nodeA = node(1, "a", underA[at].Addr(), "10.100.1.0/24", "fd99:0:0:1::/64")
	w.nodeB = node(2, "b", underB[at].Addr(), "10.100.2.0/24", "fd99:0:0:2::/64")
	if s.direct { // a route's gateway is of the route's family
		w.nodeA.Prefixes, w.nodeB.Prefixes = w.nodeA.Prefixes[:1], w.nodeB.Prefixes[:1]
	}
	w.wire(w.a, w.nodeA, w.nodeB, 1500-overhead)
	w.wire(w.b, w.nodeB, w.nodeA, 1500-overhead)
	cfg := state.DefaultConfig()
	cfg.Mode = state.Tunnel
	snap := &state.Snapshot{Config: &cfg, Nodes: map[state.ID]state.Node{}, Claims: map[netip.Prefix]state.ID{}}
	for _, n := range []state.Node{w.nodeA, w.nodeB} {
		snap.Nodes[n.ID] = n
		for _, p := range n.Prefixes {
			snap.Claims[p] = n.ID
		}
	}
	w.self = Self{Host: Host{NS: w.b, Tunnel: "fl0", Owner: owner, Port: cfg.Port}, ID: w.nodeB.ID, Generation: w.nodeB.Generation}
	w.q = Question{Host: Host{NS: w.a, Tunnel: "fl0", Owner: owner}, Self: w.nodeA.ID, Snapshot: snap, Peer: "b"}
	return w
}

func node(id byte, name string, endpoint netip.Addr, boxes ...string) state.Node {
	return state.Node{
		Version: 1, ID: state.ID{id, 15: id}, Name: name, Endpoints: []netip.Addr{endpoint}, MTU: 1500,
		Prefixes: prefixes(boxes...), Generation: 3,
	}
}

// wire makes the tunnel link and the routes of a node, as the overlay's example in package route does.
func (w *world) wire(ns *netns.NS, self, peer state.Node, mtu int) {
	w.t.Helper()
	ctx := w.t.Context()
	l := w.makeTunnel(ns, self, mtu, true)
	var routes []route.Route
	for i, p := range peer.Prefixes {
		r := route.Route{Dst: p, Src: state.Gateway(self.Prefixes[i])}
		if w.direct {
			r.Via = peer.Endpoints[0]
		} else {
			r.Dev, r.Metrics, r.Encap = l.Index, &route.Metrics{MTU: uint32(mtu)}, route.IPEncap{ID: 7, Dst: peer.Endpoints[0], TTL: 64}
		}
		pool := netip.PrefixFrom(p.Addr(), 16).Masked()
		routes = append(routes, r, route.Route{Dst: pool, Type: route.TypeUnreachable, Metric: 1<<32 - 1})
	}
	must(route.Sync(ctx, ns, owner, routes...))(w.t)
}

// makeTunnel makes the tunnel link. Its UDP packets have no checksums, over IPv6 as well, and zero6 accepts that.
func (w *world) makeTunnel(ns *netns.NS, self state.Node, mtu int, zero6 bool) link.Link {
	w.t.Helper()
	var addrs []netip.Prefix
	for _, p := range self.Prefixes {
		addrs = append(addrs, netip.PrefixFrom(state.Gateway(p), p.Addr().BitLen()))
	}
	return must(link.Create(w.t.Context(), ns, link.Spec{
		Name: "fl0", Up: true, MTU: mtu, Addrs: addrs, Kind: link.VXLAN{External: true, GPE: true, Port: 4790, Learning: new(false), UDPZeroChecksum6Rx: zero6},
	}))(w.t)
}

// serve runs b's responder until the test ends.
func (w *world) serve() *Responder {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := must(Listen(ctx, w.self))(w.t)
	done := make(chan error)
	go func() { done <- r.Serve(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return r
}

func (w *world) link(ns *netns.NS, name string) link.Link {
	w.t.Helper()
	return must(link.Get(w.t.Context(), ns, name))(w.t)
}

// own is the fleet's route to b's boxes of IPv4, on a.
func (w *world) own() route.Route {
	w.t.Helper()
	for _, r := range must(route.List(w.t.Context(), w.a, route.Filter{Protocol: owner}))(w.t) {
		if r.Dst == w.nodeB.Prefixes[0] {
			return r
		}
	}
	w.t.Fatal("no route")
	return route.Route{}
}

// filter drops what matches an nft expression, in a chain of a hook.
func filter(hook, match string) string {
	return "add table inet t; add chain inet t c { type filter hook " + hook + " priority 0; }; add rule inet t c " + match + " counter drop"
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}
