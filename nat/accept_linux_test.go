package nat

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// docker is the forward chain of an engine that lets nothing through but its own,
// without counters: as iptables-nft makes it.
const docker = `table ip filter {
	chain DOCKER-USER { return; }
	chain FORWARD {
		type filter hook forward priority 0; policy drop
		counter jump DOCKER-USER
		oifname "docker0" counter accept
	}
}
table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
`

// loadText is load for a text.
func loadText(t *testing.T, ns *netns.NS, rules string) {
	t.Helper()
	file := t.TempDir() + "/rules.nft"
	if err := os.WriteFile(file, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	load(t, ns, file)
}

func foreign(t *testing.T, ns *netns.NS) string {
	t.Helper()
	return testutil.Run(t, ns, "nft", "-s", "list", "table", "ip", "filter") + testutil.Run(t, ns, "nft", "-s", "list", "table", "ip6", "filter")
}

// Others with the policy DROP: moby#39439, moby#50566.
func TestAcceptForwardLetsVisitorsThroughAForeignChain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	serve(t, s.box, ":80")
	loadText(t, s.host, docker)
	before := foreign(t, s.host)
	web, web6 := tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")
	if err := s.gw.Publish(t.Context(), web, web6); err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	host := attempt{"outside", s.outside, TCP, "203.0.113.1:1", "203.0.113.9"} // settle's
	blocked := func(when string) {
		t.Helper()
		for _, p := range []Port{web, web6} {
			causes, err := s.gw.Explain(t.Context(), p, Hints{})
			if err != nil || len(causes) == 0 || causes[0].Kind != CauseForeignDrop {
				t.Errorf("%s: %v, %v", when, causes, err)
			}
		}
		try(t, attempt{when + " from outside", s.outside, TCP, "203.0.113.1:8080", none}, host)
	}
	blocked("before")
	for range 2 { // it may be repeated
		if err := s.gw.AcceptForward(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, addr := range []string{"203.0.113.1:8080", "[2001:db8:1::1]:8080"} {
		if _, err := ask(t, s.outside, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	chain := testutil.Run(t, s.host, "nft", "-s", "list", "chain", "ip", "filter", "DOCKER-USER")
	for _, want := range []string{
		`iifname "br0" counter accept comment "table inet boxwire"`, `oifname "br0" counter accept comment "table inet boxwire"`,
	} {
		if strings.Count(chain, want) != 1 || strings.Index(chain, want) > strings.Index(chain, "return") {
			t.Errorf("%s once before the return is not in\n%s", want, chain)
		}
	}
	// What is not published stays closed all the same.
	try(t, attempt{"outside", s.outside, TCP, "10.88.0.2:80", none}, host)
	if err := s.gw.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := foreign(t, s.host); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
	blocked("afterwards")
}

func TestAcceptForwardGoesWithItsNetworkAndTable(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	for _, name := range []string{"br0", "br1"} {
		subnet := "10.88.0.0/16"
		if name == "br1" {
			subnet = "10.89.0.0/16"
		}
		if err := gw.AddNetwork(t.Context(), Network{Interface: name, Subnets: prefixes(subnet)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := gw.AcceptForward(t.Context()); err != nil { // no such chain
		t.Fatal(err)
	}
	loadText(t, ns, docker)
	before := foreign(t, ns)
	count := func() int { return strings.Count(foreign(t, ns), `comment "table inet boxwire"`) }
	for i, step := range []func() error{
		func() error { return gw.AcceptForward(t.Context()) },
		func() error { return gw.RemoveNetwork(t.Context(), "br1") },
		func() error { return gw.Delete(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if got, want := count(), []int{8, 4, 0}[i]; got != want {
			t.Errorf("step %d: %d rules, want %d", i, got, want)
		}
	}
	if after := foreign(t, ns); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

// What the kernel holds of `iptables-nft -I FORWARD -i br0 -j ACCEPT` and the same
// with -o, of version 1.8.9, on a little endian machine.
var iptablesAccepts = []nft.Expr{
	{Name: "meta", Data: []byte("\b\x00\x02\x00\x00\x00\x00\x06\b\x00\x01\x00\x00\x00\x00\x01")},
	{Name: "cmp", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x01\b\x00\x02\x00\x00\x00\x00\x00\f\x00\x03\x00\b\x00\x01\x00br0\x00")},
	{Name: "counter", Data: []byte("\f\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\f\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
	{Name: "immediate", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x00\x10\x00\x02\x00\f\x00\x02\x00\b\x00\x01\x00\x00\x00\x00\x01")},
	{Name: "meta", Data: []byte("\b\x00\x02\x00\x00\x00\x00\a\b\x00\x01\x00\x00\x00\x00\x01")},
	{Name: "cmp", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x01\b\x00\x02\x00\x00\x00\x00\x00\f\x00\x03\x00\b\x00\x01\x00br0\x00")},
	{Name: "counter", Data: []byte("\f\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\f\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
	{Name: "immediate", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x00\x10\x00\x02\x00\f\x00\x02\x00\b\x00\x01\x00\x00\x00\x00\x01")},
}

func TestAcceptForwardIsWrittenAsByIptables(t *testing.T) {
	t.Parallel()
	if host32(1)[0] != 1 {
		t.Skip("the recording is of a little endian machine")
	}
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	loadText(t, ns, docker)
	if err := gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := gw.conn()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := c.RulesIn(t.Context(), nft.Place{Family: unix.NFPROTO_IPV6, Table: "filter", Chain: "FORWARD"})
	if err != nil {
		t.Fatal(err)
	}
	var got []nft.Expr
	for _, r := range rules {
		got = append(got, r.Exprs...)
	}
	if !reflect.DeepEqual(got, iptablesAccepts) {
		t.Errorf("%q\nwant %q", got, iptablesAccepts)
	}
	if _, err := exec.LookPath("iptables-nft"); err == nil { // no tool that every machine has
		readByIptables(t)
	}
}

// readByIptables has iptables-nft list what we wrote, and wants what it wrote
// itself in our place still known as ours.
func readByIptables(t *testing.T) {
	t.Helper()
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string { return testutil.Run(t, ns, "iptables-nft", args...) }
	run("-P", "FORWARD", "DROP")
	before := run("-S")
	if err := gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := run("-S", "FORWARD")
	want := "-P FORWARD DROP\n" +
		"-A FORWARD -i br0 -m comment --comment \"table inet boxwire\" -j ACCEPT\n" +
		"-A FORWARD -o br0 -m comment --comment \"table inet boxwire\" -j ACCEPT\n"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
	testutil.Run(t, ns, "sh", "-c", "iptables-nft-save > \"$0\" && iptables-nft-restore < \"$0\"", t.TempDir()+"/saved")
	if err := gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run("-S", "FORWARD"); got != want {
		t.Errorf("restored: %q, want %q", got, want)
	}
	if err := gw.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := run("-S"); after != before {
		t.Errorf("after: %q, before: %q", after, before)
	}
}
