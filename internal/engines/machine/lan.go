package machine

import (
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// The addresses of LAN and of the machine.
var (
	lan4  = netip.MustParsePrefix("192.0.2.1/24")
	lan6  = netip.MustParsePrefix("2001:db8:1::1/64")
	host4 = netip.MustParsePrefix("192.0.2.2/24")
	host6 = netip.MustParsePrefix("2001:db8:1::2/64")
)

// wire connects the machine with its neighbour.
func (m *Machine) wire(t testing.TB) {
	t.Helper()
	ctx := t.Context()
	var err error
	if m.LAN, err = netns.New(ctx); err != nil {
		t.Fatalf("machine: %v", err)
	}
	lans, hosts := []netip.Prefix{lan4}, []netip.Prefix{host4}
	routes := []route.Route{route.Default(lan4.Addr())}
	if netnstest.HasIPv6() {
		lans, hosts = append(lans, lan6), append(hosts, host6)
		routes = append(routes, route.Default(lan6.Addr()))
	}
	for _, ns := range []*netns.NS{m.LAN, m.NS} {
		lo, err := link.Get(ctx, ns, "lo")
		if err == nil {
			err = lo.SetUp(ctx)
		}
		if err != nil {
			t.Fatalf("machine: %v", err)
		}
	}
	_, err = link.Create(ctx, m.LAN, link.Spec{
		Name: "eth0", Up: true, Addrs: lans,
		Kind: link.Veth{Peer: link.Spec{NS: m.NS, Name: "eth0", Up: true, Addrs: hosts}},
	})
	if err != nil {
		t.Fatalf("machine: %v", err)
	}
	if err := route.Add(ctx, m.NS, routes...); err != nil {
		t.Fatalf("machine: %v", err)
	}
}
