package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// A host is a node of a test's fleet, as a namespace: number n has the address 192.0.2.n (fd77::n) on eth0, the prefixes
// 10.100.n.0/24 and fd99:0:0:n::/64, and a box with the second address of each.
type host struct {
	n        int
	ns       *netns.NS
	box      *netns.NS
	wire     *Wire
	id       state.ID
	prefixes []netip.Prefix
}

func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

func config(m state.Mode) state.Config {
	c := state.DefaultConfig()
	c.Mode = m
	return c
}

// underlays are the addresses of a host's eth0. With only4 the fleet has no IPv6 at all.
type underlays struct{ v4, v6, only4 bool }

// newHosts makes hosts on one switch, each with a box.
func newHosts(t testing.TB, count int, u underlays) []*host {
	t.Helper()
	if !u.only4 {
		netnstest.NeedIPv6(t)
	}
	ctx := t.Context()
	between := netnstest.New(t)
	try(t, second(link.Create(ctx, between, link.Spec{Name: "net0", Up: true, Kind: link.Bridge{}})))
	var hosts []*host
	for n := 1; n <= count; n++ {
		h := &host{
			n: n, ns: netnstest.New(t), box: netnstest.New(t), id: state.ID{15: byte(n)},
			prefixes: []netip.Prefix{prefix("10.100.%d.0/24", n), prefix("fd99:0:0:%x::/64", n)},
		}
		if u.only4 {
			h.prefixes = h.prefixes[:1]
		}
		var addrs []netip.Prefix
		if u.v4 {
			addrs = append(addrs, prefix("192.0.2.%d/24", n))
		}
		if u.v6 {
			addrs = append(addrs, prefix("fd77::%x/64", n))
		}
		eth, err := link.Create(ctx, between, link.Spec{
			Name: fmt.Sprint("host", n), Up: true, Master: link.Ref{Name: "net0"},
			Kind: link.Veth{Peer: link.Spec{NS: h.ns, Name: "eth0", Up: true, Addrs: addrs}},
		})
		try(t, err)
		h.plug(t)
		try(t, eth.WaitReachable(ctx))
		h.wire = New(h.ns, Options{Dir: t.TempDir()})
		hosts = append(hosts, h)
	}
	return hosts
}

// plug gives the host its box.
func (h *host) plug(t testing.TB) {
	t.Helper()
	ctx := t.Context()
	var gateways, addrs []netip.Prefix
	for _, p := range h.prefixes {
		gateway := state.Gateway(p)
		gateways = append(gateways, netip.PrefixFrom(gateway, p.Bits()))
		addrs = append(addrs, netip.PrefixFrom(gateway.Next(), p.Bits()))
	}
	port, err := link.Create(ctx, h.ns, link.Spec{
		Name: "box", Up: true, Addrs: gateways, IPv4: link.IPv4Conf{Forwarding: new(true)},
		Kind: link.Veth{Peer: link.Spec{NS: h.box, Name: "eth0", Up: true, Addrs: addrs}},
	})
	try(t, err)
	for _, p := range h.prefixes {
		try(t, route.Add(ctx, h.box, route.Default(state.Gateway(p))))
	}
	try(t, port.WaitReachable(ctx))
	if len(h.prefixes) < 2 {
		return
	}
	// What the gateway of the boxes does in a fleet.
	if err := h.ns.SetSysctl(ctx, "net.ipv6.conf.box.force_forwarding", "1"); err != nil {
		try(t, h.ns.SetSysctl(ctx, "net.ipv6.conf.all.forwarding", "1"))
	}
}

func (h *host) boxAddr(f netns.Family) netip.Addr {
	return state.Gateway(h.prefixes[f/netns.IPv6]).Next()
}

