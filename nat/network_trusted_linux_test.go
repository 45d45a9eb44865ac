package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// trusting is the network on br0, which trusts the prefixes.
func trusting(trusted ...string) Network {
	n := network0()
	n.Trusted = prefixes(trusted...)
	return n
}

// The IPv6 prefixes of these tests do not differ in their sixth byte alone: some kernels ignore it. So
// do the names of interfaces (nft_pipapo_avx2_lookup_8b_16, before Linux 6.15 and the stable releases
// 5.10.237, 6.1.135 and 6.12.24).

// newFar is a topology where beyond is another host: its boxes have the addresses 10.88.7.9 and
// fd88::7:0:0:9 in the subnets of br0, and 10.70.0.9 and fd70::9. up1 leads to them, and the box knows.
func newFar(t *testing.T, nets ...Network) topology {
	t.Helper()
	s := wire(t)
	ip(t, s.beyond, "addr add 10.88.7.9/32 dev lo\naddr add 10.70.0.9/32 dev lo\naddr add fd88::7:0:0:9/128 dev lo\naddr add fd70::9/128 dev lo")
	ip(t, s.host, `
		route add 10.88.7.0/24 via 198.51.100.9
		route add 10.70.0.0/16 via 198.51.100.9
		route add fd88::7:0:0:0/80 via 2001:db8:2::9
		route add fd70::/16 via 2001:db8:2::9`)
	for _, ns := range []*netns.NS{s.box, s.sibling} {
		ip(t, ns, "route add 10.88.7.0/24 via 10.88.0.1\nroute add fd88::7:0:0:0/80 via fd88::1")
	}
	s.gw = open(t, s.host)
	for _, n := range nets {
		if err := s.gw.AddNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	s.waitReady(t)
	for _, proto := range []Proto{TCP, UDP} {
		answer(t, s.box, proto)
		answer(t, s.other, proto)
		answer(t, s.outside, proto)
		answer(t, s.beyond, proto)
	}
	return s
}

// as has beyond send from these addresses from now on.
func (s topology) as(t *testing.T, four, six string) {
	t.Helper()
	ip(t, s.beyond, fmt.Sprintf(`
		route replace 198.51.100.1/32 dev wan0 src %[1]s
		route replace default via 198.51.100.1 src %[1]s
		route replace 2001:db8:2::1/128 dev wan0 src %[2]s
		route replace ::/0 via 2001:db8:2::1 src %[2]s`, four, six))
}

// A box reaches what is trusted with its own address, what is trusted reaches the box, and nobody else.
func TestTrustedPrefixesAreNeitherMasqueradedNorClosed(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		masqueraded := trusting("10.70.0.0/16", "fd70::/16")
		fixed := masqueraded
		fixed.Masquerade, fixed.SNAT = false, addrs("203.0.113.1", "2001:db8:1::1")
		s := newFar(t, masqueraded, network1())
		bridgeNF(t, s.host, filtered)
		s.as(t, "10.70.0.9", "fd70::9")
		for _, net := range []Network{masqueraded, fixed} {
			if err := s.gw.SetNetwork(t.Context(), net); err != nil {
				t.Fatal(err)
			}
			for _, proto := range []Proto{TCP, UDP} {
				try(t,
					attempt{"box", s.box, proto, "10.70.0.9:80", "10.88.0.2"}, attempt{"box", s.box, proto, "[fd70::9]:80", "fd88::2"},
					attempt{"box", s.box, proto, "203.0.113.9:80", "203.0.113.1"}, attempt{"box", s.box, proto, "[2001:db8:1::9]:80", "2001:db8:1::1"},
					attempt{"trusted", s.beyond, proto, "10.88.0.2:80", "10.70.0.9"}, attempt{"trusted", s.beyond, proto, "[fd88::2]:80", "fd70::9"},
					attempt{"outside", s.outside, proto, "10.88.0.2:80", none}, attempt{"outside", s.outside, proto, "[fd88::2]:80", none},
					// Another network's boxes are neither trusted nor trust.
					attempt{"trusted", s.beyond, proto, "10.89.0.2:80", none}, attempt{"trusted", s.beyond, proto, "[fd89::2]:80", none},
					attempt{"other", s.other, proto, "10.70.0.9:80", "198.51.100.1"}, attempt{"other", s.other, proto, "[fd70::9]:80", "2001:db8:2::1"},
				)
			}
		}
	})
}

