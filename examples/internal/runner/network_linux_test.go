package runner

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/boxtest"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestAnAddressThatIsTakenOverIsReachedAtOnce(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host := netnstest.New(t)
	start(t, host, "sibling")
	sibling, err := netns.Open(t.Context(), "sibling")
	if err != nil {
		t.Fatal(err)
	}
	defer sibling.Close()
	for _, name := range []string{"first", "second"} {
		start(t, host, name, "-ip", "10.88.0.77", "-ip", "fd88::77")
		box, err := netns.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		var links []struct{ Address string }
		testutil.JSON(t, box, &links, "ip", "-j", "link", "show", "eth0")
		box.Close()
		for _, from := range []*netns.NS{host, sibling} {
			for _, at := range []string{"10.88.0.77", "fd88::77"} {
				if name == "second" {
					var entries []struct{ Lladdr string }
					testutil.JSON(t, from, &entries, "ip", "-j", "neigh", "show", "to", at)
					if len(entries) != 1 || entries[0].Lladdr != links[0].Address {
						t.Errorf("%s is at %+v for its neighbours, not at %s", at, entries, links[0].Address)
					}
				}
				if strings.Contains(at, ":") {
					at = "[" + at + "]"
				}
				if says := boxtest.Answers(from, at, name); says != "" {
					t.Error(says)
				}
			}
		}
		if got := cli(t, host, "rm", name); got.status != 0 {
			t.Fatalf("rm ended with %+v", got)
		}
	}
}

func TestAddressesOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	start(t, host, "held", "-mac", "02:00:00:00:00:07")
	testutil.Run(t, host, "ip", "addr", "add", "10.88.0.3/16", "dev", "boxwire0")
	testutil.Run(t, host, "ip", "addr", "add", "10.88.0.4/32", "dev", "lo")
	var links []struct{ Address string }
	testutil.JSON(t, host, &links, "ip", "-j", "link", "show", "boxwire0")
	for _, test := range []struct{ flags, says string }{
		{"-ip 10.88.0.2", "taken by box held"},
		{"-ip 10.88.0.3", "taken by the host"},
		{"-ip 10.88.0.4", "taken by the host"},
		{"-ip fd88::9%eth0", "in none of the subnets"},
		{"-mac 02:00:00:00:00:07", "taken by box held"},
		{"-mac " + links[0].Address, "taken by the bridge boxwire0"},
		{"-mac " + stableMAC(portName("held")).String(), "taken by the bridge's port"},
		{"-bridge other0 -subnet 10.99.0.0/16 -subnet 10.99.3.0/24", "overlaps -subnet 10.99.0.0/16"},
		{"-bridge other0 -subnet 127.0.0.0/24", "overlaps 127.0.0.1/8 of link lo"},
	} {
		if got := cli(t, host, append(strings.Fields(test.flags), "true")...); got.status != 125 || !strings.Contains(got.err, test.says) {
			t.Errorf("run %s ended with %+v, want %q", test.flags, got, test.says)
		}
	}
	if got := cli(t, host, "ip", "-4", "-br", "addr", "show", "eth0"); !strings.Contains(got.out, "10.88.0.5/16") {
		t.Errorf("the next box has %+v", got)
	}
}

func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	tool.Path(t, "sh")
	host := netnstest.New(t)
	testutil.Run(t, host, "sh", "-c", "f=/proc/sys/net/ipv6/conf/all/disable_ipv6; test ! -e $f || echo 1 >$f")
	if got := cli(t, host, "true"); got != (result{}) {
		t.Errorf("run true ended with %+v", got)
	}
	if got := cli(t, host, "-subnet", "10.99.0.0/16", "-subnet", "fd99::/64", "true"); got.status != 125 || !strings.Contains(got.err, "-subnet fd99::/64: IPv6 is switched off") {
		t.Errorf("run with a subnet of IPv6 ended with %+v", got)
	}
	start(t, host, "only4", "-p", "8080:80")
	if says := boxtest.Answers(host, "127.0.0.1:8080", "only4"); says != "" {
		t.Error(says)
	}
	if got := cli(t, host, "rm", "only4"); got.status != 0 {
		t.Errorf("rm ended with %+v", got)
	}
	empty(t, host)
}

// What another program removes of a box does not keep the rest.
func TestNothingStaysOfWhatWasTakenAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, box, take string }{
		{"the bridge", "taken1", "ip link del boxwire0"},
		{"the box's link", "taken2", "ip link del " + portName("taken2")},
		{"the rules", "taken3", "nft flush ruleset"},
		{"the table", "taken4", "nft delete table inet boxwire-run"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host := netnstest.New(t)
			start(t, host, test.box, "-p", "8080:80")
			fields := strings.Fields(test.take)
			testutil.Run(t, host, fields[0], fields[1:]...)
			if got := cli(t, host, "rm", test.box); got.status != 0 {
				t.Errorf("rm ended with %+v", got)
			}
			empty(t, host)
		})
	}
}

