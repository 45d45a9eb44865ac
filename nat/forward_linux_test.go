package nat

import (
	"context"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

func TestForwardingIsSwitchedLinkByLinkAndBack(t *testing.T) {
	t.Parallel()
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
	flipped := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4")
	if !strings.Contains(flipped, `"up0"`) || strings.Contains(flipped, `"up0p"`) {
		t.Errorf("flipped4: %s", flipped)
	}

	// The settings stay while there is a network.
	testutil.Run(t, ns, "ip", "link", "add", "br1", "type", "bridge")
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if err := gw.RemoveNetwork(t.Context(), "br1"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, on)
	expect(t, ns, map[string]string{"ipv4/conf/br1/route_localnet": "0"})
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
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
	ns := host(t)
	gw := open(t, ns)
	for _, name := range []string{"ifb1", "ifb2"} {
		testutil.Run(t, ns, "ip", "link", "add", name, "type", "ifb")
		if err := gw.EnsureNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
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
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv4/conf/up0/forwarding": "1", "ipv4/conf/br0/forwarding": "1", "ipv4/conf/br0/route_localnet": "0"})
	if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4"); strings.Contains(out, "up0") {
		t.Errorf("still recorded: %s", out)
	}
}

func TestANetworkOutlivesItsInterface(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "link", "del", "br0")
	testutil.Run(t, ns, "ip", "link", "del", "up0")
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Error(err)
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
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv6/conf/br0/force_forwarding": "0", "ipv6/conf/up0/force_forwarding": "0"})
}

// The way of kernels before 6.17 works on all of them.
func TestIPv6ForwardingByTheGlobalSwitchKeepsRouterAdvertisements(t *testing.T) {
	t.Parallel()
	ns := host(t)
	setSysctl(t, ns, "ipv6/conf/up0p/forwarding", "1")
	links, err := readLinks(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	p, err := netns.Do(t.Context(), ns, func(context.Context) (plan6, error) {
		return makePlan6(links, map[string]Network{"br0": {}}, nil, false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeAll(t.Context(), ns, p.writes); err != nil {
		t.Fatal(err)
	}
	on := map[string]string{
		"ipv6/conf/all/forwarding": "1", "ipv6/conf/up0/forwarding": "1",
		"ipv6/conf/up0/accept_ra": "2", "ipv6/conf/br0/accept_ra": "1", "ipv6/conf/up0p/accept_ra": "1",
	}
	expect(t, ns, on)
	if err := writeAll(t.Context(), ns, restore6(p.record)); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{
		"ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/forwarding": "0", "ipv6/conf/up0p/forwarding": "1",
		"ipv6/conf/up0/accept_ra": "1", "ipv6/conf/br0/accept_ra": "1",
	})
	if err := writeAll(t.Context(), ns, reapply6(p.record)); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, on)
}

// Without force_forwarding, a link that comes after the global switch forwards at
// once, and takes no router advertisements.
func TestALateLinkIsNoWayForStrangersEither(t *testing.T) {
	t.Parallel()
	ns := host(t)
	links, err := readLinks(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]Network{"br0": {}}
	makePlan := func(links []linkConf, known map[string]bool) plan6 {
		t.Helper()
		p, err := netns.Do(t.Context(), ns, func(context.Context) (plan6, error) { return makePlan6(links, own, known, false) })
		if err != nil {
			t.Fatal(err)
		}
		if err := writeAll(t.Context(), ns, p.writes); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := makePlan(links, nil)
	known := names(first.record)
	if again := makePlan(links, known); again.record != nil || again.writes != nil {
		t.Errorf("again: %+v", again)
	}
	testutil.Run(t, ns, "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late0p")
	expect(t, ns, map[string]string{"ipv6/conf/late0/forwarding": "1", "ipv6/conf/late0/accept_ra": "1"})
	if links, err = readLinks(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	late := makePlan(links, known)
	if got := names(late.record); len(got) != 2 || !got["late0"] || !got["late0p"] {
		t.Errorf("recorded: %v", got)
	}
	expect(t, ns, map[string]string{"ipv6/conf/late0/accept_ra": "2"})
	if err := writeAll(t.Context(), ns, restore6(append(first.record, late.record...))); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv6/conf/all/forwarding": "0", "ipv6/conf/late0/forwarding": "0", "ipv6/conf/late0/accept_ra": "1"})
}
