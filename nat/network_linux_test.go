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
	netnstest.NeedIPv6(t)
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
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, ns); got != empty {
		t.Errorf("DeleteNetwork left:\n%s", got)
	}
	if err := gw.DeleteNetwork(t.Context(), "br0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second DeleteNetwork: %v", err)
	}
}

func TestAnInterfaceMayComeAfterItsNetwork(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
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
	if err := gw.SetNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, map[string]string{"ipv4/conf/br0/forwarding": "1", "ipv4/conf/br0/route_localnet": "1", "ipv4/conf/up0/forwarding": "1"})
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	expect(t, ns, off)
	if got := listing(t, ns); got != empty {
		t.Errorf("DeleteNetwork left:\n%s", got)
	}
}

func TestASubnetOfAnotherNetworkIsRefusedByName(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
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

func TestSyncRefusesASubnetOfANetworkThatStays(t *testing.T) {
	t.Parallel()
	gw := open(t, netnstest.New(t))
	if err := gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	taken := network0()
	taken.Interface = "br1"
	partly := State{Networks: []Network{taken}, Owners: func(string) bool { return false }}
	if err := gw.Sync(t.Context(), partly); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "10.88.0.0/16 of the network br0") {
		t.Error(err)
	}
	if err := gw.Sync(t.Context(), State{Networks: []Network{taken}}); err != nil { // br0 goes
		t.Error(err)
	}
}

// Deleting by owner or by network removes nothing of another one.
func TestRemovingANetworkLeavesWhatIsOfOthers(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	// One box on two networks, under one owner: what is deleted of one is not of the other.
	one, two := network0(), network1()
	one.Pinholes = []Pinhole{pinhole("10.88.0.2:80", 0, "web")}
	if err := gw.AddNetwork(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, ns)
	two.AllowTo = []string{"br0"}
	two.Pinholes = []Pinhole{pinhole("10.89.0.2:80", 0, "web")}
	if err := gw.AddNetwork(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	p := tcp("0.0.0.0:8081", "10.89.0.2:80", "web")
	if err := gw.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := gw.Unpublish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := gw.DeleteNetwork(t.Context(), "br1"); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, ns); got != before {
		t.Errorf("the first network is not what it was:\n%s\nbefore:\n%s", got, before)
	}
}
