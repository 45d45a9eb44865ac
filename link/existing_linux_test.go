package link

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What was there before a call that fails is there after it, also where the kernel
// does not say that it was there.
func TestAddNeighbourKeepsProxies(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	// Down, so that no change of its carrier takes entries away meanwhile.
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	proxy := func(s string) Neighbour { return Neighbour{Addr: netip.MustParseAddr(s), Flags: NeighbourProxy} }
	for _, a := range []string{"10.0.0.5", "fd00::5"} {
		if err := l.AddNeighbours(ctx, proxy(a)); err != nil {
			t.Fatal(err)
		}
		wantErr(t, l.AddNeighbours(ctx, proxy(a)), os.ErrExist, "neighbour "+a+" proxy on link br0", "already")
		other := "10.0.0.6"
		if strings.Contains(a, ":") {
			other = "fd00::6"
		}
		wantErr(t, l.AddNeighbours(ctx, proxy(other), proxy(a)), os.ErrExist)
		wantErr(t, l.AddNeighbours(ctx, proxy(other), proxy(other)), os.ErrExist)
		wantErr(t, l.AddNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr(other), MAC: mac(1)}, proxy(a)), os.ErrExist)
		if n := showNeighs(t, ns)[other]; n.MAC != "" {
			t.Errorf("%v is left", n)
		}
	}
	// One that is there as a neighbour is another thing.
	if err := l.AddNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr("10.0.0.5"), MAC: mac(1)}); err != nil {
		t.Error(err)
	}
	wantErr(t, l.AddNeighbours(ctx, proxy("10.0.0.9"), Neighbour{Addr: netip.MustParseAddr("10.0.0.5"), MAC: mac(2)}), os.ErrExist)
	if p := showNeighs(t, ns, "proxy"); len(p) != 2 || p["10.0.0.5"].Dev != "br0" || p["fd00::5"].Dev != "br0" {
		t.Errorf("ip shows the proxies %v", p)
	}
}

func TestAppendFDBKeepsDestinations(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	vx := mustCreate(t, ns, Spec{Name: "vx0", Up: true, IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}, Kind: VXLAN{ID: new(uint32(7)), Port: 4789}})
	all := make(net.HardwareAddr, 6)
	to := func(mac net.HardwareAddr, dst string) FDBEntry {
		return FDBEntry{MAC: mac, Self: true, Dst: netip.MustParseAddr(dst)}
	}
	if err := vx.AppendFDBEntries(ctx, to(all, "10.0.0.1"), to(all, "10.0.0.2"), to(mac(1), "10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	ported, numbered := to(all, "10.0.0.1"), to(all, "10.0.0.1")
	ported.Port, numbered.VNI = 4789, 7 // the VXLAN's own
	for what, list := range map[string][]FDBEntry{
		"there":                {to(all, "10.0.0.1")},
		"there, after a new":   {to(all, "10.0.0.9"), to(all, "10.0.0.2")},
		"there, its port":      {ported},
		"there, its VNI":       {numbered},
		"twice":                {to(all, "10.0.0.9"), to(all, "10.0.0.9")},
		"a second, unicast":    {to(mac(1), "10.0.0.2")},
		"the same, unicast":    {to(mac(1), "10.0.0.1")},
		"a second of the call": {to(mac(2), "10.0.0.1"), to(mac(2), "10.0.0.2")},
	} {
		t.Run(what, func(t *testing.T) {
			unchanged(t, os.ErrExist, func(ctx context.Context) error { return vx.AppendFDBEntries(ctx, list...) }, ns)
		})
	}
	other := to(all, "10.0.0.1")
	other.Port = 4790
	if err := vx.AppendFDBEntries(ctx, other, to(mac(2), "10.0.0.2"), to(net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, "10.0.0.1")); err != nil {
		t.Error(err)
	}
}

// Beside a VXLAN nothing has several destinations: there AppendFDBEntries is AddFDBEntries.
func TestAppendFDBToABridge(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	_, a, b := twoPorts(t, ns)
	for _, err := range []error{
		a.AppendFDBEntries(ctx, FDBEntry{MAC: mac(1)}),
		a.AppendFDBEntries(ctx, FDBEntry{MAC: mac(2), Self: true, Type: FDBLocal}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, b.AppendFDBEntries(ctx, FDBEntry{MAC: mac(1)}), os.ErrExist, "link b", "already")
	wantErr(t, a.AppendFDBEntries(ctx, FDBEntry{MAC: mac(2), Self: true, Type: FDBLocal}), os.ErrExist)
	show := showFDB(t, ns, "a")
	if len(show[mac(1).String()]) == 0 || len(show[mac(2).String()]) == 0 || len(showFDB(t, ns, "b")[mac(1).String()]) > 0 {
		t.Errorf("bridge shows %v", show)
	}
}

// An entry without a VLAN is one in each VLAN of the port. Where one of them is there,
// none is made.
func TestAddFDBToAPortWithVLANs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	quiet := IPv6Conf{AddrGenMode: new(AddrGenNone)}
	br, err := Create(ctx, ns, Spec{Name: "br0", Up: true, IPv6: quiet, Kind: Bridge{VLANFiltering: new(true)}})
	testutil.NeedKernel(t, 3, 9, "VLAN filtering of bridges", err)
	port := func(name string) Link {
		return mustCreate(t, ns, Spec{Name: name, Up: true, IPv6: quiet, Master: br.Ref(), Kind: Veth{Peer: Spec{Name: name + "p", Up: true, IPv6: quiet}}})
	}
	a, b := port("a"), port("b")
	for _, err := range []error{
		a.AddVLANs(ctx, PortVLAN{ID: 5, End: 9}), b.AddVLANs(ctx, PortVLAN{ID: 7}, PortVLAN{ID: 20}),
		a.AddFDBEntries(ctx, FDBEntry{MAC: mac(1), VLAN: 7}), b.AddFDBEntries(ctx, FDBEntry{MAC: mac(2), VLAN: 7}, FDBEntry{MAC: mac(3), VLAN: 20}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range [][]FDBEntry{
		{{MAC: mac(1)}}, {{MAC: mac(2)}}, {{MAC: mac(9)}, {MAC: mac(1)}}, {{MAC: mac(9)}, {MAC: mac(1), VLAN: 7}}, {{MAC: mac(9)}, {MAC: mac(9), VLAN: 5}},
	} {
		unchanged(t, os.ErrExist, func(ctx context.Context) error { return a.AddFDBEntries(ctx, list...) }, ns)
	}
	if err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(3)}); err != nil { // its VLAN is none of a
		t.Error(err)
	}
}

// A metric of 0 is the kernel's default again.
func TestReplaceAddrSetsTheMetricBack(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	for _, p := range prefixes("10.0.0.1/24", "fd00::1/64") {
		a := StaticAddr(p)
		a.Metric = 5000
		if err := l.AddAddrs(ctx, a); err != nil {
			t.Fatal(err)
		}
		a.Metric = 0
		if err := l.ReplaceAddrs(ctx, a); err != nil {
			t.Fatal(err)
		}
		family := "-4"
		if p.Addr().Is6() {
			family = "-6"
		}
		var routes []struct{ Metric int }
		testutil.JSON(t, ns, &routes, "ip", "-j", family, "route", "show", "proto", "kernel", p.Masked().String())
		if len(routes) != 1 || routes[0].Metric != 0 && routes[0].Metric != 256 {
			t.Errorf("the routes to %s are %+v", p.Masked(), routes)
		}
	}
}
