package nat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// guards0 are guards of the box and the sibling.
func (s topology) guards(t *testing.T) []Guard {
	t.Helper()
	return []Guard{
		{Port: "box0", MAC: macOf(t, s.box, "eth0"), Box: addrs("10.88.0.2", "fd88::2"), Owner: "web"},
		{Port: "sib0", MAC: macOf(t, s.sibling, "eth0"), Box: addrs("10.88.0.3", "fd88::3"), Owner: "db"},
	}
}

// newGuarded is a topology with guards of both boxes on br0.
func newGuarded(t *testing.T, filtered bool) topology {
	t.Helper()
	s := newTopology(t)
	bridgeNF(t, s.host, filtered)
	if err := s.gw.SetGuards(t.Context(), s.guards(t)...); err != nil {
		t.Fatal(err)
	}
	return s
}

// What boxes do every day works behind guards, and policies hold between siblings.
func TestGuardedSiblingsAreRoutedByTheHost(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newGuarded(t, filtered)
		s.waitReady(t)
		for _, port := range []string{":80", ":443"} {
			serve(t, s.box, port)
			serve(t, s.sibling, port)
			serve(t, s.outside, port)
		}
		p := udp("0.0.0.0:8080", "10.88.0.3:80", "db")
		p.Proto = TCP
		if err := s.gw.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		expectReach(t, s.box, map[string]bool{"10.88.0.3:80": true, "[fd88::3]:80": true, "203.0.113.9:80": true, "[2001:db8:1::9]:80": true, "10.88.0.1:8080": true})
		if who, err := ask(t, s.sibling, "10.88.0.2:80"); err != nil || who != "10.88.0.3" {
			t.Errorf("the sibling is %q, %v", who, err)
		}
		// A box adds an address that is its own, by duplicate address detection.
		setSysctl(t, s.box, "ipv6/conf/eth0/dad_transmits", "1")
		ip(t, s.box, "addr del fd88::2/64 dev eth0\naddr add fd88::2/64 dev eth0")
		if !until(func() bool {
			return !strings.Contains(testutil.Run(t, s.box, "ip", "-6", "addr", "show", "dev", "eth0"), "tentative")
		}) {
			t.Error("duplicate address detection does not end")
		}
		policies := []Policy{{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true, Egress: allows(t, "tcp 10.88.0.3 port 80", "tcp fd88::3 port 80")}}
		if err := s.gw.SetPolicies(t.Context(), policies...); err != nil {
			t.Fatal(err)
		}
		expectReach(t, s.box, map[string]bool{"10.88.0.3:80": true, "[fd88::3]:80": true, "10.88.0.3:443": false, "[fd88::3]:443": false, "10.88.0.1:8080": true})
		expectReach(t, s.sibling, map[string]bool{"10.88.0.2:80": true, "[fd88::2]:443": true})
		policies[0].Ingress = allows(t, "tcp 10.88.0.3 port 80")
		if err := s.gw.SetPolicies(t.Context(), policies...); err != nil {
			t.Fatal(err)
		}
		expectReach(t, s.sibling, map[string]bool{"10.88.0.2:80": true, "10.88.0.2:443": false, "[fd88::2]:80": false})
		if causes, err := s.gw.ExplainOut(t.Context(), netip.MustParseAddr("10.88.0.3"), netip.MustParseAddr("203.0.113.9")); err != nil || len(causes) != 0 {
			t.Errorf("the way out of a guarded box: %v, %v", causes, err)
		}
		if causes, err := s.gw.Explain(t.Context(), p, Hints{Box: s.sibling, From: netip.MustParseAddr("203.0.113.9")}); err != nil || len(causes) != 0 {
			t.Errorf("the way to a guarded box: %v, %v", causes, err)
		}
		all := s.list(t)
		if len(all) != 2 {
			t.Fatalf("%+v", all)
		}
		for _, g := range all {
			if g.Forged != 0 {
				t.Errorf("%d frames of %s were taken for forged:\n%s", g.Forged, g.Port, testutil.Run(t, s.host, "nft", "list", "table", "bridge", "boxwire"))
			}
		}
	})
}

