package nat

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// kinds are those of the causes that ExplainOut finds.
func (d dockerHost) kinds(t *testing.T, box string) (Causes, []CauseKind) {
	t.Helper()
	to := netip.MustParseAddr("203.0.113.9")
	if strings.Contains(box, ":") {
		to = netip.MustParseAddr("2001:db8:1::9")
	}
	causes, err := d.gw.ExplainOut(t.Context(), netip.MustParseAddr(box), to)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []CauseKind
	for _, c := range causes {
		kinds = append(kinds, c.Kind)
		if c.Subject == "" || !strings.HasSuffix(c.Text, ".") {
			t.Errorf("%+v", c)
		}
	}
	return causes, kinds
}

// What keeps a box in is named, and gone when it is repaired, as real packets find.
func TestExplainOut(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	gets := func(out bool) {
		t.Helper()
		want4, want6 := none, none
		if out {
			want4, want6 = "203.0.113.1", "2001:db8:1::1"
		}
		try(t, attempt{"box, out", d.box, TCP, "203.0.113.9:80", want4}, attempt{"box, out", d.box, TCP, "[2001:db8:1::9]:80", want6},
			attempt{"outside, host", d.outside, TCP, "203.0.113.1:1", "203.0.113.9"})
	}
	nothing := func(when string) {
		t.Helper()
		for _, box := range []string{"10.88.0.2", "fd88::2"} {
			if causes, _ := d.kinds(t, box); len(causes) != 0 {
				t.Errorf("%s: %v", when, causes)
			}
		}
		gets(true)
	}
	nothing("before")
	d.rules(t, dockerRules)
	for _, box := range []string{"10.88.0.2", "fd88::2"} {
		causes, kinds := d.kinds(t, box)
		if !slices.Equal(kinds, []CauseKind{CauseForeignDrop}) || !causes[0].Certain || !strings.Contains(causes[0].Text, "what the box begins") ||
			!strings.Contains(causes[0].Text, "AcceptForward") {
			t.Errorf("%s beside Docker: %v", box, causes)
		}
	}
	gets(false)
	if err := d.gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothing("accepted")

	internal := network0()
	internal.Masquerade, internal.Internal = false, true
	if err := d.gw.SetNetwork(t.Context(), internal); err != nil {
		t.Fatal(err)
	}
	if causes, kinds := d.kinds(t, "10.88.0.2"); !slices.Contains(kinds, CauseInternal) {
		t.Errorf("internal: %v", causes)
	}
	gets(false)
	if err := d.gw.SetNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, d.host, "ipv4/conf/br0/forwarding", "0")
	if causes, kinds := d.kinds(t, "10.88.0.2"); !slices.Contains(kinds, CauseForwardingOff) {
		t.Errorf("forwarding off: %v", causes)
	}
	if err := d.gw.SetNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	nothing("repaired")
	if causes, err := d.gw.ExplainOut(t.Context(), netip.MustParseAddr("10.88.0.2"), netip.Addr{}); err != nil || len(causes) != 1 || causes[0].Kind != CauseNoRoute {
		t.Errorf("without a default route: %v, %v", causes, err)
	}
	for _, bad := range [][2]netip.Addr{{}, {netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2")}, {netip.MustParseAddr("::")}} {
		if _, err := d.gw.ExplainOut(t.Context(), bad[0], bad[1]); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// Rules of iptables-legacy cannot be read; that there are some can be said.
func TestExplainSaysThatThereAreLegacyRules(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	web, web6 := tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")
	if err := s.gw.Publish(t.Context(), web, web6); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	for tool, port := range map[string]Port{"iptables-legacy": web, "ip6tables-legacy": web6} {
		if out, err := testutil.Try(t, s.host, tool, "-I", "FORWARD", "-j", "DROP"); err != nil {
			t.Logf("%s: %s", tool, out) // a kernel without, or a user who may not
			continue
		}
		causes, err := s.gw.Explain(t.Context(), port, Hints{})
		if err != nil || len(causes) != 1 || causes[0].Kind != CauseLegacyRules || causes[0].Certain || causes[0].Subject != "table filter of "+tool {
			t.Errorf("%s: %v, %v", tool, causes, err)
		}
		causes, err = s.gw.ExplainOut(t.Context(), port.Box.Addr(), map[bool]netip.Addr{true: netip.MustParseAddr("203.0.113.9"), false: netip.MustParseAddr("2001:db8:1::9")}[tool == "iptables-legacy"])
		if err != nil || len(causes) != 1 || causes[0].Kind != CauseLegacyRules {
			t.Errorf("%s, the way out: %v, %v", tool, causes, err)
		}
	}
}

// The host may have the addresses that stand for strangers.
func TestExplainWithADocumentationAddressOnTheHost(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	web, web6 := tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web")
	if err := s.gw.Publish(t.Context(), web, web6); err != nil {
		t.Fatal(err)
	}
	ip(t, s.host, "addr add 192.0.2.1/24 dev up1\naddr add 2001:db8::1/64 dev up1 nodad\nroute add default via 203.0.113.9\nroute add ::/0 via 2001:db8:1::9")
	testutil.Run(t, s.host, "nft", `table inet f { chain c { type filter hook forward priority 0; policy accept; iifname "up0" drop; }; }`)
	ip(t, s.host, "addr add 192.0.2.254/32 dev lo")
	for _, p := range []Port{web, web6} {
		causes, err := s.gw.Explain(t.Context(), p, Hints{})
		if err != nil || len(causes) != 1 || causes[0].Kind != CauseForeignDrop || !causes[0].Certain {
			t.Errorf("%v: %v, %v", p, causes, err)
		}
	}
}

// A strict reverse path of another network of the host is about the box, not about
// visitors.
func TestExplainOfAStrictReversePathBetweenNetworks(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	if err := s.gw.AddNetwork(t.Context(), network1()); err != nil {
		t.Fatal(err)
	}
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	if err := s.gw.Publish(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, s.host, "ipv4/conf/br1/rp_filter", "1")
	for _, l := range []string{"all", "up0", "up1"} {
		setSysctl(t, s.host, "ipv4/conf/"+l+"/rp_filter", "0")
	}
	causes, err := s.gw.Explain(t.Context(), web, Hints{From: netip.MustParseAddr("203.0.113.9")})
	if err != nil || len(causes) != 1 || causes[0].Kind != CauseReversePath || causes[0].Certain || !strings.Contains(causes[0].Text, "the box 10.88.0.2 is on br1, too") {
		t.Errorf("%v, %v", causes, err)
	}
}

// With br_netfilter a box reaches its own published port only by a bridge port with
// hairpin mode.
func TestExplainOfABoxThatVisitsItself(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	if err := s.gw.Publish(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	if err := s.host.SetSysctl(t.Context(), "net.bridge.bridge-nf-call-iptables", "1"); err != nil {
		t.Skipf("needs br_netfilter: %v", err)
	}
	hints := Hints{From: netip.MustParseAddr("10.88.0.2")}
	if causes, err := s.gw.Explain(t.Context(), web, hints); err != nil || len(causes) != 0 {
		t.Errorf("with hairpin mode: %v, %v", causes, err)
	}
	try(t, attempt{"box", s.box, TCP, "10.88.0.1:8080", "10.88.0.1"})
	ip(t, s.host, "link set box0 type bridge_slave hairpin off")
	causes, err := s.gw.Explain(t.Context(), web, hints)
	if err != nil || len(causes) != 1 || causes[0].Kind != CauseBridgeFilter || causes[0].Subject != "link box0" {
		t.Errorf("without: %v, %v", causes, err)
	}
	try(t, attempt{"box", s.box, TCP, "10.88.0.1:8080", none}, attempt{"outside", s.outside, TCP, "203.0.113.1:8080", "203.0.113.9"})
}
