package nat

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// What cannot be is refused by name, by SetPolicies and Sync alike, and leaves the table as it was.
func TestBadPoliciesAreRefusedByName(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	if err := gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	box := addrs("10.88.0.2")
	many := make([]Rule, 100_000)
	for i := range many {
		many[i] = Rule{Peer: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}
	}
	excepts, wide := make([]netip.Prefix, 100_000), make([]netip.Addr, 100_000)
	for i, r := range many {
		excepts[i], wide[i] = r.Peer, r.Peer.Addr()
	}
	egress := func(rules ...Rule) []Policy { return []Policy{{Box: box, Owner: "web", Egress: &Rules{Allow: rules}}} }
	peer := netip.MustParsePrefix
	before := listing(t, ns)
	for says, policies := range map[string][]Policy{
		"the policy has more than 4096 rules":                   egress(many...),
		"4096 rules and exceptions":                             egress(Rule{Peer: netip.MustParsePrefix("192.0.0.0/8"), Except: excepts}),
		"the box has more than 1024 addresses":                  {{Box: wide, Owner: "web", Egress: &Rules{}}},
		"is of the family of 2001:db8::/32":                     egress(Rule{Peer: peer("2001:db8::/32")}),
		"rule 0 of Egress: the rule is empty":                   egress(Rule{}),
		"port 80 needs a protocol":                              egress(Rule{Peer: peer("192.0.2.0/24"), Port: 80}),
		"the exceptions 192.0.2.0/25 and 192.0.2.64/26 overlap": egress(Rule{Peer: peer("192.0.2.0/24"), Except: prefixes("192.0.2.0/25", "192.0.2.64/26")}),
		"the address 10.99.0.2 is in no network's subnet":       {{Box: addrs("10.99.0.2"), Owner: "web", Egress: &Rules{}}},
		"name the address 10.88.0.2":                            append(egress(), egress()...),
		"the box has the address 10.88.0.2 twice":               {{Box: addrs("10.88.0.2", "10.88.0.2"), Owner: "web", Egress: &Rules{}}},
		"has host bits: 192.0.2.0/24 is the prefix":             egress(Rule{Peer: netip.MustParsePrefix("192.0.2.1/24")}),
		"limits neither Egress nor Ingress":                     {{Box: box, Owner: "web"}},
	} {
		for verb, err := range map[string]error{
			"SetPolicies": gw.SetPolicies(t.Context(), policies...),
			"Sync":        gw.Sync(t.Context(), State{Networks: []Network{network0()}, Policies: policies}),
		} {
			if !errors.Is(err, os.ErrInvalid) && !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", verb, err, says)
			}
		}
	}
	if now := listing(t, ns); now != before {
		t.Errorf("the table is now %s", now)
	}
	var r Rule
	if err := r.UnmarshalText([]byte("tcp example.org port 443")); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "example.org") {
		t.Errorf("a name in place of a prefix: %v", err)
	}
}
