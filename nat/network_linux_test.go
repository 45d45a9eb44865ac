package nat

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// sysctl reads a setting by way of /proc/sys.
func sysctl(t testing.TB, ns *netns.NS, name string) string {
	t.Helper()
	v, err := netns.Do(context.WithoutCancel(t.Context()), ns, func(context.Context) (string, error) {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		return strings.TrimSpace(string(b)), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func setSysctl(t testing.TB, ns *netns.NS, name, value string) {
	t.Helper()
	_, err := netns.Do(t.Context(), ns, func(context.Context) (any, error) {
		return nil, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// bridgeNF says whether what is bridged in ns passes the IP firewall. The test is
// skipped where the kernel has no br_netfilter to switch on.
func bridgeNF(t testing.TB, ns *netns.NS, on bool) {
	t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		err := ns.SetSysctl(t.Context(), "net/bridge/bridge-nf-call-"+name, map[bool]string{false: "0", true: "1"}[on])
		if on || !errors.Is(err, os.ErrNotExist) {
			testutil.NeedKernel(t, 5, 10, "module br_netfilter", err)
		}
	}
}

// host is a namespace with a bridge br0 and an uplink up0.
func host(t testing.TB) *netns.NS {
	t.Helper()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	return ns
}

func expect(t testing.TB, ns *netns.NS, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got := sysctl(t, ns, name); got != v {
			t.Errorf("%s is %s, want %s", name, got, v)
		}
	}
}

func TestANetworkIsAHandfulOfElements(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	empty := listing(t, ns)
	err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.1/16", "fd88::/64"), Masquerade: true})
	if err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"set ifs": `"br0"`, "set closed": `"br0" counter`, "set localnet": `"br0"`,
		"map pair":  `"br0" . "br0" : accept`,
		"set masq4": `"br0"`, "set masq6": `"br0"`,
		"set same4": `10.88.0.0/16 . "br0"`, "set same6": `fd88::/64 . "br0"`,
		"set flipped4": `"br0"`,
	} {
		kind, name, _ := strings.Cut(set, " ")
		if out := testutil.Run(t, ns, "nft", "list", kind, "inet", "boxwire", name); !strings.Contains(out, want) {
			t.Errorf("%s lacks %s: %s", set, want, out)
		}
	}
	err = gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.99.0.0/16")})
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("the same interface again: %v", err)
	}
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, ns); got != empty {
		t.Errorf("RemoveNetwork left:\n%s", got)
	}
	if err := gw.RemoveNetwork(t.Context(), "br0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second RemoveNetwork: %v", err)
	}
}

func TestAnInterfaceMayComeAfterItsNetwork(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	empty := listing(t, ns)
	net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}
	if err := gw.AddNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	off := map[string]string{"ipv4/conf/br0/forwarding": "0", "ipv4/conf/br0/route_localnet": "0", "ipv4/conf/up0/forwarding": "0"}
	expect(t, ns, off)
	if err := gw.EnsureNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv4/conf/br0/forwarding": "1", "ipv4/conf/br0/route_localnet": "1", "ipv4/conf/up0/forwarding": "1"})
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, off)
	if got := listing(t, ns); got != empty {
		t.Errorf("RemoveNetwork left:\n%s", got)
	}
}

func TestASubnetOfAnotherNetworkIsRefusedByName(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
		t.Fatal(err)
	}
	before := listing(t, ns)
	for _, subnet := range []string{"10.88.3.0/24", "10.0.0.0/8", "10.88.0.0/16", "fd88::/48"} {
		err := gw.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("192.0.2.0/24", subnet)})
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), subnet+" overlaps") || !strings.Contains(err.Error(), "of the network br0") {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	if got := listing(t, ns); got != before {
		t.Errorf("refused calls changed:\n%s", got)
	}
}

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
	if has, _ := netns.Do(t.Context(), ns, func(context.Context) (bool, error) { return hasForce(), nil }); !has {
		t.Skip("the kernel has no force_forwarding (6.17)")
	}
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
