package nat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// recordedLinks are the links that the table records, by set, as nft lists them.
func recordedLinks(t *testing.T, ns *netns.NS) (text string) {
	t.Helper()
	for _, set := range []string{"flipped4", "flipped6", "bridged", "localnet"} {
		text += testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set)
	}
	return text
}

// Networks that come and go under new names leave no record of their links, by
// whichever verb they are changed.
func TestRecordsOfLinksGoWithThem(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	stay := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}
	verbs := map[string]func(t *testing.T, gw *NAT) error{
		"SetNetwork": func(t *testing.T, gw *NAT) error { return gw.SetNetwork(t.Context(), stay) },
		"AddNetwork": func(t *testing.T, gw *NAT) error {
			return gw.AddNetwork(t.Context(), Network{Interface: "br9", Subnets: prefixes("10.99.0.0/16", "fd99::/64")})
		},
		"DeleteNetwork": func(t *testing.T, gw *NAT) error { return gw.DeleteNetwork(t.Context(), "spare0") },
		"Sync":          func(t *testing.T, gw *NAT) error { return gw.Sync(t.Context(), State{Networks: []Network{stay}}) },
		"Sync of a part": func(t *testing.T, gw *NAT) error {
			return gw.Sync(t.Context(), State{Owners: func(string) bool { return false }})
		},
		"Maintain": func(t *testing.T, gw *NAT) error {
			maintain(t, newMaintainer(gw, always(State{Networks: []Network{stay}})))
			return nil
		},
	}
	for i, verb := range slices.Sorted(maps.Keys(verbs)) {
		if !testutil.Spread(i, 3) {
			continue
		}
		change := verbs[verb]
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			ns := host(t)
			gw := open(t, ns)
			if err := gw.AddNetwork(t.Context(), stay); err != nil {
				t.Fatal(err)
			}
			before := recordedLinks(t, ns)
			if err := gw.AddNetwork(t.Context(), Network{Interface: "spare0", Subnets: prefixes("10.98.0.0/16")}); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				name := fmt.Sprintf("box%d", i)
				testutil.Run(t, ns, "ip", "link", "add", name, "type", "bridge")
				net := Network{Interface: name, Subnets: prefixes(fmt.Sprintf("10.%d.0.0/16", 100+i), fmt.Sprintf("fd00:%d::/64", i))}
				if err := gw.AddNetwork(t.Context(), net); err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(recordedLinks(t, ns), name) {
					t.Fatalf("%s is not recorded", name)
				}
				if err := gw.DeleteNetwork(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				testutil.Run(t, ns, "ip", "link", "del", name)
			}
			if err := change(t, gw); err != nil {
				t.Fatal(err)
			}
			if after := recordedLinks(t, ns); after != before {
				t.Errorf("recorded are\n%s\nwant\n%s", after, before)
			}
		})
	}
}

// A link of another program that has the name of one that is gone is not taken for it.
func TestALaterLinkOfTheSameNameIsAnother(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	ip(t, ns, "link add br0 type bridge\nlink add wan0 type veth peer name wan0p")
	all := maintain(t, newMaintainer(gw, always(State{Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}}})))
	if !strings.Contains(recordedLinks(t, ns), "wan0") {
		t.Fatal("wan0 is not recorded")
	}
	testutil.Run(t, ns, "ip", "link", "del", "wan0")
	if !until(func() bool { return !strings.Contains(recordedLinks(t, ns), "wan0") }) {
		t.Error("wan0 stays recorded")
	}
	if len(all) > 0 {
		t.Errorf("%v is reported", <-all)
	}
	// The administrator's link forwards by itself.
	setSysctl(t, ns, "ipv4/conf/default/forwarding", "1")
	testutil.Run(t, ns, "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan0p")
	if err := gw.SetNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(recordedLinks(t, ns), "wan0") {
		t.Errorf("recorded are %s", recordedLinks(t, ns))
	}
}

func elementOf(link string) nft.Element { return nft.Element{Key: ifname(link)} }

// The pure part: what is set back when.
func TestWhatNoNetworkNeeds(t *testing.T) {
	t.Parallel()
	items := append(
		Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}.items(),
		item{"localnet", elementOf("br0")}, item{"localnet", elementOf("br1")}, item{"flipped4", elementOf("up0")}, item{"flipped6", elementOf("up0")},
	)
	if got := recordsOf(items).unneeded().items; len(got) != 1 || got[0].network() != "br1" {
		t.Errorf("beside a network: %v", got)
	}
	if got := recordsOf(items[len(items)-4:]).unneeded().items; len(got) != 4 {
		t.Errorf("without one: %v", got)
	}
}

// What a link was before is known when the table was removed, too: also of a link that came after Sync.
func TestRecordsOutliveTheRuleset(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, look := range map[string]func(gw *NAT) error{
		"SetNetwork": func(gw *NAT) error { return gw.SetNetwork(t.Context(), network0()) },
		"Maintain":   func(gw *NAT) error { _, err := gw.forwardLinks(t.Context(), []Network{network0()}, false); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := host(t)
			gw := open(t, ns)
			state := State{Networks: []Network{network0()}}
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			testutil.Run(t, ns, "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
			testutil.Run(t, ns, "ip", "link", "del", "up0")
			if err := look(gw); err != nil {
				t.Fatal(err)
			}
			before := recordedLinks(t, ns)
			testutil.Run(t, ns, "nft", "flush", "ruleset")
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			if after := recordedLinks(t, ns); sortedWords(after) != sortedWords(before) {
				t.Errorf("the records were\n%s\nand are\n%s", before, after)
			}
		})
	}
}

// So are those that another table has handed over to one that is maintained.
func TestRecordsOfAnotherTableOutliveTheRuleset(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	first, second := openWith(t, another(t, ns), Options{Name: "first"}), open(t, ns)
	if err := first.AddNetwork(t.Context(), network1()); err != nil {
		t.Fatal(err)
	}
	repairs := maintain(t, newMaintainer(second, always(State{Networks: []Network{network0()}})))
	if err := first.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	known := func() bool {
		return slices.ContainsFunc(second.forgotten(nil), func(it item) bool { return it.set == "flipped4" && it.network() == "up0" })
	}
	if !until(known) {
		t.Fatal("Maintain does not know of the records")
	}
	before := recordedLinks(t, ns)
	testutil.Run(t, ns, "nft", "flush", "ruleset")
	for next(t, repairs).Reason != ReasonTableRemoved {
	}
	if after := recordedLinks(t, ns); sortedWords(after) != sortedWords(before) {
		t.Errorf("the records were\n%s\nand are\n%s", before, after)
	}
}