func (h *host) node(t testing.TB, cfg state.Config) state.Node {
	t.Helper()
	n := state.Node{Version: state.Version, ID: h.id, Name: fmt.Sprint("h", h.n), Prefixes: h.prefixes, Generation: 1}
	underlay, err := h.wire.Underlay(t.Context(), cfg)
	try(t, err)
	for _, u := range underlay {
		n.MTU = max(n.MTU, u.MTU)
		for _, a := range u.Addrs {
			n.Endpoints = append(n.Endpoints, a.Addr())
		}
	}
	if cfg.Mode == state.WireGuard {
		n.PublicKey, err = h.wire.PublicKey()
		try(t, err)
	}
	return n
}

// snapshotOf is what a store has when all hosts have joined.
func snapshotOf(t testing.TB, cfg state.Config, hosts []*host) *state.Snapshot {
	t.Helper()
	s := &state.Snapshot{Config: &cfg, Nodes: map[state.ID]state.Node{}, Claims: map[netip.Prefix]state.ID{}}
	for _, h := range hosts {
		n := h.node(t, cfg)
		try(t, n.Validate())
		s.Nodes[h.id] = n
		for _, p := range n.Prefixes {
			s.Claims[p] = h.id
		}
	}
	return s
}

// reconcile is one round of an agent.
func (h *host) reconcile(ctx context.Context, s *state.Snapshot, down map[state.ID]bool) (Changes, plan.Plan, error) {
	self, err := h.wire.Self(ctx, h.id, *s.Config, h.prefixes)
	if err != nil {
		return Changes{}, plan.Plan{}, err
	}
	p := plan.For(s, self, down, nil)
	did, err := h.wire.Apply(ctx, p)
	return did, p, err
}

// join brings all hosts into the state that the snapshot says.
func join(t testing.TB, s *state.Snapshot, hosts []*host) {
	t.Helper()
	for _, h := range hosts {
		_, p, err := h.reconcile(t.Context(), s, nil)
		try(t, err)
		if len(p.Skipped) > 0 {
			t.Fatalf("host %d skips %v", h.n, p.Skipped)
		}
	}
}

// reach sends a request by TCP and one by UDP from one namespace to an address of another one, which answers with the address that
// it came from.
func reach(ctx context.Context, from, to *netns.NS, a netip.Addr) (seen netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	address := netip.AddrPortFrom(a, 0).String()
	ln, err := to.Listen(ctx, "tcp", address)
	if err != nil {
		return seen, err
	}
	defer ln.Close()
	packets, err := to.ListenPacket(ctx, "udp", address)
	if err != nil {
		return seen, err
	}
	defer packets.Close()
	go func() {
		b := make([]byte, 64)
		_, who, err := packets.ReadFrom(b)
		if err == nil {
			packets.WriteTo([]byte(who.(*net.UDPAddr).AddrPort().Addr().String()), who)
		}
	}()
	go func() {
		if c, err := ln.Accept(); err == nil {
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
			c.Close()
		}
	}()
	var answers [2]string
	for i, service := range []net.Addr{ln.Addr(), packets.LocalAddr()} {
		network := service.Network()
		c, err := from.Dial(ctx, network, service.String())
		if err != nil {
			return seen, err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		c.SetDeadline(deadline)
		if network == "udp" {
			fmt.Fprint(c, "who am I?")
		}
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return seen, fmt.Errorf("%s: %w", network, err)
		}
		answers[i] = string(b[:n])
	}
	if answers[0] != answers[1] {
		return seen, fmt.Errorf("TCP comes from %s, and UDP from %s", answers[0], answers[1])
	}
	return netip.ParseAddr(answers[0])
}

// allReachAll fails the test unless each box reaches each other one by both families, with its own address.
func allReachAll(t testing.TB, hosts []*host) {
	t.Helper()
	for _, a := range hosts {
		for _, b := range hosts {
			for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
				if a == b || f == netns.IPv6 && len(a.prefixes) < 2 {
					continue
				}
				seen, err := reach(t.Context(), a.box, b.box, b.boxAddr(f))
				if err != nil || seen != a.boxAddr(f) {
					t.Errorf("box %d to box %d by %v: it comes from %v, %v", a.n, b.n, f, seen, err)
				}
			}
		}
	}
}

func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