// The longest prefix says whose an address is: one inside a subnet is another host's, and a box that
// claims it sends a false source.
func TestATrustedPrefixInsideASubnet(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newFar(t, trusting("10.88.7.0/24", "fd88::7:0:0:0/80"), network1())
		bridgeNF(t, s.host, filtered)
		s.as(t, "10.88.7.9", "fd88::7:0:0:9")
		for _, proto := range []Proto{TCP, UDP} {
			try(t,
				attempt{"box", s.box, proto, "10.88.7.9:80", "10.88.0.2"}, attempt{"box", s.box, proto, "[fd88::7:0:0:9]:80", "fd88::2"},
				attempt{"trusted", s.beyond, proto, "10.88.0.2:80", "10.88.7.9"}, attempt{"trusted", s.beyond, proto, "[fd88::2]:80", "fd88::7:0:0:9"},
				attempt{"trusted", s.beyond, proto, "10.89.0.2:80", none}, attempt{"trusted", s.beyond, proto, "[fd89::2]:80", none},
				attempt{"box", s.box, proto, "203.0.113.9:80", "203.0.113.1"}, attempt{"box", s.box, proto, "[2001:db8:1::9]:80", "2001:db8:1::1"},
			)
		}
		s.as(t, "198.51.100.9", "2001:db8:2::9") // which are not trusted
		try(t,
			attempt{"outside", s.outside, TCP, "10.88.0.2:80", none}, attempt{"outside", s.outside, TCP, "[fd88::2]:80", none},
			attempt{"beyond", s.beyond, TCP, "10.88.0.2:80", none}, attempt{"beyond", s.beyond, TCP, "[fd88::2]:80", none},
			attempt{"box", s.box, TCP, "10.88.7.9:80", "10.88.0.2"}, attempt{"box", s.box, TCP, "[fd88::7:0:0:9]:80", "fd88::2"},
		)
		// What is elsewhere is no box of this host.
		for _, a := range []string{"10.88.7.9", "fd88::7:0:0:9"} {
			a := netip.MustParseAddr(a)
			if err := s.gw.AddPinholes(t.Context(), Pinhole{Proto: TCP, Box: netip.AddrPortFrom(a, 80), Owner: "web"}); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a pinhole of %v: %v", a, err)
			}
			policy := Policy{Box: []netip.Addr{a}, Owner: "web", Egress: &Rules{}}
			if err := s.gw.SetPolicies(t.Context(), policy); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a policy of %v: %v", a, err)
			}
			state := State{Networks: []Network{trusting("10.88.7.0/24", "fd88::7:0:0:0/80"), network1()}, Policies: []Policy{policy}}
			if err := s.gw.Sync(t.Context(), state); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Sync with a policy of %v: %v", a, err)
			}
		}
	})
}

// A prefix around subnets, such as the pool of all hosts, trusts the rest of it: the boxes of the
// host's other networks are for AllowTo.
func TestATrustedPrefixAroundSubnets(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		net := trusting("10.64.0.0/10", "fd00::/8")
		s := newFar(t, net, network1())
		bridgeNF(t, s.host, filtered)
		s.as(t, "10.70.0.9", "fd70::9")
		for _, proto := range []Proto{TCP, UDP} {
			try(t,
				attempt{"box", s.box, proto, "10.70.0.9:80", "10.88.0.2"}, attempt{"box", s.box, proto, "[fd70::9]:80", "fd88::2"},
				attempt{"trusted", s.beyond, proto, "10.88.0.2:80", "10.70.0.9"}, attempt{"trusted", s.beyond, proto, "[fd88::2]:80", "fd70::9"},
				attempt{"other", s.other, proto, "10.88.0.2:80", none}, attempt{"other", s.other, proto, "[fd88::2]:80", none},
				attempt{"box", s.box, proto, "10.89.0.2:80", none}, attempt{"box", s.box, proto, "[fd89::2]:80", none},
				attempt{"box", s.box, proto, "203.0.113.9:80", "203.0.113.1"}, attempt{"box", s.box, proto, "[2001:db8:1::9]:80", "2001:db8:1::1"},
			)
		}
		other := network1()
		other.AllowTo = []string{"br0"}
		if err := s.gw.SetNetwork(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		try(t, attempt{"other", s.other, TCP, "10.88.0.2:80", "10.89.0.2"}, attempt{"other", s.other, TCP, "[fd88::2]:80", "fd89::2"})
	})
}

