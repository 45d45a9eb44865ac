package nat

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// The services of the host are closed on all addresses of the host.
func TestAPolicedBoxGetsNothingOfTheHost(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, state := newPoliced(t, false, false)
	setSysctl(t, s.host, "ipv4/conf/all/rp_filter", "0")
	setSysctl(t, s.host, "ipv4/conf/box0/rp_filter", "0") // which judges frames to the group of bridges
	end, gate := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0")
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	service := listen(t, s.host, ":7777")
	const me4, me6 = "10.88.0.2", "fd88::2"
	mine, hosts := linkLocal(t, s.box, "eth0"), linkLocal(t, s.host, "br0")
	inLocal := "delete element inet boxwire egress6 { fd88::2 }"
	bridges := net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	const toBridges = "meta pkttype multicast"
	var breaches []breach
	for _, dst := range []string{"10.88.0.1", "203.0.113.1", "198.51.100.1", "10.89.0.1", "fd88::1", "2001:db8:1::1", "fd89::1", hosts, "ff02::1", "10.88.255.255", "255.255.255.255"} {
		a := netip.MustParseAddr(dst)
		b := breach{name: "to a service on " + dst, frames: from(UDP, me4, netip.AddrPortFrom(a, 7777).String()), at: service, open: anyEgress}
		if a.Is6() {
			b.frames = from(UDP, me6, netip.AddrPortFrom(a, 7777).String())
		}
		if a.IsMulticast() || strings.HasSuffix(dst, ".255") {
			b.to = broadcast
		}
		if dst == "ff02::1" {
			b.to = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
		}
		breaches = append(breaches, b)
	}
	breaches = append(breaches,
		breach{name: "from a link-local address", frames: from(UDP, mine, "["+hosts+"]:7777"), at: service, open: []string{"to_host6: @nh,64,128 &", inLocal}},
		breach{name: "from a link-local address to a global one", frames: from(UDP, mine, "[fd88::1]:7777"), at: service, open: []string{"to_host6: @nh,64,128 &", inLocal}},
		breach{name: "from no address to all", to: broadcast, frames: from(UDP, "0.0.0.0", "255.255.255.255:7777"), at: service, open: []string{"to_host4: ip saddr 0.0.0.0"}},
		// IPv4 groups reach IPv4 sockets alone, and Go makes one for an address of a group.
		breach{name: "to the group of all hosts", to: net.HardwareAddr{0x01, 0, 0x5e, 0, 0, 1}, frames: from(UDP, me4, "224.0.0.1:7778"), at: listen(t, s.host, "224.0.0.1:7778"), open: anyEgress},
		breach{name: "to a loopback address", frames: from(UDP, me4, "127.0.0.1:7777"), at: service, stopChain: "guard", stopRule: "ip daddr 127.0.0.0/8",
			open: append([]string{"guard: ip daddr 127.0.0.0/8", "prerouting: ip daddr 127.0.0.0/8"}, anyEgress...)},
		// The port of the bridge receives these itself, and its bridge does not.
		breach{name: "to the group of bridges", to: bridges, frames: from(UDP, "198.51.100.77", "203.0.113.1:7777"), at: service, stopChain: "input", stopRule: toBridges, open: []string{"input: " + toBridges}},
		breach{name: "to the group of bridges over IPv6", to: bridges, frames: from(UDP, "2001:db8:2::77", "[2001:db8:1::1]:7777"), at: service, stopChain: "input", stopRule: toBridges, open: []string{"input: " + toBridges}},
		breach{name: "from the port of DHCP", frames: from(UDP, me4+":68", "10.88.0.1:7777"), at: service, open: anyEgress},
	)
	for i, b := range breaches {
		if !testutil.Spread(i, 4) {
			continue
		}
		b.end = end
		if b.to == nil {
			b.to = gate
		}
		b.expectDenied(t, s.host)
		if err := s.gw.Sync(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
	// What the rules and DHCP allow.
	dns, dhcp := listen(t, s.host, ":53"), listen(t, s.host, ":67")
	for dst, at := range map[string]*receiver{"10.88.0.1:53": dns, "[fd88::1]:53": dns, "10.88.0.1:67": dhcp} {
		src := map[bool]string{false: me4, true: me6}[ap(dst).Addr().Is6()]
		n := uint16(0)
		if !until(func() bool {
			n++
			end.sendFrame(t, gate, from(UDP, src, dst)(n, dst)[0])
			return at.has(dst + ".")
		}) {
			t.Errorf("%s is closed", dst)
		}
	}
}

// linkLocal is the link-local address of a link.
func linkLocal(t *testing.T, ns *netns.NS, dev string) string {
	t.Helper()
	var links []struct {
		AddrInfo []struct{ Local string } `json:"addr_info"`
	}
	addr := ""
	if !until(func() bool {
		testutil.JSON(t, ns, &links, "ip", "-j", "-6", "addr", "show", "dev", dev, "scope", "link")
		for _, l := range links {
			for _, a := range l.AddrInfo {
				addr = a.Local
			}
		}
		return addr != ""
	}) {
		t.Fatalf("%s has no link-local address", dev)
	}
	return addr
}
