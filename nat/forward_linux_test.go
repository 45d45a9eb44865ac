package nat

import (
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestForwardingIsSwitchedLinkByLinkAndBack(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	setSysctl(t, ns, "ipv4/conf/up0p/forwarding", "1") // as the administrator wants it
	gw := open(t, ns)
	before := map[string]string{
		"ipv4/conf/br0/forwarding": "0", "ipv4/conf/br0/route_localnet": "0",
		"ipv4/conf/up0/forwarding": "0", "ipv4/conf/up0p/forwarding": "1",
		"ipv4/conf/lo/forwarding": "0", "ipv4/conf/all/forwarding": "0",
	}
	expect(t, ns, before)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	on := map[string]string{
		"ipv4/conf/br0/forwarding": "1", "ipv4/conf/br0/route_localnet": "1",
		"ipv4/conf/up0/forwarding": "1", "ipv4/conf/up0/route_localnet": "0", "ipv4/conf/up0p/forwarding": "1",
		"ipv4/conf/lo/forwarding": "0", "ipv4/conf/all/forwarding": "0",
		"ipv6/conf/all/forwarding": "0",
	}
	expect(t, ns, on)
	out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4")
	if !strings.Contains(out, `"up0"`) || strings.Contains(out, `"up0p"`) {
		t.Errorf("flipped4: %s", out)
	}

	// The settings stay while there is a network.
	testutil.Run(t, ns, "ip", "link", "add", "br1", "type", "bridge")
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if err := gw.DeleteNetwork(t.Context(), "br1"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, on)
	expect(t, ns, map[string]string{"ipv4/conf/br1/route_localnet": "0"})
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, before)

	// Delete does the same.
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, on)
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, before)
}

// A host that limits what boxes send has an ifb for each, of ever new names.
func TestAnIFBIsNotMadeToForward(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	for _, name := range []string{"ifb1", "ifb2"} {
		testutil.Run(t, ns, "ip", "link", "add", name, "type", "ifb")
		if err := gw.SetNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
			t.Fatal(err)
		}
		expect(t, ns, map[string]string{"ipv4/conf/" + name + "/forwarding": "0", "ipv4/conf/up0/forwarding": "1"})
		testutil.Run(t, ns, "ip", "link", "del", name)
	}
	for _, set := range []string{"flipped4", "flipped6"} {
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set); !strings.Contains(out, `"up0"`) || strings.Contains(out, "ifb") {
			t.Errorf("%s: %s", set, out)
		}
	}
}

// Others may have switched forwarding on for the whole machine since, and rely on it.
func TestAMachineMadeARouterMeanwhileStaysOne(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, ns, "ipv4/ip_forward", "1")
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv4/conf/up0/forwarding": "1", "ipv4/conf/br0/forwarding": "1", "ipv4/conf/br0/route_localnet": "0"})
	if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4"); strings.Contains(out, "up0") {
		t.Errorf("still recorded: %s", out)
	}
}

// A link that its administrator has set apart on a router is no way for strangers, whoever looks, and is set
// back.
func TestALinkSetApartOnARouterStaysClosed(t *testing.T) {
	t.Parallel()
	s := wire(t)
	setSysctl(t, s.host, "ipv4/ip_forward", "1")
	setSysctl(t, s.host, "ipv4/conf/up0/forwarding", "0")
	serve(t, s.other, ":80")
	serve(t, s.outside, ":80")
	s.gw = open(t, s.host)
	if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	for _, look := range []func() error{
		func() error { return nil },
		func() error { return s.gw.AcceptForward(t.Context()) },
		func() error { _, err := s.gw.forwardLinks(t.Context(), []Network{network0()}, false); return err },
		func() error { return s.gw.Sync(t.Context(), State{Networks: []Network{network0()}}) },
	} {
		if err := look(); err != nil {
			t.Fatal(err)
		}
		try(t, attempt{"outside", s.outside, TCP, "10.89.0.2:80", none}, attempt{"beyond", s.beyond, TCP, "10.89.0.2:80", "198.51.100.9"},
			attempt{"box", s.box, TCP, "203.0.113.9:80", "203.0.113.1"})
	}
	if err := s.gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, s.host, map[string]string{"ipv4/ip_forward": "1", "ipv4/conf/up0/forwarding": "0", "ipv4/conf/up1/forwarding": "1"})
}