// No box forges a trusted source, and no neighbour the source of a box. Each attack fails by one rule,
// and succeeds without it.
func TestNobodyForgesATrustedSource(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, filtered := range []bool{false, true} {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(fmt.Sprintf("br_netfilter %v", filtered), func(t *testing.T) {
			t.Parallel()
			other := network1()
			other.Trusted = prefixes("198.51.100.0/24", "2001:db8:2::/64", "10.64.0.0/10", "fd80::/12")
			s, build := newAttacked(t, trusting("198.51.100.0/24", "2001:db8:2::/64", "10.88.7.0/24", "fd88::7:0:0:0/80"), other)
			bridgeNF(t, s.host, filtered)
			box, gate := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0")
			outside, uplink := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
			// Without the check of sources, the answers of neighbour discovery are taken for forged ones.
			ip(t, s.host, fmt.Sprintf("neigh replace fd89::2 lladdr %v dev br1", macOf(t, s.other, "eth0")))
			service := listen(t, s.host, ":7777")
			atOther, atOutside := listen(t, s.other, ":80"), listen(t, s.outside, ":80")
			const far4, far6, in4, in6, me4, me6 = "198.51.100.9", "2001:db8:2::9", "10.88.7.9", "fd88::7:0:0:9", "10.88.0.2", "fd88::2"
			attacks := []attack{
				{name: "from a box with a trusted source, to the host", src: far4, dst: "10.88.0.1:7777", at: service},
				{name: "from a box with a trusted source, to the host over IPv6", src: far6, dst: "[fd88::1]:7777", at: service},
				{name: "from a box with a source inside its subnet, to the host", src: in4, dst: "10.88.0.1:7777", at: service},
				{name: "from a box with a source inside its subnet, to the host over IPv6", src: in6, dst: "[fd88::1]:7777", at: service},
				{name: "from a box with a source inside its subnet, to the outside", src: in4, dst: "203.0.113.9:80", at: atOutside},
				{name: "from a box with a source inside its subnet, to the outside over IPv6", src: in6, dst: "[2001:db8:1::9]:80", at: atOutside},
				{name: "from a box with a trusted source, to another network", src: far4, dst: "10.89.0.2:80", at: atOther, others: [][2]string{{"to_box", theRest}}},
				{name: "from a box with a trusted source, to another network over IPv6", src: far6, dst: "[fd89::2]:80", at: atOther, others: [][2]string{{"to_box", theRest}}},
				{
					name: "from a box to a network that trusts the prefix around it", src: me4, dst: "10.89.0.2:80", at: atOther, chain: "to_box",
					rule: "iifname != @ifs ip saddr . oifname @trusted4", instead: "ip saddr . oifname @trusted4 accept", stopRule: theRest,
				},
				{
					name: "from a box to a network that trusts the prefix around it, over IPv6", src: me6, dst: "[fd89::2]:80", at: atOther, chain: "to_box",
					rule: "iifname != @ifs ip6 saddr . oifname @trusted6", instead: "ip6 saddr . oifname @trusted6 accept", stopRule: theRest,
				},
				{
					name: "from outside with the source of another box, in a prefix that its network trusts", end: outside, src: "10.88.3.3", dst: "10.89.0.2:80", at: atOther,
					chain: "near", rule: "ip saddr . meta protocol @nets4", stopChain: "untracked", stopRule: "ip saddr . meta protocol @nets4",
				},
			}
			for i, a := range attacks {
				if !testutil.Spread(i, 3) {
					continue
				}
				build(t)
				if a.end.from == nil {
					a.end, a.to = box, gate
				} else {
					a.to = uplink
				}
				if a.rule == "" { // the check of sources
					a.chain, a.rule, a.stopChain, a.stopRule = "guard", ownSources, "strangers", theRest
					if a.src == in4 || a.src == in6 { // they begin as the subnet does
						a.chain = "near"
					}
				}
				if a.stopChain == "" {
					a.stopChain = a.chain
				}
				a.expectBlocked(t, s.host)
			}
		})
	}
}

