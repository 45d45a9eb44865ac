package nat

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What a table has given up because the machine became a router stays given up, whoever gave it up, and when
// somebody flushes the ruleset.
func TestARoutersLinksAreNotRecordedAgain(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.other, ":80")
	s.waitReady(t)
	state := State{Networks: []Network{network0()}}
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	neighbours := func(want string) {
		t.Helper()
		try(t, attempt{"neighbour", s.outside, TCP, "10.89.0.2:80", want}, attempt{"host", s.outside, TCP, "203.0.113.1:1", "203.0.113.9"})
	}
	neighbours(none)
	setSysctl(t, s.host, "ipv4/ip_forward", "1")
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	neighbours("203.0.113.9")

	testutil.Run(t, s.host, "nft", "flush", "ruleset")
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	neighbours("203.0.113.9")
	if out := testutil.Run(t, s.host, "nft", "list", "set", "inet", "boxwire", "flipped4"); strings.Contains(out, "up0") {
		t.Error(out)
	}
}

// So it is when two programs have tables: each remembers links that the other has given up.
func TestARoutersLinksAreNotRecordedAgainByAnotherTable(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.other, ":80")
	s.waitReady(t)
	second := openWith(t, another(t, s.host), Options{Name: "second"})
	box := Network{Interface: "br9", Subnets: prefixes("10.99.0.0/16", "fd99::/64")}
	testutil.Run(t, s.host, "ip", "link", "add", "br9", "type", "bridge")
	repairs := maintain(t, newMaintainer(second, always(State{Networks: []Network{box}})))
	state := State{Networks: []Network{network0()}}
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, s.host, "ipv4/ip_forward", "1")
	testutil.Run(t, s.host, "nft", "flush", "ruleset")
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	for next(t, repairs).Reason != ReasonTableRemoved {
	}
	try(t, attempt{"neighbour", s.outside, TCP, "10.89.0.2:80", "203.0.113.9"})
}

// Maintain hears that the machine becomes a router, of each family. A change of a network hears of it, too.
func TestAMachineIsMadeARouterUnderMaintain(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	maintain(t, newMaintainer(gw, always(State{Networks: []Network{network0()}})))
	recorded := func(family int) bool {
		set := families[family].enabled
		return strings.Contains(testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set), "up0")
	}
	if !recorded(0) {
		t.Error("up0 forwards, and no record says what it was")
	}
	setSysctl(t, ns, "ipv4/ip_forward", "1")
	if !until(func() bool { return !recorded(0) }) {
		t.Error("Maintain keeps the record of a router's link")
	}
	if _, err := os.Stat("/proc/sys/net/ipv6/conf/all/force_forwarding"); err != nil { // the switch is ours
		return
	}
	if !recorded(1) {
		t.Error("up0 forwards IPv6, and no record says what it was")
	}
	setSysctl(t, ns, "ipv6/conf/all/forwarding", "1")
	if !until(func() bool { return !recorded(1) }) {
		t.Error("Maintain keeps the record of a router's link for IPv6")
	}
}

// So does a program that only changes networks.
func TestAMachineIsMadeARouterBeforeAChange(t *testing.T) {
	t.Parallel()
	ns := host(t)
	for _, change := range []func(*NAT, context.Context, Network) error{(*NAT).AddNetwork, (*NAT).SetNetwork} {
		gw := open(t, ns)
		setSysctl(t, ns, "ipv4/ip_forward", "0")
		if err := gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
			t.Fatal(err)
		}
		setSysctl(t, ns, "ipv4/ip_forward", "1")
		if err := change(gw, t.Context(), Network{Interface: "br9", Subnets: prefixes("10.99.0.0/16")}); err != nil {
			t.Fatal(err)
		}
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4"); strings.Contains(out, "up0") {
			t.Error(out)
		}
		if err := gw.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, ns, map[string]string{"ipv4/conf/up0/forwarding": "1"})
	}
}
