package nat

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Programs with a table each share the host's links: those of one keep their way out when the networks of
// the other go, and the last one sets the links back.
func TestNetworksOfAnotherTableKeepTheHostForwarding(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, leave := range map[string]func(gw *NAT) error{
		"Delete":        func(gw *NAT) error { return gw.Delete(t.Context()) },
		"DeleteNetwork": func(gw *NAT) error { return gw.DeleteNetwork(t.Context(), "br0") },
		"Sync":          func(gw *NAT) error { return gw.Sync(t.Context(), State{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := host(t)
			testutil.Run(t, ns, "ip", "link", "add", "br1", "type", "bridge")
			before := map[string]string{
				"ipv4/conf/up0/forwarding": "0", "ipv4/conf/br0/forwarding": "0", "ipv4/conf/br1/forwarding": "0",
				"ipv4/conf/br0/route_localnet": "0", "ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/accept_ra": "1",
			}
			expect(t, ns, before)
			first, second := open(t, ns), openWith(t, ns, Options{Name: "second"})
			if err := first.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}); err != nil {
				t.Fatal(err)
			}
			if err := second.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64")}); err != nil {
				t.Fatal(err)
			}
			with := forwards(t, ns)
			if err := leave(first); err != nil {
				t.Fatal(err)
			}
			if is := forwards(t, ns); is != with {
				t.Errorf("the links forward as %s, and as %s when the first table's network has gone", with, is)
			}
			expect(t, ns, map[string]string{"ipv4/conf/up0/forwarding": "1", "ipv4/conf/br0/route_localnet": "0"})
			if err := second.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			expect(t, ns, before)
		})
	}
}

