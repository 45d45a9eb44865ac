package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// allows are rules from their texts.
func allows(t *testing.T, texts ...string) *Rules {
	t.Helper()
	rs := new(Rules)
	for _, text := range texts {
		var r Rule
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		rs.Allow = append(rs.Allow, r)
	}
	return rs
}

// reaches connects, and reports whether the server answered. A policy with Refuse lets no one wait.
func reaches(t *testing.T, from *netns.NS, to string) bool {
	t.Helper()
	_, err := ask(t, from, to)
	return err == nil
}

// expectReach compares which of the addresses are reached.
func expectReach(t *testing.T, from *netns.NS, want map[string]bool) {
	t.Helper()
	for to, reached := range want {
		if ap(to).Addr().Is6() && !netnstest.HasIPv6() {
			continue
		}
		if got := reaches(t, from, to); got != reached {
			t.Errorf("%s is reached: %v, want %v", to, got, reached)
		}
	}
}

func TestAPolicyIsWhatABoxReaches(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, filtered := range []bool{false, true} {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(fmt.Sprintf("br_netfilter %v", filtered), func(t *testing.T) {
			t.Parallel()
			s := newTopology(t)
			bridgeNF(t, s.host, filtered)
			if err := s.gw.AddNetwork(t.Context(), network1()); err != nil {
				t.Fatal(err)
			}
			s.waitReady(t)
			for _, port := range []string{":80", ":443", ":8080"} {
				for _, ns := range []*netns.NS{s.outside, s.beyond, s.host, s.box} {
					serve(t, ns, port)
				}
			}
			p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true}
			p.Egress = allows(t,
				"tcp 203.0.113.0/24 port 443", "tcp 2001:db8:1::/64 port 443",
				"tcp 198.51.100.0/24 except 198.51.100.8/29 port 400-500", "tcp 198.51.100.9 port 8000-8100",
				"tcp host port 80")
			if err := s.gw.SetPolicies(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			expectReach(t, s.box, map[string]bool{
				"203.0.113.9:443": true, "203.0.113.9:80": false, "[2001:db8:1::9]:443": true, "[2001:db8:1::9]:80": false,
				"198.51.100.9:443": false, "198.51.100.9:8080": true, "198.51.100.9:80": false, "[2001:db8:2::9]:443": false,
				"10.88.0.1:80": true, "[fd88::1]:80": true, "10.88.0.1:443": false, "[fd88::1]:443": false,
				"203.0.113.1:80": true, "203.0.113.1:443": false,
			})
			expectReach(t, s.sibling, map[string]bool{"203.0.113.9:80": true, "[2001:db8:1::9]:80": true, "10.88.0.1:443": true})

			// Who reaches the box: a pinhole lets all in, and the policy some of them.
			for _, a := range []string{"10.88.0.2:80", "[fd88::2]:80"} {
				if err := s.gw.AddPinholes(t.Context(), Pinhole{Proto: TCP, Box: ap(a), Owner: "web"}); err != nil {
					t.Fatal(err)
				}
			}
			p.Ingress = allows(t, "tcp 203.0.113.0/24 port 80", "tcp 2001:db8:2::/64 port 80")
			if err := s.gw.SetPolicies(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			expectReach(t, s.outside, map[string]bool{"10.88.0.2:80": true, "[fd88::2]:80": false})
			expectReach(t, s.beyond, map[string]bool{"10.88.0.2:80": false, "[fd88::2]:80": true})
			expectReach(t, s.other, map[string]bool{"10.88.0.2:80": false})
			expectReach(t, s.host, map[string]bool{"10.88.0.2:80": true, "[fd88::2]:80": true})

			all, err := s.gw.ListPolicies(t.Context())
			if err != nil || len(all) != 1 {
				t.Fatalf("%v, %v", all, err)
			}
			want, _ := p.checked()
			if got := all[0].Policy; got.record() != want.record() {
				t.Errorf("listed: %v\nwant: %v", got.record(), want.record())
			}
			if all[0].DeniedOut < 8 || all[0].DeniedIn < 2 {
				t.Errorf("denied: %d out, %d in", all[0].DeniedOut, all[0].DeniedIn)
			}
			if err := Check(t.Context(), s.host, "", State{Networks: []Network{network0(), network1()}, Policies: []Policy{p}}); err != nil && !strings.Contains(err.Error(), "pinhole") {
				t.Error(err)
			}

			if err := s.gw.DeletePolicies(t.Context(), netip.MustParseAddr("fd88::2")); err != nil {
				t.Fatal(err)
			}
			expectReach(t, s.box, map[string]bool{"203.0.113.9:80": true, "[2001:db8:1::9]:80": true, "10.88.0.1:443": true})
			if out := testutil.Run(t, s.host, "nft", "list", "set", "inet", "boxwire", "policed"); strings.Contains(out, "elements") {
				t.Errorf("networks with policies are left: %s", out)
			}
		})
	}
}

// Under Strict, a box has no moment without a policy, on no address.
func TestAStrictNetworkClosesBoxesWithoutAPolicy(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	serve(t, s.outside, ":80")
	serve(t, s.host, ":80")
	net := network0()
	net.Strict = true
	if err := s.gw.SetNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	denied := func(to string) bool { return !reachesSoon(t, s.box, to) }
	for _, to := range []string{"203.0.113.9:80", "[2001:db8:1::9]:80", "10.88.0.1:80", "[fd88::1]:80"} {
		if !denied(to) {
			t.Errorf("%s is reached", to)
		}
	}
	p := Policy{Box: addrs("10.88.0.2"), Owner: "web", Egress: allows(t, "tcp 0.0.0.0/0 port 80")}
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectReach(t, s.box, map[string]bool{"203.0.113.9:80": true})
	if !denied("[2001:db8:1::9]:80") || !denied("10.88.0.1:80") {
		t.Error("the address without a policy reaches the outside, or the host is reached without a rule")
	}
	nets, err := s.gw.ListNetworks(t.Context())
	if err != nil || len(nets) != 1 || !nets[0].Strict {
		t.Errorf("%v, %v", nets, err)
	}
}

// reachesSoon is reaches for what is dropped without an answer: it waits until a second attempt of
// the kernel would have been answered.
func reachesSoon(t *testing.T, from *netns.NS, to string) bool {
	t.Helper()
	return probe(t, from, to, 1200*time.Millisecond) == nil
}

// Policies are a part of Sync, of Check and of the repair of a table.
func TestSyncOfPolicies(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	policies := []Policy{
		{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true, Egress: allows(t, "tcp 203.0.113.0/24 port 443"), Ingress: allows(t)},
		{Box: addrs("10.88.0.3"), Owner: "db", Ingress: allows(t, "tcp 10.88.0.2/32 port 5432", "tcp 10.0.0.0/8 except 10.1.0.0/16 port 1-1000")},
	}
	state := State{Networks: []Network{network0()}, Policies: policies}
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
		t.Errorf("without policies: %v", err)
	}
	sync(state)
	whole("synced")
	first := objects(t, s.host)
	sync(state)
	same(t, "again", objects(t, s.host), first)
	for i, damage := range []string{
		"flush map inet boxwire out4", "flush set inet boxwire egress6", "flush set inet boxwire policy4",
		"flush chain inet boxwire deny_out", "delete table inet boxwire", "flush set inet boxwire policed",
	} {
		if !testutil.Spread(i, 4) {
			continue
		}
		testutil.Run(t, s.host, "nft", damage)
		if err := Check(t.Context(), s.host, "", state); err == nil {
			t.Errorf("%s: not found", damage)
		}
		sync(state)
		whole(damage)
		same(t, damage, objects(t, s.host), first)
	}
	// Single steps make the same.
	other := newTopology(t)
	if err := other.gw.SetPolicies(t.Context(), policies...); err != nil {
		t.Fatal(err)
	}
	same(t, "SetPolicies", elementsOnly(objects(t, other.host)), elementsOnly(first))

	// A part of the owners.
	db := State{Networks: state.Networks, Owners: func(owner string) bool { return owner == "db" }}
	sync(db)
	all, err := s.gw.ListPolicies(t.Context())
	if err != nil || len(all) != 1 || all[0].Owner != "web" {
		t.Errorf("%v, %v", all, err)
	}
	taken := db
	taken.Policies = []Policy{{Box: addrs("10.88.0.2"), Owner: "db", Egress: allows(t)}}
	if err := s.gw.Sync(t.Context(), taken); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), `"web"`) {
		t.Errorf("%v", err)
	}
	sync(State{Networks: state.Networks})
	if all, err := s.gw.ListPolicies(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	lost := State{Policies: policies}
	if err := s.gw.Sync(t.Context(), lost); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("boxes without a network: %v", err)
	}
}