// Every verb knows trusted prefixes, and a flow that they let begin ends with them.
func TestTrustedPrefixesComeAndGo(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	const around4, around6, inside4, inside6 = "10.64.0.0/10", "fd00::/8", "10.88.7.0/24", "fd88::7:0:0:0/80"
	s := newFar(t, network0(), network1())
	for _, v := range []struct {
		name string
		set  func(Network) error
	}{
		{"SetNetwork", func(n Network) error { return s.gw.SetNetwork(t.Context(), n) }},
		{"Sync", func(n Network) error { return s.gw.Sync(t.Context(), State{Networks: []Network{n, network1()}}) }},
		{"DeleteNetwork and AddNetwork", func(n Network) error {
			return errors.Join(s.gw.DeleteNetwork(t.Context(), "br0"), s.gw.AddNetwork(t.Context(), n))
		}},
	} {
		for _, c := range []struct {
			name          string
			trusted       []string
			around, inner bool
		}{
			{"both families, around", []string{around4, around6}, true, false},
			{"inside instead", []string{inside4, inside6}, false, true},
			{"inside and elsewhere", []string{inside6, "172.16.0.0/12", inside4, "10.70.0.0/16", "fd70::/16"}, true, true},
			{"nothing", nil, false, false},
		} {
			name := v.name + ": " + c.name
			net := network0()
			if c.trusted != nil {
				net.Trusted = prefixes(c.trusted...)
			}
			if err := v.set(net); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			state := State{Networks: []Network{net, network1()}}
			if err := Check(t.Context(), s.host, "", state); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			slices.SortFunc(net.Trusted, comparePrefix)
			if got, err := s.gw.ListNetworks(t.Context()); err != nil || !reflect.DeepEqual(plain(got), []Network{net, network1()}) {
				t.Errorf("%s: listed are %+v, %v", name, got, err)
			}
			if !c.around {
				s.noFlows(t, name, "10.70.0.9", "fd70::9")
			}
			if !c.inner {
				s.noFlows(t, name, "10.88.7.9", "fd88::7:0:0:9")
			}
			want := func(yes bool, addr string) string {
				if yes {
					return addr
				}
				return none
			}
			s.as(t, "10.70.0.9", "fd70::9")
			try(t, attempt{"around", s.beyond, UDP, "10.88.0.2:80", want(c.around, "10.70.0.9")}, attempt{"around", s.beyond, UDP, "[fd88::2]:80", want(c.around, "fd70::9")},
				attempt{"box", s.box, UDP, "203.0.113.9:80", "203.0.113.1"})
			s.as(t, "10.88.7.9", "fd88::7:0:0:9")
			try(t, attempt{"inside", s.beyond, UDP, "10.88.0.2:80", want(c.inner, "10.88.7.9")}, attempt{"inside", s.beyond, UDP, "[fd88::2]:80", want(c.inner, "fd88::7:0:0:9")},
				attempt{"box", s.box, UDP, "203.0.113.9:80", "203.0.113.1"})
		}
	}
}

// noFlows wants that no flow from these addresses to the box goes on.
func (s topology) noFlows(t *testing.T, when string, from ...string) {
	t.Helper()
	flows, err := s.gw.ListFlows(t.Context(), addrs("10.88.0.2", "fd88::2")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if slices.Contains(addrs(from...), f.Original.Src.Addr()) {
			t.Errorf("%s: a flow goes on that could not begin: %v", when, f)
		}
	}
}

// Ten thousand prefixes are as many elements, and no rule more: what a packet passes is the same.
func TestTenThousandTrustedPrefixes(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newFar(t, network0(), network1())
	rules := countRules(t, s.host)
	many := network0()
	for i := range stress(1000, 10000, 10000) {
		a := netip.AddrFrom4([4]byte{byte(20 + i>>15), byte(i >> 7), byte(i << 1), 0}) // with gaps between
		many.Trusted = append(many.Trusted, netip.PrefixFrom(a, 24))
		if i%10 == 0 {
			many.Trusted = append(many.Trusted, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb9, byte(i >> 8), byte(i)}), 48))
		}
	}
	many.Trusted = append(many.Trusted, prefixes("198.51.100.0/24", "2001:db8:2::/64")...)
	slices.SortFunc(many.Trusted, comparePrefix)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"SetNetwork", func() error { return s.gw.SetNetwork(t.Context(), many) }},
		{"SetNetwork again", func() error { return s.gw.SetNetwork(t.Context(), many) }},
		{"SetNetwork without one", func() error {
			many.Trusted = slices.Delete(slices.Clone(many.Trusted), 500, 501)
			return s.gw.SetNetwork(t.Context(), many)
		}},
		{"Sync", func() error { return s.gw.Sync(t.Context(), State{Networks: []Network{many, network1()}}) }},
		{"Check", func() error { return Check(t.Context(), s.host, "", State{Networks: []Network{many}}) }},
		{"SetNetwork of another", func() error { return s.gw.SetNetwork(t.Context(), network1()) }},
		{"ListNetworks", func() error {
			got, err := s.gw.ListNetworks(t.Context())
			if err == nil && !reflect.DeepEqual(plain(got), []Network{many, network1()}) {
				err = errors.New("they are not as they were added")
			}
			return err
		}},
		{"Sync of a table that is rebuilt", func() error {
			testutil.Run(t, s.host, "nft", "add rule inet boxwire strangers counter")
			return s.gw.Sync(t.Context(), State{Networks: []Network{many, network1()}})
		}},
	} {
		began := time.Now()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		t.Logf("%s: %v", step.name, time.Since(began))
	}
	if now := countRules(t, s.host); now != rules {
		t.Errorf("there are %d rules, with no trusted prefix %d", now, rules)
	}
	try(t,
		attempt{"box", s.box, TCP, "198.51.100.9:80", "10.88.0.2"}, attempt{"trusted", s.beyond, TCP, "[fd88::2]:80", "2001:db8:2::9"},
		attempt{"outside", s.outside, TCP, "10.88.0.2:80", none}, attempt{"box", s.box, TCP, "203.0.113.9:80", "203.0.113.1"},
	)
}