// A box without a guard beside guarded ones: all reach each other, by the host.
func TestAGuardedBoxAndOneWithout(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newTopology(t)
		bridgeNF(t, s.host, filtered)
		if err := s.gw.SetGuards(t.Context(), s.guards(t)[0]); err != nil {
			t.Fatal(err)
		}
		s.waitReady(t)
		serve(t, s.box, ":80")
		serve(t, s.sibling, ":80")
		if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.3:80", "db"), tcp("0.0.0.0:8081", "10.88.0.2:80", "web")); err != nil {
			t.Fatal(err)
		}
		expectReach(t, s.box, map[string]bool{"10.88.0.3:80": true, "[fd88::3]:80": true, "10.88.0.1:8080": true})
		expectReach(t, s.sibling, map[string]bool{"10.88.0.2:80": true, "[fd88::2]:80": true, "10.88.0.1:8081": true})
		p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true, Ingress: allows(t), Egress: allows(t)}
		if err := s.gw.SetPolicies(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		expectReach(t, s.box, map[string]bool{"10.88.0.3:80": false, "[fd88::3]:80": false})
		expectReach(t, s.sibling, map[string]bool{"10.88.0.2:80": false, "[fd88::2]:80": false})
		// With br_netfilter, the refusal of a translated packet does not reach the client.
		if reachesSoon(t, s.box, "10.88.0.1:8080") || reachesSoon(t, s.sibling, "10.88.0.1:8081") {
			t.Error("a published port is a way around the policy")
		}
	})
}

// Isolation holds between guarded ports without a flag on them.
func TestGuardsIsolateWithoutTheFlag(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newGuarded(t, filtered)
		s.waitReady(t)
		net := network0()
		net.Isolated = true
		if err := s.gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
		serve(t, s.sibling, ":80")
		if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.3:80", "db")); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"10.88.0.3:80", "[fd88::3]:80"} {
			if reachesSoon(t, s.box, to) {
				t.Errorf("%s is reached", to)
			}
		}
		expectReach(t, s.box, map[string]bool{"10.88.0.1:8080": true})
		nets, err := s.gw.ListNetworks(t.Context())
		if err != nil || len(nets) != 1 || len(nets[0].LeakyPorts) != 0 || nets[0].Drops.InterBox == 0 {
			t.Errorf("%+v, %v", nets, err)
		}
	})
}

// Guards are a part of Sync, of Check and of the repair of either table.
func TestSyncOfGuards(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	state := State{Networks: []Network{network0()}, Guards: s.guards(t)}
	sync := func(st State) {
		t.Helper()
		if err := s.gw.Sync(t.Context(), st); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(when string) {
		t.Helper()
		if err := Check(t.Context(), s.host, "", state); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	if err := Check(t.Context(), s.host, "", state); !errors.Is(err, ErrDamaged) {
		t.Errorf("without guards: %v", err)
	}
	sync(state)
	whole("synced")
	first := rulesetOf(t, s.host)
	sync(state)
	same(t, "again", rulesetOf(t, s.host), first)
	for i, damage := range []string{
		"flush set bridge boxwire src6", "flush map bridge boxwire boxes", "flush chain bridge boxwire own4", "delete table bridge boxwire", "delete table inet boxwire", "flush ruleset",
		"flush set inet boxwire guarded", "flush set bridge boxwire guards", "add chain bridge boxwire more", "flush table bridge boxwire",
		"delete table bridge boxwire; add table bridge boxwire { comment \"" + skeletonComment + "\"; }",
	} {
		if !testutil.Spread(i, 6) {
			continue
		}
		testutil.Run(t, s.host, "nft", damage)
		if err := Check(t.Context(), s.host, "", state); err == nil {
			t.Errorf("%s: not found", damage)
		} else if strings.Contains(damage, "boxes") && !strings.Contains(err.Error(), "the guard of port box0 lacks its element in the set boxes") {
			t.Error(err)
		}
		sync(state)
		whole(damage)
		same(t, damage, rulesetOf(t, s.host), first)
	}

	// Single steps make the same.
	if err := s.gw.DeleteGuards(t.Context(), "box0", "sib0"); err != nil {
		t.Fatal(err)
	}
	if err := s.gw.SetGuards(t.Context(), state.Guards...); err != nil {
		t.Fatal(err)
	}
	same(t, "SetGuards", rulesetOf(t, s.host), first)
	other := State{Networks: state.Networks, Owners: func(owner string) bool { return owner == "db" }}
	sync(other)
	for _, damage := range []string{"", "delete table inet boxwire", "flush chain bridge boxwire guarded"} {
		testutil.Run(t, s.host, "nft", damage)
		sync(other)
		if all := s.list(t); len(all) != 1 || all[0].Owner != "web" {
			t.Errorf("of another owner, after %q: %+v", damage, all)
		}
	}
	taken := other
	taken.Guards = []Guard{{Port: "box0", MAC: state.Guards[1].MAC, Box: addrs("10.88.0.3"), Owner: "db"}}
	if err := s.gw.Sync(t.Context(), taken); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), `"web"`) {
		t.Error(err)
	}
	sync(State{Networks: state.Networks})
	if all := s.list(t); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	sync(state)
	if err := s.gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := testutil.Run(t, s.host, "nft", "list", "ruleset"); out != "" {
		t.Errorf("Delete left\n%s", out)
	}
	// Another program's table of that name stays, and is in the way of guards only.
	testutil.Run(t, s.host, "nft", "add table bridge boxwire")
	s.gw = open(t, s.host)
	sync(State{Networks: state.Networks})
	if err := s.gw.Sync(t.Context(), state); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := s.gw.SetGuards(t.Context(), state.Guards...); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := s.gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := testutil.Run(t, s.host, "nft", "list", "ruleset"); !strings.Contains(out, "table bridge boxwire") {
		t.Error("Delete removed another program's table")
	}
}

