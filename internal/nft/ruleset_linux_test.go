package nft

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestRulesetsOfOthersAreRead(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "nft", `
		table ip filter {
			chain FORWARD { type filter hook forward priority 5; policy drop; ip saddr 10.0.0.0/8 counter accept comment "ours"; jump other; }
			chain other { drop; };
		}
		table inet nat { chain pre { type nat hook prerouting priority -100; tcp dport { 80-90 } dnat ip to 10.0.0.1; }; }`)
	c := conn(t, ns)
	chains, err := c.Chains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []HookedChain{
		{Place{unix.NFPROTO_INET, "nat", "pre"}, "nat", unix.NF_INET_PRE_ROUTING, -100, false},
		{Place{unix.NFPROTO_IPV4, "filter", "FORWARD"}, "filter", unix.NF_INET_FORWARD, 5, true},
		{Place{unix.NFPROTO_IPV4, "filter", "other"}, "", 0, 0, false},
	}
	slices.SortFunc(chains, func(a, b HookedChain) int { return int(a.Family)*10 - int(b.Family)*10 + len(b.Chain) - len(a.Chain) })
	if !slices.Equal(chains, want) {
		t.Errorf("%+v\nwant %+v", chains, want)
	}
	rules, err := c.rules(t.Context(), anyFamily())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range rules {
		line := r.Comment + ":"
		for _, e := range r.Exprs {
			line += " " + e.Name
		}
		got[fmt.Sprintf("%s %s %d", r.Table, r.Chain, len(got))] = line
		if r.Handle == 0 {
			t.Errorf("%+v has no handle", r.Place)
		}
	}
	if len(got) != 4 || !slices.Contains(slices.Collect(maps.Values(got)), "ours: payload cmp counter immediate") {
		t.Errorf("%q", got)
	}
	if ours, err := c.RulesOf(t.Context(), "nat"); len(ours) != 1 || err != nil {
		t.Errorf("%v, %v", ours, err)
	}
}

func FuzzDecodeRule(f *testing.F) {
	m := nl.AppendString([]byte{2, 0, 0, 0}, unix.NFTA_RULE_CHAIN, "FORWARD")
	m, list := nl.Begin(m, unix.NFTA_RULE_EXPRESSIONS)
	m, e := nl.Begin(m, unix.NFTA_LIST_ELEM)
	m = nl.AppendString(m, unix.NFTA_EXPR_NAME, "counter")
	nl.End(m, e)
	nl.End(m, list)
	f.Add(m)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeRule(b)
		_, _ = decodeChain(b)
	})
}
