package nat

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// redirect sends an ICMP redirect (RFC 792) or that of neighbour discovery (RFC 4861):
// from via, who is the router for dst so far, that better is the way there. quoted is
// the packet that it is about.
func (e wireEnd) redirect(t *testing.T, to net.HardwareAddr, via, you, dst, better netip.Addr, quoted []byte) {
	t.Helper()
	if via.Is4() {
		body := append([]byte{icmpRedirect, 1, 0, 0}, better.AsSlice()...)
		e.sendFrame(t, to, ipPacket(via, you, unix.IPPROTO_ICMP, 64, append(body, quoted[2:]...), 2))
		return
	}
	body := []byte{icmp6Redirect, 0, 0, 0, 0, 0, 0, 0}
	body = slices.Concat(body, better.AsSlice(), dst.AsSlice())
	body = slices.Concat(body, []byte{2, 1}, e.from) // target link-layer address
	e.sendFrame(t, to, ipPacket(via, you, unix.IPPROTO_ICMPV6, 255, body, 2))
}

// pong is an echo reply, which a redirect may quote without a socket that it is of.
func pong(src, dst netip.Addr) []byte {
	return ipPacket(src, dst, unix.IPPROTO_ICMP, 64, []byte{0, 0, 0, 0, 0, 1, 0, 1}, 2)
}

// nextHop is the router that ns sends to an address by.
func nextHop(t *testing.T, ns *netns.NS, addr string) string {
	t.Helper()
	var routes []struct{ Gateway string }
	testutil.JSON(t, ns, &routes, "ip", "-j", "route", "get", addr)
	return routes[0].Gateway
}

// The host takes nothing of how to route from a box (CVE-2020-10749).
func TestABoxDoesNotRouteTheHost(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		for name, net := range map[string]Network{
			"masqueraded": network0(),
			"internal":    {Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Internal: true},
			"IPv4 only":   {Interface: "br0", Subnets: prefixes("10.88.0.0/16")},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := wire(t)
				bridgeNF(t, s.host, filtered)
				for _, dev := range []string{"all", "br0"} {
					setSysctl(t, s.host, "ipv4/conf/"+dev+"/accept_redirects", "1")
					setSysctl(t, s.host, "ipv6/conf/"+dev+"/accept_redirects", "1")
				}
				// Routes by way of boxes.
				linkLocal := linkLocalOf(t, s.box, "eth0")
				ip(t, s.host, fmt.Sprintf(`
					route add 198.18.0.0/15 via 10.88.0.2
					route add 2001:db8:77::/64 via %s dev br0`, linkLocal))
				s.gw = open(t, s.host)
				if err := s.gw.AddNetwork(t.Context(), net); err != nil {
					t.Fatal(err)
				}
				end, to := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0")
				a := netip.MustParseAddr
				gate6, better6 := linkLocalOf(t, s.host, "br0"), linkLocalOf(t, s.sibling, "eth0")
				// Neighbours to send by, which a redirect asks for.
				testutil.Run(t, s.host, "ip", "neigh", "replace", "10.88.0.3", "lladdr", macOf(t, s.sibling, "eth0").String(), "dev", "br0")
				advertise := func() { end.advertise(t, 9000) }
				redirect4 := func() {
					end.redirect(t, to, a("10.88.0.2"), a("10.88.0.1"), a("198.18.0.9"), a("10.88.0.3"), pong(a("10.88.0.1"), a("198.18.0.9")))
				}
				redirect6 := func() {
					end.redirect(t, to, linkLocal, gate6, a("2001:db8:77::9"), better6, nil)
				}
				const rule4, rule6 = "icmp type redirect", "icmpv6 type"
				took := map[string]func() bool{
					"advertisement": func() bool {
						return strings.Contains(testutil.Run(t, s.host, "ip", "-6", "route", "show", "default", "dev", "br0"), "proto ra")
					},
					"redirect":           func() bool { return nextHop(t, s.host, "198.18.0.9") == "10.88.0.3" },
					"redirect over IPv6": func() bool { return nextHop(t, s.host, "2001:db8:77::9") == better6.String() },
				}
				_, before4 := findRule(t, s.host, "input", rule4)
				_, before6 := findRule(t, s.host, "input", rule6)
				if !until(func() bool {
					advertise()
					redirect4()
					redirect6()
					_, four := findRule(t, s.host, "input", rule4)
					_, six := findRule(t, s.host, "input", rule6)
					return four > before4+1 && six > before6+3
				}) {
					t.Fatal("the table does not stop them")
				}
				for what, done := range took {
					if done() {
						t.Errorf("the host took the %s", what)
					}
				}
				deleteRule(t, s.host, "input", rule4)
				deleteRule(t, s.host, "input", rule6)
				forwards6 := sysctl(t, s.host, "ipv6/conf/br0/forwarding") == "1" // which takes neither by itself
				if !until(func() bool {
					advertise()
					redirect4()
					redirect6()
					return took["redirect"]() && (forwards6 || took["advertisement"]() && took["redirect over IPv6"]())
				}) {
					t.Error("without the rules neither: the test proves nothing")
					for what, done := range took {
						t.Logf("%s: %v", what, done())
					}
				}
			})
		}
	})
}