// rulesetOf are the two tables without what changes by itself.
func rulesetOf(t *testing.T, ns *netns.NS) any {
	t.Helper()
	both := make(map[string]any)
	for _, family := range []string{"inet", "bridge"} {
		out, err := testutil.Try(t, ns, "nft", "-j", "list", "table", family, "boxwire")
		if err != nil {
			continue // there is none
		}
		var v any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		strip(v)
		uncount(v)
		both[family] = v
	}
	return both
}

func (s topology) list(t *testing.T) []GuardState {
	t.Helper()
	all, err := s.gw.ListGuards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// SetGuards makes all of the call, or nothing.
func TestSetGuardsIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	before := rulesetOf(t, s.host)
	gs := s.guards(t)
	for says, change := range map[string]func(g *Guard){
		"no link of that name": func(g *Guard) { g.Port = "web9" },
		"no network's subnet":  func(g *Guard) { g.Box = addrs("192.0.2.9") },
	} {
		bad := gs[1]
		change(&bad)
		if err := s.gw.SetGuards(t.Context(), gs[0], bad); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), bad.Port) {
			t.Errorf("%v, want %q of %s", err, says, bad.Port)
		}
		same(t, says, rulesetOf(t, s.host), before)
	}
	if err := s.gw.DeleteGuards(t.Context(), "box0"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := s.gw.SetGuards(t.Context(), gs[0]); err != nil {
		t.Fatal(err)
	}
	before = rulesetOf(t, s.host)
	bad := gs[1]
	bad.MAC = gs[0].MAC
	if err := s.gw.SetGuards(t.Context(), bad); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "port box0") {
		t.Error(err)
	}
	if err := s.gw.DeleteGuards(t.Context(), "box0", "sib0"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "sib0") {
		t.Error(err)
	}
	same(t, "after errors", rulesetOf(t, s.host), before)
	// The guards swap their MACs, and one gets more addresses than a comment has room for.
	gs[0].MAC, gs[1].MAC = gs[1].MAC, gs[0].MAC
	for i := range 40 {
		gs[0].Box = append(gs[0].Box, netip.MustParseAddr(fmt.Sprintf("fd88::9:%x", i+1)))
	}
	gs[0].Owner = "an owner | with a sign"
	if err := s.gw.SetGuards(t.Context(), gs...); err != nil {
		t.Fatal(err)
	}
	for i, g := range s.list(t) {
		want, _ := gs[i].checked()
		if !reflect.DeepEqual(g.Guard, want) {
			t.Errorf("%+v, want %+v", g.Guard, want)
		}
	}
	if err := s.gw.DeleteGuards(t.Context(), "sib0", "box0"); err != nil {
		t.Fatal(err)
	}
	there := elementsOnly(objects(t, s.host))
	for _, set := range guardSetNames() {
		if there[set] != nil {
			t.Errorf("%s has elements: %v", set, there[set])
		}
	}
}

