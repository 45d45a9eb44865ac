package nat

import (
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// allOptions are networks that have every option between them.
func allOptions() []Network {
	return []Network{
		{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true},
		{
			Interface: "br1", Subnets: prefixes("10.89.0.0/24", "10.90.0.0/30", "fd89::/64", "fd90::1/128"),
			Masquerade: true, SNAT: addrs("203.0.113.7"), Isolated: true, AllowTo: []string{"br0", "br2"}, ClampMSS: true,
			Trusted: prefixes("10.88.0.0/13", "198.51.100.0/24", "fd00::/8"),
		},
		{
			Interface: "br2", Subnets: prefixes("192.0.2.0/24", "2001:db8:2::/64"), Internal: true, AllowTo: []string{"br1"}, MSS: 1200,
			Pinholes: []Pinhole{{Proto: ICMP, Box: ap("192.0.2.2:0"), Owner: "ops"}, {Proto: ICMP, Box: ap("[2001:db8:2::2]:0"), Owner: "ops"}, pinhole("192.0.2.2:80", 0, "web"), pinhole("192.0.2.2:8000", 8010, "web"), pinhole("[2001:db8:2::2]:443", 0, "tls")},
		},
		{Interface: "br3", Subnets: prefixes("10.91.0.0/16", "fd91::/64"), SNAT: addrs("203.0.113.8", "2001:db8::8"), Random: true,
			Trusted:     prefixes("10.91.0.0/24", "10.91.7.0/24", "10.91.200.1/32", "172.16.0.0/12", "fd91:0:0:0:7::/80"),
			VisitorSNAT: addrs("203.0.113.8", "2001:db8::8"),
		},
	}
}

func plain(states []NetworkState) (all []Network) {
	for _, s := range states {
		all = append(all, s.Network)
	}
	return all
}

func TestNetworksAreListedAsTheyWereAdded(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	want := allOptions()
	for _, net := range want {
		if err := gw.AddNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	got, err := gw.ListNetworks(t.Context())
	if err != nil || !reflect.DeepEqual(plain(got), want) {
		t.Fatalf("got  %+v, %v\nwant %+v", got, err, want)
	}
	before := listing(t, ns)
	// Repeated, it changes nothing; turned into each other, networks are the other.
	for _, net := range want {
		if err := gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	if got := listing(t, ns); got != before {
		t.Errorf("SetNetwork changed:\n%s", got)
	}
	for _, net := range want {
		if err := gw.DeleteNetwork(t.Context(), net.Interface); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := gw.ListNetworks(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("after the last DeleteNetwork: %v, %v", got, err)
	}
	for _, net := range append(want, want...) {
		net.Interface, net.AllowTo = "br9", nil
		if err := gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
		if got, err := gw.ListNetworks(t.Context()); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0].Network, net) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, net)
		}
	}
}

func TestRemovingANetworkRemovesTheWaysToIt(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	gw := open(t, netnstest.New(t))
	for _, net := range allOptions() {
		if err := gw.AddNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	if err := gw.DeleteNetwork(t.Context(), "br2"); err != nil {
		t.Fatal(err)
	}
	got, err := gw.ListNetworks(t.Context())
	if err != nil || len(got) != 3 || !slices.Equal(got[1].AllowTo, []string{"br0"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPortsThatAnIsolatedNetworkLeaksThroughAreNamed(t *testing.T) {
	t.Parallel()
	ns := host(t)
	bridgeNF(t, ns, false)
	for _, port := range []string{"box0", "box1"} {
		testutil.Run(t, ns, "ip", "link", "add", port, "type", "veth", "peer", "name", port+"p")
		testutil.Run(t, ns, "ip", "link", "set", port, "master", "br0")
	}
	testutil.Run(t, ns, "ip", "link", "set", "box1", "type", "bridge_slave", "isolated", "on")
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16"), Isolated: true}); err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		got, err := gw.ListNetworks(t.Context())
		if err != nil || len(got) != 1 || !slices.Equal(got[0].LeakyPorts, want) {
			t.Errorf("%+v, %v; want %v", got, err, want)
		}
	}
	check("box0")
	testutil.Run(t, ns, "ip", "link", "set", "box0", "type", "bridge_slave", "isolated", "on")
	check()
	testutil.Run(t, ns, "ip", "link", "set", "box0", "type", "bridge_slave", "isolated", "off")
	bridgeNF(t, ns, true) // IP that is bridged passes the firewall, and the rest does not
	check("box0")
}

func TestMalformedElementsOfNetworksAreErrors(t *testing.T) {
	t.Parallel()
	for _, e := range []nft.Element{
		{}, {Key: make([]byte, 20), KeyEnd: make([]byte, 19)}, {Key: make([]byte, 21), KeyEnd: make([]byte, 21)}, {Key: make([]byte, 3), KeyEnd: make([]byte, 3)},
		{Key: append([]byte{10, 0, 0, 1}, make([]byte, 16)...), KeyEnd: append([]byte{10, 0, 0, 3}, make([]byte, 16)...)},
	} {
		for _, f := range families {
			for _, set := range []string{f.same, f.behind, f.trusted} {
				if got, err := decodeAddrs(item{set, e}); err == nil {
					t.Errorf("decodeAddrs(%s %v): %v", set, e, got)
				}
			}
		}
	}
	for _, e := range []nft.Element{{}, {Key: make([]byte, 12), KeyEnd: make([]byte, 11)}, {Key: make([]byte, 8), KeyEnd: make([]byte, 8)}} {
		for _, f := range families {
			for _, set := range []string{f.route, f.echo} {
				if got, err := decodePinhole(item{set, e}); err == nil {
					t.Errorf("decodePinhole(%s %v): %v", set, e, got)
				}
			}
		}
	}
}

func FuzzNetworksOf(f *testing.F) {
	sets := skeletonSets()
	for i, s := range sets {
		for _, n := range allOptions() {
			for _, it := range n.items() {
				if it.set == s.Name {
					f.Add(byte(i), it.elem.Key, it.elem.KeyEnd, it.elem.Data, it.elem.Comment)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, set byte, key, end, data []byte, comment string) {
		elem := nft.Element{Key: key, KeyEnd: end, Data: data, Comment: comment}
		items := []item{{"ifs", nft.Element{Key: ifname(nameOf(key))}}, {sets[int(set)%len(sets)].Name, elem}}
		all, err := networksOf(items)
		if err != nil {
			return
		}
		for _, n := range all {
			for _, s := range n.Subnets {
				if s != s.Masked() {
					t.Errorf("the subnet %v has host bits", s)
				}
			}
		}
	})
}