// elementsOnly leaves the objects that say which elements there are.
func elementsOnly(v any) map[string]any {
	sets := make(map[string]any)
	for _, o := range v.(map[string]any)["nftables"].([]any) {
		for _, kind := range []string{"set", "map"} {
			if s, ok := o.(map[string]any)[kind].(map[string]any); ok && s["elem"] != nil {
				sets[fmt.Sprint(s["name"])] = map[string]any{"elem": s["elem"]}
			}
		}
	}
	return sets
}

// The policies of a network's boxes go with it, and with the subnet that they are in.
func TestPoliciesGoWithTheirNetwork(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Egress: allows(t, "tcp host port 1")}
	set := func() {
		t.Helper()
		if err := s.gw.SetPolicies(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	set()
	if err := s.gw.Grant(t.Context(), p.Box[0], time.Hour, allows(t, "tcp 203.0.113.9 port 80").Allow...); err != nil {
		t.Fatal(err)
	}
	only4 := network0()
	only4.Subnets = only4.Subnets[:1]
	if err := s.gw.SetNetwork(t.Context(), only4); err != nil {
		t.Fatal(err)
	}
	there := elementsOnly(objects(t, s.host))
	for _, set := range []string{"egress6", "out6", "policy6", "host6"} {
		if there[set] != nil {
			t.Errorf("%s has elements: %v", set, there[set])
		}
	}
	if err := s.gw.SetNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	set()
	if err := s.gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	there = elementsOnly(objects(t, s.host))
	for _, set := range append(policySetNames(), "policed", "policed_addrs") {
		if there[set] != nil {
			t.Errorf("%s has elements: %v", set, there[set])
		}
	}
	if err := s.gw.SetPolicies(t.Context(), p); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "in no network's subnet") {
		t.Error(err)
	}
}