func TestGuardsThatCannotBe(t *testing.T) {
	t.Parallel()
	good := func() Guard {
		return Guard{Port: "web0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Box: addrs("10.88.0.2"), Owner: "web"}
	}
	for says, change := range map[string]func(g *Guard){
		"empty":                 func(g *Guard) { g.Port = "" },
		"lo is no interface":    func(g *Guard) { g.Port = "lo" },
		"0 bytes, not 6":        func(g *Guard) { g.MAC = nil },
		"8 bytes, not 6":        func(g *Guard) { g.MAC = make([]byte, 8) },
		"that of a group":       func(g *Guard) { g.MAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} },
		"address is zero":       func(g *Guard) { g.MAC = make([]byte, 6) },
		"no address of a box":   func(g *Guard) { g.Box = nil },
		"is unspecified":        func(g *Guard) { g.Box = addrs("0.0.0.0") },
		"or link-local":         func(g *Guard) { g.Box = addrs("169.254.1.1") },
		"has a zone":            func(g *Guard) { g.Box = addrs("fe80::1%eth0") },
		"address fe80::1 twice": func(g *Guard) { g.Box = addrs("fe80::1", "fe80::1") },
		"owner is empty":        func(g *Guard) { g.Owner = "" },
	} {
		g := good()
		change(&g)
		if _, fault, err := checkGuards([]Guard{g}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), says) || fault.Port != g.Port {
			t.Errorf("%v of %v, want %q", err, fault, says)
		}
	}
	two := good()
	if _, _, err := checkGuards([]Guard{good(), two}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "two guards") {
		t.Error(err)
	}
	two.Port = "db0"
	if _, _, err := checkGuards([]Guard{good(), two}); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "port web0 has the MAC") {
		t.Error(err)
	}
	g := good()
	g.Box = addrs("fe80::ff:fe00:1", "fd88::2", "10.88.0.2")
	g, err := g.checked()
	if want := addrs("10.88.0.2", "fd88::2"); err != nil || !slices.Equal(g.Box, want) {
		t.Errorf("%v, %v; want %v", g.Box, err, want)
	}
}

func FuzzParseGuard(f *testing.F) {
	f.Add("02:00:00:00:00:01 10.88.0.2 fd88::2|web")
	f.Add("|")
	f.Add("02:00:00:00:00:01|a|b")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := parseGuard("web0", text)
		if err != nil {
			return
		}
		again, err := parseGuard("web0", g.record())
		if err != nil || !again.equal(g) {
			t.Errorf("%q: %v, then %v, %v", text, g, again, err)
		}
	})
}

// Maintain repairs both tables, and the guard of a port that is made again.
func TestMaintainRepairsGuards(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	state := State{Networks: []Network{network0()}, Guards: s.guards(t)[:1]}
	state.Guards[0].Box = addrs("10.88.0.2")
	state.Guards = append(state.Guards, Guard{Port: "late0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Box: addrs("10.88.0.9"), Owner: "late"})
	repairs := make(chan Repair, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(repairs)
		for r, err := range s.gw.Maintain(ctx, func() State { return state }) {
			if err == nil {
				repairs <- r
			}
		}
	}()
	expect := func(what string, want Reason) {
		t.Helper()
		select {
		case r := <-repairs:
			if r.Reason != want {
				t.Errorf("%s: %v, want %v", what, r, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no repair", what)
		}
		if err := Check(t.Context(), s.host, "", state); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("start", ReasonStarted)
	for damage, want := range map[string]Reason{
		"delete table bridge boxwire": ReasonTableRemoved, "flush ruleset": ReasonTableRemoved, "flush set bridge boxwire mac": ReasonTableChanged,
		"flush chain bridge boxwire guarded": ReasonTableChanged, "flush set inet boxwire guarded": ReasonTableChanged,
	} {
		testutil.Run(t, s.host, "nft", damage)
		expect(damage, want)
	}
	testutil.Run(t, s.host, "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
	expect("the port appears", ReasonLinkAppeared)
	if n := len(strings.Split(testutil.Run(t, s.host, "nft", "list", "map", "bridge", "boxwire", "lift"), ",")); n != 2 {
		t.Errorf("%d ports lift", n)
	}
	testutil.Run(t, s.host, "ip", "link", "set", "late0", "address", "02:00:00:00:99:99")
	expect("the port has another MAC", ReasonLinkAppeared)
}
