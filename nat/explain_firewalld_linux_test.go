package nat

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// firewalldRules is what firewalld 1.3 makes of a default zone, as far as forwarded packets and
// those to the host meet it.
const firewalldRules = `table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		goto filter_IN_public
	}
	chain filter_IN_public {
		tcp dport 22 accept
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		goto filter_FWD_public
	}
	chain filter_FWD_public {
		reject with icmpx admin-prohibited
	}
}`

// What firewalld drops is said with its command, and firewalld's panic mode with the one that ends it.
func TestExplainNamesFirewalld(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	testutil.Run(t, d.host, "nft", firewalldRules)
	for _, box := range []string{"10.88.0.2", "fd88::2"} {
		causes, kinds := d.kinds(t, box)
		if !slices.Equal(kinds, []CauseKind{CauseForeignDrop}) || !causes[0].Certain || !strings.Contains(causes[0].Text, "filter_FWD_public") ||
			!strings.Contains(causes[0].Text, "`firewall-cmd --permanent --zone=trusted --add-interface=br0`") {
			t.Errorf("the way out of %s: %v", box, causes)
		}
	}
	try(t, attempt{"box, out", d.box, TCP, "203.0.113.9:80", none}, attempt{"outside, published", d.outside, TCP, "203.0.113.1:8080", "203.0.113.9"})

	port := Port{Proto: TCP, Host: netip.MustParseAddrPort("203.0.113.1:8080")}
	hints := Hints{From: netip.MustParseAddr("203.0.113.9")}
	if causes, err := d.gw.Explain(t.Context(), port, hints); err != nil || len(causes) != 0 {
		t.Errorf("the published port: %v, %v", causes, err)
	}
	testutil.Run(t, d.host, "nft", "table inet firewalld_policy_drop { chain raw_prerouting { type filter hook prerouting priority raw + 9; policy drop; }; }")
	causes, err := d.gw.Explain(t.Context(), port, hints)
	if err != nil || len(causes) != 1 || !strings.Contains(causes[0].Text, "`firewall-cmd --panic-off`") {
		t.Errorf("in panic mode: %v, %v", causes, err)
	}
}

// A box that does not reach a service of the host is told of the rule that drops it.
func TestExplainOutToTheHostItself(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	explain := func(box, to string) Causes {
		t.Helper()
		causes, err := d.gw.ExplainOut(t.Context(), netip.MustParseAddr(box), netip.MustParseAddr(to))
		if err != nil {
			t.Fatal(err)
		}
		return causes
	}
	both := [][2]string{{"10.88.0.2", "203.0.113.1"}, {"10.88.0.2", "10.88.0.1"}, {"fd88::2", "2001:db8:1::1"}}
	for _, c := range both {
		if causes := explain(c[0], c[1]); len(causes) != 0 {
			t.Errorf("%s to %s: %v", c[0], c[1], causes)
		}
	}
	testutil.Run(t, d.host, "nft", firewalldRules)
	for _, c := range both {
		causes := explain(c[0], c[1])
		if len(causes) != 1 || causes[0].Kind != CauseForeignDrop || !strings.Contains(causes[0].Text, "filter_IN_public") ||
			!strings.Contains(causes[0].Text, "`firewall-cmd --permanent --zone=trusted --add-interface=br0`") {
			t.Errorf("%s to %s with firewalld: %v", c[0], c[1], causes)
		}
	}
}

// Another table of this library and what firewalld always has in its table are no cause.
func TestExplainBesideAnotherTable(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	second, err := Open(t.Context(), d.host, Options{Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	if err := second.AddNetwork(t.Context(), Network{Interface: "in0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.90.0.0/16"), netip.MustParsePrefix("fd90::/64")}, Masquerade: true}); err != nil {
		t.Fatal(err)
	}
	if err := second.Publish(t.Context(), tcp("0.0.0.0:8090", "10.90.0.2:80", "in"), tcp("[::]:8090", "[fd90::2]:80", "in")); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, d.host, "nft", `table inet firewalld {
		chain filter_PREROUTING {
			type filter hook prerouting priority filter + 10; policy accept;
			icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
			meta nfproto ipv6 fib saddr . mark . iif oif missing drop
		}
		chain filter_FORWARD {
			type filter hook forward priority filter + 10; policy accept;
			ct state invalid drop
			ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24, 2002:7f00::/24, 2002:a9fe::/32, 2002:ac10::/28, 2002:c0a8::/32, 2002:e000::/19 } reject with icmpv6 addr-unreachable
		}
	}`)
	ip(t, d.host, `
		route add default via 203.0.113.9
		route add ::/0 via 2001:db8:1::9`)
	nothing := func(what string, causes Causes, err error) {
		t.Helper()
		if err != nil || len(causes) != 0 {
			t.Errorf("%s: %v, %v", what, causes, err)
		}
	}
	for _, c := range []struct {
		gw                     *NAT
		box, box6, port, port6 string
	}{
		{d.gw, "10.88.0.2", "fd88::2", "203.0.113.1:8080", "[2001:db8:1::1]:8080"},
		{second, "10.90.0.2", "fd90::2", "203.0.113.1:8090", "[2001:db8:1::1]:8090"},
	} {
		for _, box := range []string{c.box, c.box6} {
			causes, err := c.gw.ExplainOut(t.Context(), netip.MustParseAddr(box), netip.Addr{})
			nothing(box, causes, err)
		}
		for _, port := range []string{c.port, c.port6} {
			at := Port{Proto: TCP, Host: netip.MustParseAddrPort(port)}
			causes, err := c.gw.Explain(t.Context(), at, Hints{})
			nothing(port, causes, err)
			from := netip.MustParseAddr("203.0.113.9")
			if at.Host.Addr().Is6() {
				from = netip.MustParseAddr("2001:db8:1::9")
			}
			causes, err = c.gw.Explain(t.Context(), at, Hints{From: from})
			nothing(port+" from "+from.String(), causes, err)
		}
	}
}