// countRules asks nft for the number of rules in the table.
func countRules(t *testing.T, ns *netns.NS) (n int) {
	t.Helper()
	for _, o := range objects(t, ns).(map[string]any)["nftables"].([]any) {
		if _, ok := o.(map[string]any)["rule"]; ok {
			n++
		}
	}
	return n
}

// Version 7 of the skeleton had subnets whole, whatever was trusted inside them, and took any prefix.
func TestOpenDividesTheSubnetsOfAnOlderTable(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for trusted, want := range map[string][]netip.Prefix{
		`10.88.7.0/24 . "br0", 198.51.100.0/24 . "br0"`: prefixes("10.88.7.0/24", "198.51.100.0/24"),
		`10.88.0.0/16 . "br0", 198.51.100.0/24 . "br0"`: prefixes("198.51.100.0/24"), // without effect, as ever
		`10.88.0.0/17 . "br0", 10.88.128.0/17 . "br0"`:  nil,
		`10.64.0.0/10 . "br0"`:                          prefixes("10.64.0.0/10"),
	} {
		ns := host(t)
		gw := open(t, ns)
		if err := gw.Sync(t.Context(), State{Networks: []Network{network0(), network1()}, Ports: []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web")}}); err != nil {
			t.Fatal(err)
		}
		testutil.Run(t, ns, "nft", "add element inet boxwire trusted4 { "+trusted+" }")
		old := strings.NewReplacer(skeletonComment, commentPrefix+" 7", "iifname != @ifs ip", "ip").Replace(listing(t, ns))
		loadText(t, ns, "flush ruleset\n"+old)
		if err := Check(t.Context(), ns, "", State{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v, want an older table", trusted, err)
		}
		gw = open(t, ns)
		net := network0()
		net.Trusted = want
		if got, err := gw.ListNetworks(t.Context()); err != nil || !reflect.DeepEqual(plain(got), []Network{net, network1()}) {
			t.Errorf("%s: listed are %+v, %v", trusted, got, err)
		}
		state := State{Networks: []Network{net, network1()}, Ports: []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web")}}
		if err := Check(t.Context(), ns, "", state); err != nil {
			t.Errorf("%s: %v", trusted, err)
		}
		fresh := host(t)
		if err := open(t, fresh).Sync(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		same(t, trusted, objects(t, ns), objects(t, fresh))
	}
}

// Policies go with the addresses that a network loses: to a trusted prefix, or because its subnets do
// not reach so far any more.
func TestPoliciesGoWithTheAddressesOfANetwork(t *testing.T) {
	t.Parallel()
	at := func(addr string) Policy {
		return Policy{Box: addrs(addr), Owner: "web", Egress: &Rules{}}
	}
	for name, change := range map[string]func(*Network){
		"a trusted prefix inside": func(n *Network) { n.Trusted = prefixes("10.88.7.0/24") },
		"two subnets for one":     func(n *Network) { n.Subnets = prefixes("10.88.0.0/24", "10.88.255.0/24") },
	} {
		gw := open(t, host(t))
		net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}
		if err := gw.AddNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
		if err := gw.SetPolicies(t.Context(), at("10.88.0.2"), at("10.88.7.9"), at("10.88.255.2")); err != nil {
			t.Fatal(err)
		}
		change(&net)
		if err := gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
		var left []string
		all, err := gw.ListPolicies(t.Context())
		for _, p := range all {
			left = append(left, p.Box[0].String())
		}
		if err != nil || !slices.Equal(left, []string{"10.88.0.2", "10.88.255.2"}) {
			t.Errorf("%s: the policies are those of %v, %v", name, left, err)
		}
	}
}