// Nor does a box of an isolated network from its sibling, where the firewall sees what
// is bridged. The flag of bridge ports stops all that is.
func TestASiblingOfAnIsolatedNetworkDoesNotRouteABox(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	bridgeNF(t, s.host, true)
	isolated := network0()
	isolated.Isolated, isolated.Masquerade = true, false // of what is translated, the kernel itself drops redirects
	s.gw = open(t, s.host)
	if err := s.gw.AddNetwork(t.Context(), isolated); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	for _, dev := range []string{"all", "eth0"} {
		setSysctl(t, s.box, "ipv4/conf/"+dev+"/accept_redirects", "1")
		setSysctl(t, s.box, "ipv6/conf/"+dev+"/accept_redirects", "1")
	}
	gate6, better6, me6 := linkLocalOf(t, s.host, "br0"), linkLocalOf(t, s.sibling, "eth0"), linkLocalOf(t, s.box, "eth0")
	testutil.Run(t, s.box, "ip", "-6", "route", "replace", "default", "via", gate6.String(), "dev", "eth0")
	testutil.Run(t, s.box, "ip", "neigh", "replace", "10.88.0.3", "lladdr", macOf(t, s.sibling, "eth0").String(), "dev", "eth0")
	flow, err := s.box.Dial(t.Context(), "udp", "203.0.113.9:53")
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	mine := flow.LocalAddr().(*net.UDPAddr).AddrPort()

	end, to, a := newWireEnd(t, s.sibling, "eth0"), macOf(t, s.box, "eth0"), netip.MustParseAddr
	attack := func() {
		flow.Write([]byte("x")) // a connection that the redirect quotes
		end.redirect(t, to, a("10.88.0.1"), a("10.88.0.2"), a("203.0.113.9"), a("10.88.0.3"), datagram(mine, ap("203.0.113.9:53"), "x"))
		end.redirect(t, to, gate6, me6, a("2001:db8:1::9"), better6, nil)
		end.advertise(t, 9000)
	}
	took := map[string]func() bool{
		"redirect":           func() bool { return nextHop(t, s.box, "203.0.113.9") == "10.88.0.3" },
		"redirect over IPv6": func() bool { return nextHop(t, s.box, "2001:db8:1::9") == better6.String() },
		"advertisement": func() bool {
			return strings.Contains(testutil.Run(t, s.box, "ip", "-6", "route", "show", "default", "dev", "eth0"), "proto ra")
		},
	}
	const rule = "icmp type redirect"
	_, before := findRule(t, s.host, "errors", rule)
	_, others := findRule(t, s.host, "icc_off", theRest)
	if !until(func() bool {
		attack()
		_, count := findRule(t, s.host, "errors", rule)
		_, rest := findRule(t, s.host, "icc_off", theRest)
		return count > before+1 && rest > others+3
	}) {
		t.Fatal("the table does not stop them")
	}
	for what, done := range took {
		if done() {
			t.Errorf("the box took the %s", what)
		}
	}
	if nets, err := s.gw.ListNetworks(t.Context()); err != nil || nets[0].Drops.InterBox == 0 {
		t.Errorf("%+v, %v", nets, err)
	}
	deleteRule(t, s.host, "errors", rule)
	testutil.Run(t, s.host, "nft", "insert", "rule", "inet", "boxwire", "icc_off", "icmpv6", "type", "{ nd-router-advert, nd-redirect }", "accept")
	if !until(func() bool {
		attack()
		return took["redirect"]() && took["redirect over IPv6"]() && took["advertisement"]()
	}) {
		t.Error("without the rules neither: the test proves nothing")
		for what, done := range took {
			t.Logf("%s: %v", what, done())
		}
	}
}

// linkLocalOf is the link-local address of a link, which a bridge has once a port of it
// is up.
func linkLocalOf(t *testing.T, ns *netns.NS, dev string) (addr netip.Addr) {
	t.Helper()
	if !until(func() bool {
		var links []struct {
			AddrInfo []struct{ Local, Scope string } `json:"addr_info"`
		}
		testutil.JSON(t, ns, &links, "ip", "-6", "-j", "addr", "show", "dev", dev)
		for _, l := range links {
			for _, a := range l.AddrInfo {
				if a.Scope == "link" {
					addr = netip.MustParseAddr(a.Local)
				}
			}
		}
		return addr.IsValid()
	}) {
		t.Fatalf("%s has no link-local address", dev)
	}
	return addr
}