// Neither does a run that was killed before it could take its box away.
func TestNothingStaysOfAKilledBoxWithoutItsLink(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	cmd := start(t, host, "taken5", "-p", "8080:80")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	boxtest.Within(t, func() string {
		if unix.Kill(cmd.Process.Pid, 0) == nil {
			return "the run does not end"
		}
		return ""
	})
	// The link goes with the namespace of a box whose processes are gone.
	if out, err := testutil.Try(t, host, "ip", "link", "del", portName("taken5")); err != nil && !strings.Contains(out, "Cannot find device") {
		t.Fatal(out)
	}
	if got := cli(t, host, "rm", "taken5"); got.status != 0 {
		t.Errorf("rm ended with %+v", got)
	}
	empty(t, host)
}

// A start that fails leaves no table, and gc takes one away that is empty.
func TestATableWithoutAnythingGoes(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	testutil.Run(t, host, "ip", "link", "add", "boxwire0", "type", "bridge")
	if got := cli(t, host, "-p", "8080:80", "true"); got.status != 125 {
		t.Errorf("run on another program's bridge ended with %+v", got)
	}
	testutil.Run(t, host, "ip", "link", "del", "boxwire0")
	empty(t, host)
	gw, err := openNAT(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	gw.Close()
	if got := cli(t, host, "gc"); got != (result{}) {
		t.Errorf("gc ended with %+v", got)
	}
	empty(t, host)
}

// A network that cannot be removed keeps its bridge, by which gc finds it later.
func TestABridgeStaysWhileItsNetworkDoes(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	cmd := start(t, host, "stuck", "-p", "8080:80")
	// A table of the name that is not ours.
	testutil.Run(t, host, "nft", "delete table inet boxwire-run; add table inet boxwire-run")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	boxtest.Within(t, func() string {
		if unix.Kill(cmd.Process.Pid, 0) == nil {
			return "the run does not end"
		}
		return ""
	})
	for _, verb := range []string{"ls", "gc"} {
		if got := cli(t, host, verb); got.status != 125 || !strings.Contains(got.err, "boxwire-run") {
			t.Errorf("%v ended with %+v", verb, got)
		}
	}
	if out := testutil.Run(t, host, "ip", "-br", "link", "show", "type", "bridge"); !strings.Contains(out, "boxwire0") {
		t.Errorf("of the bridges there is left: %q", out)
	}
	testutil.Run(t, host, "nft", "delete", "table", "inet", "boxwire-run")
	if got := cli(t, host, "gc"); got.status != 0 {
		t.Errorf("gc ended with %+v", got)
	}
	empty(t, host)
}

// The rules are back after a flush, and an uplink that is made again forwards.
func TestTheFirewallIsKeptWhileABoxRuns(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host, outside := netnstest.Host(t)
	start(t, host.NS, "kept1", "-p", "8080:80")
	start(t, host.NS, "kept2", "-p", "8081:80")
	reached := func(when string) {
		t.Helper()
		for at, want := range map[string]string{"203.0.113.1:8080": "kept1", "[2001:db8::1]:8081": "kept2"} {
			boxtest.Within(t, func() string {
				if says := boxtest.Answers(outside.NS, at, want); says != "" {
					return when + ": " + says
				}
				return ""
			})
		}
	}
	reached("at first")
	testutil.Run(t, host.NS, "nft", "flush", "ruleset")
	reached("after a flush")
	// The uplink goes and comes back.
	testutil.Run(t, outside.NS, "ip", "link", "del", "eth0")
	if _, err := link.Create(t.Context(), host.NS, link.Spec{
		Name: "wan0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		Kind: link.Veth{Peer: link.Spec{
			NS: outside.NS, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	reached("by a new uplink")
	for _, name := range []string{"kept1", "kept2"} {
		if got := cli(t, host.NS, "rm", name); got.status != 0 {
			t.Errorf("rm ended with %+v", got)
		}
	}
	if out := testutil.Run(t, host.NS, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("rules are left: %s", out)
	}
}

func TestAnotherFirewallThatDropsIsSaidAndMended(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, accept := range []bool{false, true} {
		t.Run(fmt.Sprint("-accept-forward=", accept), func(t *testing.T) {
			t.Parallel()
			host, outside := netnstest.Host(t)
			for _, family := range []string{"ip", "ip6"} {
				testutil.Run(t, host.NS, "nft", "add table "+family+" filter; add chain "+family+" filter FORWARD { type filter hook forward priority 0; policy drop; }")
			}
			for _, flags := range []string{"", "-p 8080:80", "-internal -bridge inner0 -subnet 10.99.0.0/24"} {
				args := append(strings.Fields(flags), fmt.Sprint("-accept-forward=", accept), "true")
				got := cli(t, host.NS, args...)
				says := strings.Contains(got.err, "FORWARD") && strings.Contains(got.err, "-accept-forward")
				if got.status != 0 || says == accept || accept && got.err != "" {
					t.Errorf("run %q ended with %+v", args, got)
				}
			}
			if accept {
				start(t, host.NS, "accepted", "-p", "8080:80", "-accept-forward")
				for _, at := range []string{"203.0.113.1:8080", "[2001:db8::1]:8080"} {
					if says := boxtest.Answers(outside.NS, at, "accepted"); says != "" {
						t.Error(says)
					}
				}
				if got := cli(t, host.NS, "rm", "accepted"); got.status != 0 {
					t.Errorf("rm ended with %+v", got)
				}
			}
			if out := testutil.Run(t, host.NS, "nft", "list", "ruleset"); strings.Contains(out, "accept comment") || strings.Contains(out, "boxwire") {
				t.Errorf("rules are left: %s", out)
			}
		})
	}
}