// A program that makes the machine a router after us wants its neighbours' packets forwarded, too.
func TestAMachineMadeARouterForwardsForItsNeighbours(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, look := range map[string]func(gw *NAT, net Network) error{
		"AcceptForward": func(gw *NAT, _ Network) error { return gw.AcceptForward(t.Context()) },
		"Maintain": func(gw *NAT, net Network) error {
			_, err := gw.forwardLinks(t.Context(), []Network{net}, false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTopology(t)
			net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}
			neighbours := func(want4, want6 string) {
				t.Helper()
				try(t, attempt{"other way", s.outside, TCP, "10.89.0.2:80", want4}, attempt{"other way", s.outside, TCP, "[fd89::2]:80", want6},
					attempt{"host", s.outside, TCP, "203.0.113.1:1", "203.0.113.9"})
			}
			serve(t, s.other, ":80")
			s.waitReady(t)
			if err := look(s.gw, net); err != nil {
				t.Fatal(err)
			}
			neighbours(none, none)
			setSysctl(t, s.host, "ipv4/ip_forward", "1")
			if err := look(s.gw, net); err != nil {
				t.Fatal(err)
			}
			neighbours("203.0.113.9", none)
			setSysctl(t, s.host, "ipv6/conf/all/forwarding", "1")
			if err := look(s.gw, net); err != nil {
				t.Fatal(err)
			}
			after := map[string]string{"ipv4/conf/up0/forwarding": "1"}
			if _, err := os.Stat("/proc/sys/net/ipv6/conf/all/force_forwarding"); err == nil { // without it, the switch may be ours
				neighbours("203.0.113.9", "2001:db8:1::9")
				after["ipv6/conf/up0/forwarding"], after["ipv6/conf/up0/force_forwarding"] = "1", "0"
			}
			if err := s.gw.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			expect(t, s.host, after)
		})
	}
}

func TestANetworkOutlivesItsInterface(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "link", "del", "br0")
	testutil.Run(t, ns, "ip", "link", "del", "up0")
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
}

// What the table says of a link in words that are not ours is replaced by a record.
func TestANoteOfAnotherProgramIsReplaced(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, put := range map[string]func(gw *NAT, net Network) error{
		"SetNetwork": func(gw *NAT, net Network) error { return gw.SetNetwork(t.Context(), net) },
		"Sync":       func(gw *NAT, net Network) error { return gw.Sync(t.Context(), State{Networks: []Network{net}}) },
	} {
		ns := host(t)
		gw := open(t, ns)
		testutil.Run(t, ns, "nft", "add", "element", "inet", "boxwire", "flipped6", `{ "up0" comment "seen" }`)
		if err := put(gw, Network{Interface: "br0", Subnets: prefixes("fd88::/64")}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped6"); strings.Contains(out, "seen") || !strings.Contains(out, `"up0" comment`) {
			t.Errorf("%s: %s", name, out)
		}
		if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		expect(t, ns, map[string]string{"ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/forwarding": "0", "ipv6/conf/up0/accept_ra": "1"})
	}
}

func TestIPv6ForwardingByForceForwarding(t *testing.T) {
	t.Parallel()
	ns := host(t)
	_, err := ns.Sysctl(t.Context(), "net/ipv6/conf/all/force_forwarding")
	testutil.NeedKernel(t, 6, 17, "force_forwarding", err)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("fd88::/64")}); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{
		"ipv6/conf/all/forwarding": "0", "ipv6/conf/br0/force_forwarding": "1", "ipv6/conf/up0/force_forwarding": "1",
		"ipv6/conf/lo/force_forwarding": "0", "ipv6/conf/up0/accept_ra": "1",
		"ipv4/conf/up0/forwarding": "0", // no IPv4 subnet
	})
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv6/conf/br0/force_forwarding": "0", "ipv6/conf/up0/force_forwarding": "0"})
}
