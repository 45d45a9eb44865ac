package nat

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
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
	testutil.LoadNFT(t, ns, file)
}

func foreign(t *testing.T, ns *netns.NS) string {
	t.Helper()
	return testutil.Run(t, ns, "nft", "-s", "list", "table", "ip", "filter") + testutil.Run(t, ns, "nft", "-s", "list", "table", "ip6", "filter")
}

// Others with the policy DROP: moby#39439, moby#50566.
func TestAcceptForwardLetsVisitorsThroughAForeignChain(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	loadText(t, s.host, docker)
	before := foreign(t, s.host)
	web, web6 := tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")
	if err := s.gw.Publish(t.Context(), web, web6); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	host := attempt{"outside", s.outside, TCP, "203.0.113.1:1", "203.0.113.9"} // of waitReady
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
	into := `	iifname "up0" oifname "br0" counter accept comment "table inet boxwire"`
	if strings.Count(chain, into) != 1 || strings.Index(chain, into) > strings.Index(chain, "return") || strings.Contains(chain, `iifname "br0" counter`) {
		t.Errorf("%s once before the return, and nothing that lets the boxes go anywhere, is not in\n%s", into, chain)
	}
	if strings.Count(chain, `	iifname "br0"`) != 1 || strings.Count(chain, `	oifname "br0"`) != 1 || strings.Contains(chain, `	oifname "br0" counter`) {
		t.Errorf("one rule for answers each way is not in\n%s", chain)
	}
	chain = testutil.Run(t, s.host, "nft", "-s", "list", "chain", "ip", "filter", "FORWARD")
	for _, out := range []string{`	iifname "br0" oifname "up0" counter accept comment "table inet boxwire"`, `	oifname "br0" counter accept comment "table inet boxwire"`} {
		if strings.Count(chain, out) != 1 || strings.Index(chain, out) < strings.Index(chain, `"docker0"`) || strings.Contains(chain, `oifname "br1"`) {
			t.Errorf("%s once behind the engine's rules, and nothing into other bridges, is not in\n%s", out, chain)
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
		func() error { return gw.DeleteNetwork(t.Context(), "br1") },
		func() error { return gw.Delete(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if got, want := count(), []int{10, 5, 0}[i]; got != want {
			t.Errorf("step %d: %d rules, want %d", i, got, want)
		}
	}
	if after := foreign(t, ns); after != before {
		t.Errorf("after:\n%s\nbefore:\n%s", after, before)
	}
}

// What the kernel holds of `iptables-nft -A FORWARD -o br0 -j ACCEPT`, the same with
// `-i br0 -m conntrack --ctstate RELATED,ESTABLISHED` and with `-i br0 -o up0`, of
// version 1.8.9, on a little endian machine.
var iptablesAccepts = slices.Concat(
	recorded("\a", "br0"), recordedAccept,
	recorded("\x06", "br0"), []nft.Expr{{Name: "match", Data: []byte("\x0e\x00\x01\x00conntrack\x00\x00\x00\b\x00\x02\x00\x00\x00\x00\x03\xac\x00\x03\x00" + strings.Repeat("\x00", 146) +
		"\x01\x00\x00\x00\x06\x00" + strings.Repeat("\x00", 16))}}, recordedAccept,
	recorded("\x06", "br0"), recorded("\a", "up0"), recordedAccept,
)

func recorded(key, name string) []nft.Expr {
	return []nft.Expr{
		{Name: "meta", Data: []byte("\b\x00\x02\x00\x00\x00\x00" + key + "\b\x00\x01\x00\x00\x00\x00\x01")},
		{Name: "cmp", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x01\b\x00\x02\x00\x00\x00\x00\x00\f\x00\x03\x00\b\x00\x01\x00" + name + "\x00")},
	}
}

var recordedAccept = []nft.Expr{
	{Name: "counter", Data: []byte("\f\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\f\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
	{Name: "immediate", Data: []byte("\b\x00\x01\x00\x00\x00\x00\x00\x10\x00\x02\x00\f\x00\x02\x00\b\x00\x01\x00\x00\x00\x00\x01")},
}

func TestAcceptForwardIsWrittenAsByIptables(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	if host32(1)[0] != 1 {
		t.Skip("the recording is of a little endian machine")
	}
	ns := uplinked(t)
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

// uplinked is a host whose up0 has a subnet.
func uplinked(t *testing.T) *netns.NS {
	ns := host(t)
	ip(t, ns, "link set up0p up\nlink set up0 up\naddr add 203.0.113.1/24 dev up0\naddr add 2001:db8:1::1/64 dev up0 nodad")
	return ns
}

// readByIptables has iptables-nft list what we wrote, and wants what it wrote
// itself in our place still known as ours.
func readByIptables(t *testing.T) {
	t.Helper()
	ns := uplinked(t)
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
		"-A FORWARD -o br0 -m comment --comment \"table inet boxwire\" -j ACCEPT\n" +
		"-A FORWARD -i br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"table inet boxwire\" -j ACCEPT\n" +
		"-A FORWARD -i br0 -o up0 -m comment --comment \"table inet boxwire\" -j ACCEPT\n"
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
