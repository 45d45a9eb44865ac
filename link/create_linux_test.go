package link

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestCreateBridge(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x10}
	l := mustCreate(t, ns, Spec{
		Name: "boxwire0", MTU: 1400, MAC: mac, Index: 77, Up: true, Kind: Bridge{},
		Addrs: prefixes("10.88.0.1/16", "fd88::1/64", "10.89.0.1/31", "10.90.0.1/32"),
	})
	if l.Index != 77 || l.Name != "boxwire0" || l.Kind != "bridge" || l.MTU != 1400 || l.MAC.String() != mac.String() || !l.Up || l.NS() != ns || l.LinkNSID != -1 {
		t.Errorf("Create returned %+v", l)
	}
	w := ipLinks(t, ns)["boxwire0"]
	if w.Index != 77 || w.Info.Kind != "bridge" || w.MTU != 1400 || w.MAC != mac.String() || !w.up() {
		t.Errorf("ip shows %+v", w)
	}
	if got, want := w.addrs(), prefixes("10.88.0.1/16", "10.89.0.1/31", "10.90.0.1/32", "fd88::1/64"); !reflect.DeepEqual(got, want) {
		t.Errorf("ip shows the addresses %v, want %v", got, want)
	}
	brd := map[string]string{}
	for _, a := range w.Addrs {
		brd[a.Local] = a.Broadcast
		if a.Local == "fd88::1" && (a.Tentative || !a.NoDAD) {
			t.Errorf("the IPv6 address is not usable at once: %+v", a)
		}
	}
	if brd["10.88.0.1"] != "10.88.255.255" || brd["10.89.0.1"] != "" || brd["10.90.0.1"] != "" {
		t.Errorf("broadcast addresses: %v", brd)
	}
}

func TestCreateVethWithPeerInAnotherNamespace(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	pbr := mustCreate(t, web, Spec{Name: "inner0", Kind: Bridge{}})
	l := mustCreate(t, host, Spec{
		Name: "web0", Index: 500, MTU: 1400, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Master: br.Ref(), Up: true,
		Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64"),
		Kind: Veth{Peer: Spec{
			NS: web, Name: "eth0", Index: 500, MTU: 1300, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Master: pbr.Ref(), Up: true,
			Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64"),
		}},
	})
	if l.Index != 500 || l.PeerIndex != 500 || l.LinkNSID < 0 || l.Master != br.Index || l.MTU != 1400 || l.Kind != "veth" || l.ParentIndex != 0 {
		t.Errorf("Create returned %+v", l)
	}
	outer, inner := ipLinks(t, host)["web0"], ipLinks(t, web)["eth0"]
	for _, c := range []struct {
		w      ipLink
		mtu    int
		mac    string
		master string
		addrs  []netip.Prefix
	}{
		{outer, 1400, "02:00:00:00:00:01", "br0", prefixes("192.0.2.1/24", "2001:db8::1/64")},
		{inner, 1300, "02:00:00:00:00:02", "inner0", prefixes("192.0.2.2/24", "2001:db8::2/64")},
	} {
		if c.w.Index != 500 || c.w.MTU != c.mtu || c.w.MAC != c.mac || c.w.Master != c.master || !c.w.up() || c.w.Info.Kind != "veth" {
			t.Errorf("ip shows %+v, want %+v", c.w, c)
		}
		if !reflect.DeepEqual(c.w.addrs(), c.addrs) {
			t.Errorf("ip shows the addresses %v, want %v", c.w.addrs(), c.addrs)
		}
		for _, a := range c.w.Addrs {
			if a.Scope == "global" && a.Tentative {
				t.Errorf("address %s is tentative", a.Local)
			}
		}
	}
}

func TestCreateVethDefaultsLeaveBothEndsDown(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	mustCreate(t, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}})
	for name, w := range map[string]ipLink{"a": ipLinks(t, host)["a"], "b": ipLinks(t, web)["b"]} {
		if w.Index == 0 || w.up() || w.MTU != 1500 || len(w.Addrs) != 0 {
			t.Errorf("end %s: ip shows %+v", name, w)
		}
	}
}

func TestCreateVethWithBothEndsHere(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for i, peerNS := range []*netns.NS{nil, ns} {
		names := [][2]string{{"a0", "b0"}, {"a1", "b1"}}[i]
		l := mustCreate(t, ns, Spec{
			Name: names[0], Up: true, NS: ns,
			Kind: Veth{Peer: Spec{NS: peerNS, Name: names[1], Up: true, Addrs: prefixes("10.0.0.1/24")}},
		})
		w := ipLinks(t, ns)
		if b := w[names[1]]; b.Index != l.PeerIndex || !b.up() || len(b.addrs()) != 1 || l.LinkNSID != -1 {
			t.Errorf("peer: ip shows %+v, Create returned %+v", b, l)
		}
	}
}

func TestCreateWithDADLeavesAddressTentative(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	// A bridge without ports has no carrier, so that detection cannot finish.
	l := mustCreate(t, ns, Spec{Name: "br0", Up: true, DAD: true, Kind: Bridge{}, Addrs: prefixes("fd88::1/64")})
	addrs, err := l.Addrs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(addrs, func(a Addr) bool { return a.Prefix == prefixes("fd88::1/64")[0] })
	if i < 0 || !addrs[i].Tentative() || addrs[i].Flags&AddrNoDAD != 0 {
		t.Errorf("addresses: %+v", addrs)
	}
}

func TestCreateKeepsSpecOfCaller(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	spec := Spec{Name: "a", Up: true, Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true, Addrs: prefixes("10.0.0.1/24")}}, Addrs: prefixes("10.0.0.2/24")}
	before := spec
	l := mustCreate(t, host, spec)
	if !reflect.DeepEqual(spec, before) {
		t.Errorf("Create changed the spec: %+v", spec)
	}
	if err := l.Delete(context.Background()); err != nil {
		t.Fatal(err)
	}
	onlyLo(t, host, web)
	mustCreate(t, host, spec)
}

// What Create returns is what Get says afterwards, but for the carrier that came
// up meanwhile; a master may have changed the new port.
func TestCreateReturnsTheLinkAsItIs(t *testing.T) {
	t.Parallel()
	for name, master := range map[string]Kind{
		"no master": nil,
		"bridge":    Bridge{},
		"bond":      Bond{Mode: new(BondActiveBackup)},
		"vrf":       VRF{Table: 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, box := netnstest.New(t), netnstest.New(t)
			index := 0
			if master != nil {
				m, err := Create(t.Context(), ns, Spec{Name: "m0", MTU: 1300, Up: true, Kind: master})
				testutil.NeedKernel(t, 5, 4, name, err)
				index = m.Index
			}
			for i, s := range []Spec{
				{Name: "pair", Up: true, Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true}}},
				{Name: "mtu", MTU: 1400, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, Up: true, Group: 4, Kind: Veth{Peer: Spec{NS: box, Name: "eth1", Up: true}}},
				{Name: "here", Index: 600, Kind: Veth{Peer: Spec{Name: "other"}}},
				{Name: "later", Alias: "a", IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}, Up: true, Kind: Veth{Peer: Spec{NS: box, Name: "eth2", Up: true}}},
			} {
				s.Master.Index = index
				made := mustCreate(t, ns, s)
				l, err := Get(t.Context(), ns, s.Name)
				if err != nil {
					t.Fatal(err)
				}
				made.Running, made.OperState = l.Running, l.OperState
				if !reflect.DeepEqual(made, l) {
					t.Errorf("%d: Create returned\n%+v, Get\n%+v", i, made, l)
				}
			}
		})
	}
}