// A table drops what strangers send by links that it has made to forward. The boxes of another table are
// none, whichever program has made the link of their bridge forward; without a network there, they are again.
func TestBoxesOfAnotherTableGetOut(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, add := range map[string]func(gw *NAT) error{
		"AddNetwork": func(gw *NAT) error { return gw.AddNetwork(t.Context(), network1()) },
		"Sync":       func(gw *NAT) error { return gw.Sync(t.Context(), State{Networks: []Network{network1()}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := wire(t)
			before := forwards(t, s.host)
			s.gw = open(t, s.host)
			if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
				t.Fatal(err)
			}
			serve(t, s.outside, ":80")
			s.waitReady(t)
			second := openWith(t, s.host, Options{Name: "second"})
			ways := func(first, other bool) {
				t.Helper()
				var all []attempt
				for to, from := range map[string]string{"203.0.113.9:80": "203.0.113.1", "[2001:db8:1::9]:80": "2001:db8:1::1"} {
					for box, may := range map[*netns.NS]bool{s.box: first, s.other: other} {
						a := attempt{"box", box, TCP, to, from}
						if !may {
							a.want = none
						}
						all = append(all, a)
					}
				}
				try(t, all...)
			}
			records := func(table string) string {
				return testutil.Run(t, s.host, "nft", "list", "set", "inet", table, "flipped4") + testutil.Run(t, s.host, "nft", "list", "set", "inet", table, "flipped6")
			}
			ways(true, false)
			if err := add(second); err != nil {
				t.Fatal(err)
			}
			ways(true, true)
			if one, two := records("boxwire"), records("second"); strings.Contains(one, "br1") || !strings.Contains(two, "br1") || strings.Contains(two, "up0") {
				t.Errorf("the records are\n%s\n%s", one, two)
			}
			// Neither takes the other for a program that has made the host a router, nor makes the link forward again.
			for _, gw := range []*NAT{s.gw, second} {
				if err := gw.AcceptForward(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.gw.forwardLinks(t.Context(), []Network{network0()}, false); err != nil {
				t.Fatal(err)
			}
			ways(true, true)
			if err := second.DeleteNetwork(t.Context(), "br1"); err != nil {
				t.Fatal(err)
			}
			ways(true, false)
			if err := add(second); err != nil {
				t.Fatal(err)
			}
			if err := s.gw.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			ways(false, true)
			if err := second.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			if is := forwards(t, s.host); is != before {
				t.Errorf("the links forward as %s, and as %s in the end", before, is)
			}
		})
	}
}

// forwards are the settings by which the host's links forward.
func forwards(t testing.TB, ns *netns.NS) string {
	t.Helper()
	var all []string
	for _, link := range []string{"br0", "br1", "up0"} {
		all = append(all, link, sysctl(t, ns, "ipv4/conf/"+link+"/forwarding"), sysctl(t, ns, "ipv6/conf/"+link+"/forwarding"), sysctl(t, ns, "ipv6/conf/"+link+"/accept_ra"))
		if force, err := ns.Sysctl(t.Context(), "net/ipv6/conf/"+link+"/force_forwarding"); err == nil { // Linux >= 6.17
			all = append(all, force)
		}
	}
	return strings.Join(append(all, sysctl(t, ns, "ipv6/conf/all/forwarding")), " ")
}

// The bridge of one program's network may be there before another one's network comes, which makes all the
// links forward: it is no link of strangers, and its boxes get out.
func TestBoxesOfABridgeThatWasThereFirstGetOut(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, add := range map[string]func(gw *NAT, n Network) error{
		"AddNetwork": func(gw *NAT, n Network) error { return gw.AddNetwork(t.Context(), n) },
		"Sync":       func(gw *NAT, n Network) error { return gw.Sync(t.Context(), State{Networks: []Network{n}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := wire(t)
			before := forwards(t, s.host)
			serve(t, s.outside, ":80")
			first, second := open(t, s.host), openWith(t, s.host, Options{Name: "second"})
			getOut := func(when string) {
				t.Helper()
				for _, at := range []string{"203.0.113.9:80", "[2001:db8:1::9]:80"} {
					if _, err := ask(t, s.other, at); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
			}
			if err := add(first, network0()); err != nil {
				t.Fatal(err)
			}
			if err := add(second, network1()); err != nil {
				t.Fatal(err)
			}
			getOut("with both")
			// The links are planned for again, as Maintain does.
			if _, err := first.forwardLinks(t.Context(), []Network{network0()}, false); err != nil {
				t.Fatal(err)
			}
			if err := first.SetNetwork(t.Context(), network0()); err != nil {
				t.Fatal(err)
			}
			getOut("when the first has planned again")
			if err := first.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			getOut("when the first has gone")
			if err := second.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			if after := forwards(t, s.host); after != before {
				t.Errorf("the links forwarded as %s, and do as %s", before, after)
			}
			first, second = open(t, s.host), openWith(t, s.host, Options{Name: "second"})
			// Nor is a link opened to strangers when its network goes and the other's stays.
			if err := add(first, network0()); err != nil {
				t.Fatal(err)
			}
			if err := add(second, network1()); err != nil {
				t.Fatal(err)
			}
			if err := second.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			atOutside := listen(t, s.outside, "203.0.113.9:9")
			stranger, ours := newWireEnd(t, s.other, "eth0"), newWireEnd(t, s.box, "eth0")
			stranger.send(t, macOf(t, s.host, "br1"), ap("10.89.0.2:9"), ap("203.0.113.9:9"), "stranger")
			if !until(func() bool {
				ours.send(t, macOf(t, s.host, "br0"), ap("10.88.0.2:9"), ap("203.0.113.9:9"), "ours")
				return atOutside.has("ours")
			}) {
				t.Error("the first's boxes do not get out")
			}
			if atOutside.has("stranger") {
				t.Error("a link whose network has gone lets strangers through")
			}
		})
	}
}

// A bridge that comes after the first program's network, and stays when the second's is gone, is no way for
// strangers either. Before Linux 6.17 it forwards IPv6 from the start.
func TestABridgeThatAnotherTableLeavesIsNoWayForStrangers(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	first, second := open(t, s.host), openWith(t, s.host, Options{Name: "second"})
	if err := first.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	ip(t, s.host, `
		link del br1
		link add br2 type bridge
		link set oth0 master br2
		link set br2 up
		addr add 10.89.0.1/16 dev br2
		addr add fd89::1/64 dev br2 nodad`)
	net := network1()
	net.Interface = "br2"
	if err := second.AddNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	ip(t, s.other, "route replace default via 10.89.0.1\nroute replace ::/0 via fd89::1")
	s.waitReady(t)
	if err := second.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	stranger, ours := newWireEnd(t, s.other, "eth0"), newWireEnd(t, s.box, "eth0")
	for _, at := range []struct{ stranger, ours, outside string }{
		{"10.89.0.2:9", "10.88.0.2:9", "203.0.113.9:9"}, {"[fd89::2]:9", "[fd88::2]:9", "[2001:db8:1::9]:9"},
	} {
		outside := listen(t, s.outside, at.outside)
		if !until(func() bool {
			stranger.send(t, macOf(t, s.host, "br2"), ap(at.stranger), ap(at.outside), "stranger")
			ours.send(t, macOf(t, s.host, "br0"), ap(at.ours), ap(at.outside), "ours")
			return outside.has("ours")
		}) {
			t.Errorf("the first's boxes do not reach %s", at.outside)
		}
		if outside.has("stranger") {
			t.Errorf("a bridge whose network has gone lets strangers through to %s", at.outside)
		}
	}
}
