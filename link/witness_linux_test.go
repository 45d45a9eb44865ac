package link

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// ipLink is a link as ip(8) prints it: what the tests believe rather than the
// code under test.
type ipLink struct {
	Index     int      `json:"ifindex"`
	Name      string   `json:"ifname"`
	Flags     []string `json:"flags"`
	MTU       int      `json:"mtu"`
	OperState string   `json:"operstate"`
	Master    string   `json:"master"`
	MAC       string   `json:"address"`
	Link      string   `json:"link"`
	LinkIndex int      `json:"link_index"`
	Info      struct {
		Kind      string `json:"info_kind"`
		SlaveKind string `json:"info_slave_kind"`
	} `json:"linkinfo"`
	Addrs []ipAddr `json:"addr_info"`
}

type ipAddr struct {
	Family    string `json:"family"`
	Local     string `json:"local"`
	Bits      int    `json:"prefixlen"`
	Broadcast string `json:"broadcast"`
	Scope     string `json:"scope"`
	Tentative bool   `json:"tentative"`
	NoDAD     bool   `json:"nodad"`
}

func (l ipLink) up() bool {
	for _, f := range l.Flags {
		if f == "UP" {
			return true
		}
	}
	return false
}

// addrs returns the addresses of global or host scope: the kernel's own link-local ones are
// left out.
func (l ipLink) addrs() (ps []netip.Prefix) {
	for _, a := range l.Addrs {
		if a.Scope != "link" {
			ps = append(ps, netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Bits))
		}
	}
	return ps
}

// ipLinks reads every link of ns, by name, with addresses.
func ipLinks(t testing.TB, ns *netns.NS) map[string]ipLink {
	t.Helper()
	testutil.Witness(t, "ip")
	var list []ipLink
	if err := json.Unmarshal([]byte(testutil.Run(t, ns, "ip", "-d", "-j", "address", "show")), &list); err != nil {
		t.Fatalf("reading ip's output: %v", err)
	}
	links := make(map[string]ipLink, len(list))
	for _, l := range list {
		links[l.Name] = l
	}
	return links
}

// onlyLo fails the test when ns has a link besides lo.
func onlyLo(t testing.TB, spaces ...*netns.NS) {
	t.Helper()
	for _, ns := range spaces {
		links, err := List(context.Background(), ns, Filter{})
		if err != nil {
			t.Errorf("listing %s: %v", ns, err)
		}
		for _, l := range links {
			if l.Name != "lo" {
				t.Errorf("link %s is left in %s", l, ns)
			}
		}
	}
}

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func mustCreate(t testing.TB, ns *netns.NS, s Spec) Link {
	t.Helper()
	l, err := Create(context.Background(), ns, s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