// A grant opens a way for its time, to a box with a policy.
func TestAGrantLastsForItsTime(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	serve(t, s.outside, ":80")
	box := netip.MustParseAddr("10.88.0.2")
	web := allows(t, "tcp 203.0.113.9 port 80").Allow
	if err := s.gw.Grant(t.Context(), box, time.Hour, web...); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a policy: %v", err)
	}
	p := Policy{Box: []netip.Addr{box}, Owner: "web", Refuse: true, Egress: allows(t)}
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectReach(t, s.box, map[string]bool{"203.0.113.9:80": false})
	for range 2 { // the second lasts longer
		if err := s.gw.Grant(t.Context(), box, time.Hour, web...); err != nil {
			t.Fatal(err)
		}
	}
	expectReach(t, s.box, map[string]bool{"203.0.113.9:80": true})
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectReach(t, s.box, map[string]bool{"203.0.113.9:80": true})
	if err := s.gw.DeletePolicies(t.Context(), box); err != nil {
		t.Fatal(err)
	}
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	expectReach(t, s.box, map[string]bool{"203.0.113.9:80": false}) // another box may have the address now
	if err := s.gw.Grant(t.Context(), box, time.Second, web...); err != nil {
		t.Fatal(err)
	}
	if !until(func() bool { return !reaches(t, s.box, "203.0.113.9:80") }) {
		t.Error("a grant of a second does not end")
	}
	for says, c := range map[string]struct {
		box      string
		lifetime time.Duration
		rule     Rule
	}{
		"the lifetime 0s":          {"10.88.0.2", 0, web[0]},
		"the lifetime -1s":         {"10.88.0.2", -time.Second, web[0]},
		"the lifetime 1000h0m0s":   {"10.88.0.2", 1000 * time.Hour, web[0]},
		"the rule is empty":        {"10.88.0.2", time.Hour, Rule{}},
		"a single address":         {"10.88.0.2", time.Hour, allows(t, "tcp 203.0.113.0/24 port 80").Allow[0]},
		"different families":       {"fd88::2", time.Hour, web[0]},
		"for one port or for all":  {"10.88.0.2", time.Hour, allows(t, "tcp 203.0.113.9 port 80-90").Allow[0]},
		"neither Host nor Except":  {"10.88.0.2", time.Hour, allows(t, "tcp host port 80").Allow[0]},
		"address 0 of the box is ": {"", time.Hour, web[0]},
	} {
		a, _ := netip.ParseAddr(c.box)
		if err := s.gw.Grant(t.Context(), a, c.lifetime, c.rule); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// What a tighter policy forbids ends, and nothing else does.
func TestATighterPolicyEndsWhatItForbids(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web"}
	p.Egress = allows(t, "udp 203.0.113.0/24", "udp 2001:db8:1::/64", "udp host port 53")
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	flows := map[string]*netns.NS{"203.0.113.9:1": s.outside, "203.0.113.9:2": s.outside, "[2001:db8:1::9]:1": s.outside, "[2001:db8:1::9]:2": s.outside, "10.88.0.1:53": s.host}
	tracked := func() map[string]bool {
		t.Helper()
		all, err := s.gw.ListFlows(t.Context(), p.Box[0])
		if err != nil {
			t.Fatal(err)
		}
		six, err := s.gw.ListFlows(t.Context(), p.Box[1])
		if err != nil {
			t.Fatal(err)
		}
		there := make(map[string]bool)
		for _, f := range append(all, six...) {
			there[f.Original.Dst.String()] = true
		}
		return there
	}
	for to := range flows {
		c, err := s.box.Dial(t.Context(), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "x")
	}
	want := map[string]bool{}
	for to := range flows {
		want[to] = true
	}
	if !until(func() bool { return reflect.DeepEqual(tracked(), want) }) {
		t.Fatalf("tracked: %v", tracked())
	}
	p.Egress = allows(t, "udp 203.0.113.0/24 port 1", "udp 2001:db8:1::/64 port 2")
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got, want := tracked(), (map[string]bool{"203.0.113.9:1": true, "[2001:db8:1::9]:2": true}); !reflect.DeepEqual(got, want) {
		t.Errorf("tracked after tightening: %v, want %v", got, want)
	}
	state := State{Networks: []Network{network0()}}
	state.Policies = []Policy{{Box: p.Box, Owner: "web", Egress: allows(t, "udp 203.0.113.0/24 port 1")}}
	if err := s.gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	if got, want := tracked(), (map[string]bool{"203.0.113.9:1": true}); !reflect.DeepEqual(got, want) {
		t.Errorf("tracked after Sync: %v, want %v", got, want)
	}
}

// probe connects within a time, without an answer of the server.
func probe(t *testing.T, from *netns.NS, to string, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to)
	if err == nil {
		c.Close()
	}
	return err
}

// elements are those of a set or map, as nft lists them.
func elements(t *testing.T, ns *netns.NS, set string) []any {
	t.Helper()
	s, ok := elementsOnly(objects(t, ns))[set].(map[string]any)
	if !ok {
		return nil
	}
	return s["elem"].([]any)
}
