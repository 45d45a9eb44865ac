package nat

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func pinhole(box string, last uint16, owner string) Pinhole {
	return Pinhole{Proto: TCP, Box: netip.MustParseAddrPort(box), Last: last, Owner: owner}
}

func TestBadNetworksAreRefusedByName(t *testing.T) {
	t.Parallel()
	net := func(change func(*Network)) Network {
		n := Network{Interface: "br0", Subnets: prefixes("10.88.0.1/16", "fd88::/64")}
		change(&n)
		return n
	}
	iface := func(name string) Network { return net(func(n *Network) { n.Interface = name }) }
	subnets := func(list ...string) Network { return net(func(n *Network) { n.Subnets = prefixes(list...) }) }
	snat := func(list ...string) Network { return net(func(n *Network) { n.SNAT = addrs(list...) }) }
	allowTo := func(list ...string) Network { return net(func(n *Network) { n.AllowTo = list }) }
	trusted := func(list ...string) Network { return net(func(n *Network) { n.Trusted = prefixes(list...) }) }
	visitors := func(trusted string, list ...string) Network {
		return net(func(n *Network) { n.Trusted, n.VisitorSNAT = prefixes(trusted), addrs(list...) })
	}
	opens := func(list ...Pinhole) Network { return net(func(n *Network) { n.Pinholes = list }) }
	for _, c := range []struct {
		net  Network
		want string
	}{
		{iface(""), "name is empty"},
		{iface("sixteen-bytes-xx"), "16 bytes"},
		{iface("."), `must not be "."`},
		{iface("a/b"), "'/'"},
		{iface("a b"), "white space"},
		{iface("lo"), "lo is no"},
		{subnets(), "no subnet"},
		{subnets("0.0.0.0/0"), "every address"},
		{subnets("224.0.0.0/4"), "multicast"},
		{subnets("127.0.0.0/8"), "loopback"},
		{subnets("::ffff:10.0.0.0/104"), "IPv6 form"},
		{subnets("10.0.0.0/8", "10.1.0.0/16"), "overlap"},
		{subnets("10.0.0.1/8", "10.0.0.2/8"), "overlap"},
		{net(func(n *Network) { n.Subnets = []netip.Prefix{{}} }), "subnet 0 is not a valid prefix"},
		{net(func(n *Network) { n.SNAT = []netip.Addr{{}} }), "SNAT address 0 is missing"},
		{snat("::ffff:1.2.3.4"), "IPv6 form"},
		{snat("fe80::1%eth0"), "zone"},
		{snat("0.0.0.0"), "unspecified"},
		{snat("127.0.0.1"), "loopback"},
		{snat("1.2.3.4", "1.2.3.5"), "1.2.3.4 and 1.2.3.5 are of one family"},
		{net(func(n *Network) { n.Subnets, n.SNAT = prefixes("10.0.0.0/8"), addrs("2001:db8::1") }), "no subnet of"},
		{net(func(n *Network) { n.MSS = 87 }), "MSS is 87, 88 is the least"},
		{net(func(n *Network) { n.MSS, n.ClampMSS = 1200, true }), "both ClampMSS and an MSS of 1200"},
		{net(func(n *Network) { n.Random = true }), "neither Masquerade nor SNAT"},
		{opens(Pinhole{Proto: ICMP, Box: netip.MustParseAddrPort("10.88.0.2:1"), Owner: "ops"}), "ICMP has no ports"},
		{opens(Pinhole{Proto: ICMP, Box: netip.MustParseAddrPort("10.99.0.2:0"), Owner: "ops"}), "outside"},
		{opens(Pinhole{Proto: ICMP, Box: netip.MustParseAddrPort("0.0.0.0:0"), Owner: "ops"}), "unspecified"},
		{trusted("10.88.0.0/16"), "the trusted prefix 10.88.0.0/16 is a subnet of the network"},
		{trusted("fd88::/65", "fd88:0:0:0:8000::/65"), "leave no address of the subnet fd88::/64"},
		{trusted("172.16.0.0/12", "172.17.0.0/16"), "the trusted prefix 172.17.0.0/16 overlaps 172.16.0.0/12"},
		{trusted("224.0.0.0/4"), "the trusted prefix 224.0.0.0/4 is multicast"},
		{trusted("::ffff:10.0.0.0/104"), "IPv6 form"},
		{net(func(n *Network) { n.Trusted = []netip.Prefix{{}} }), "trusted prefix 0 is not a valid prefix"},
		{net(func(n *Network) { n.Subnets, n.Trusted = prefixes("10.88.0.0/16"), prefixes("fd88::/64") }), "fd88::/64 is of a family that the network has no subnet of"},
		{net(func(n *Network) {
			n.Trusted, n.Pinholes = prefixes("10.88.7.0/24"), []Pinhole{pinhole("10.88.7.9:80", 0, "web")}
		}), "10.88.7.9:80 is outside"},
		{visitors("10.64.0.0/10", "203.0.113.1", "203.0.113.2"), "VisitorSNAT addresses 203.0.113.1 and 203.0.113.2 are of one family"},
		{visitors("10.64.0.0/10", "2001:db8::1"), "the VisitorSNAT address 2001:db8::1 is of a family that the network has no trusted prefix of"},
		{visitors("10.64.0.0/10", "127.0.0.1"), "the VisitorSNAT address 127.0.0.1 is unspecified"},
		{net(func(n *Network) { n.VisitorSNAT = addrs("203.0.113.1") }), "no trusted prefix of"},
		{allowTo("br 1"), "white space"},
		{allowTo("br0"), "the network itself"},
		{allowTo("br1", "br1"), "br1 twice"},
		{opens(Pinhole{Box: netip.MustParseAddrPort("10.88.0.2:80"), Owner: "web"}), "protocol"},
		{opens(pinhole("10.88.0.2:0", 0, "web")), "box port is 0"},
		{opens(pinhole("10.88.0.2:80", 79, "web")), "last port 79 is below the first, 80"},
		{opens(pinhole("10.88.0.2:80", 0, "")), "owner is empty"},
		{opens(pinhole("10.99.0.2:80", 0, "web")), "10.99.0.2:80 is outside"},
		{opens(pinhole("10.88.0.2:80", 90, "web"), pinhole("10.88.0.2:90", 0, "web")), "tcp 10.88.0.2:80-90, which it overlaps"},
	} {
		_, err := c.net.checked()
		if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want os.ErrInvalid with %q", c.net, err, c.want)
		}
	}
	got, err := net(func(*Network) {}).checked()
	if err != nil || got.Subnets[0] != netip.MustParsePrefix("10.88.0.0/16") {
		t.Errorf("host bits: %v, %v", got, err)
	}
}

func TestNetworksSideBySide(t *testing.T) {
	t.Parallel()
	a := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}
	b := Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "10.88.3.0/24")}
	if _, at, err := checkNetworks([]Network{a, b}); !errors.Is(err, os.ErrInvalid) || at.Interface != "br1" ||
		!strings.Contains(err.Error(), "10.88.3.0/24 overlaps 10.88.0.0/16 of the network br0") {
		t.Error(at, err)
	}
	if _, _, err := checkNetworks([]Network{a, a}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "interface br0") {
		t.Error(err)
	}
	b.Subnets = b.Subnets[:1]
	if all, _, err := checkNetworks([]Network{a, b}); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
}

func TestLastAddr(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"10.88.0.0/16": "10.88.255.255", "10.0.0.4/30": "10.0.0.7", "10.0.0.1/32": "10.0.0.1",
		"fd88::/64": "fd88::ffff:ffff:ffff:ffff", "fd88::/127": "fd88::1",
	} {
		if got := lastAddr(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
