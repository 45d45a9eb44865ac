package nat

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestCheckNoticesDamageAndRepairsNothing(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	state := State{
		Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true}},
		Ports: []Port{
			{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Box: netip.MustParseAddrPort("10.88.0.2:80"), Owner: "web"},
			{Proto: UDP, Host: netip.MustParseAddrPort("[::]:100"), HostLast: 200, Box: netip.MustParseAddrPort("[fd88::2]:100"), Owner: "web"},
		},
	}
	for turn, test := range []struct {
		name, nft string
		is        error
		says      string
	}{
		{"nothing", "", nil, ""},
		{"another port", "add element inet boxwire any4 { tcp . 81 : 10.88.0.2 . 81 }", nil, ""},
		{"a foreign table", "add table inet other", nil, ""},
		{"the table", "delete table inet boxwire", os.ErrNotExist, ""},
		{"the ruleset", "flush ruleset", os.ErrNotExist, ""},
		{"the rules of a chain", "flush chain inet boxwire forward", ErrDamaged, "rules"},
		{"another rule", "insert rule inet boxwire forward accept", ErrDamaged, "rules"},
		{"another chain", "add chain inet boxwire mine", ErrDamaged, "rules"},
		{"asleep", "add table inet boxwire { flags dormant; }", ErrDamaged, "rules"},
		{"an older version", `delete table inet boxwire; add table inet boxwire { comment "boxwire skeleton 1"; }`, ErrDamaged, "older"},
		{"a newer version", `delete table inet boxwire; add table inet boxwire { comment "boxwire skeleton 99"; }`, os.ErrExist, "newer"},
		{"not ours", "delete table inet boxwire; add table inet boxwire", os.ErrExist, "not ours"},
		{"the port", "delete element inet boxwire any4 { tcp . 80 }", ErrDamaged, "port tcp 0.0.0.0:80"},
		{"the ports", "flush map inet boxwire rng6", ErrDamaged, "port udp [::]:100-200"},
		{"where the port leads", "delete element inet boxwire any4 { tcp . 80 }; add element inet boxwire any4 { tcp . 80 : 10.88.0.3 . 80 }", ErrDamaged, "another element"},
		{"the network", "delete element inet boxwire ifs { br0 }", ErrDamaged, "network br0"},
		{"what closes it", "delete element inet boxwire closed { br0 }", ErrDamaged, "network br0"},
		{"a family's masquerade", "delete element inet boxwire masq4 { br0 }", ErrDamaged, "masq4"},
		{"a subnet", "flush set inet boxwire same6", ErrDamaged, "same6"},
		{"the way inside", "flush map inet boxwire pair", ErrDamaged, "pair"},
	} {
		if !testutil.Spread(turn, 3) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ns := host(t)
			gw := openWith(t, ns, Options{NoReserve: true})
			if err := gw.Sync(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			if test.nft != "" {
				testutil.Run(t, ns, "nft", strings.Fields(test.nft)...)
			}
			before := testutil.Run(t, ns, "nft", "list", "ruleset")
			err := Check(t.Context(), ns, "", state)
			if !errors.Is(err, test.is) || test.says != "" && !strings.Contains(err.Error(), test.says) {
				t.Errorf("Check: %v, want %v and %q", err, test.is, test.says)
			}
			if after := testutil.Run(t, ns, "nft", "list", "ruleset"); after != before {
				t.Errorf("the rules were\n%s\nand are\n%s", before, after)
			}
		})
	}
}

func TestCheckRefusesBadInput(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	if err := Check(t.Context(), ns, "a b", State{}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a bad name: %v", err)
	}
	if err := Check(t.Context(), ns, "", State{Networks: []Network{{}}}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a network without an interface: %v", err)
	}
	ns.Close()
	if err := Check(t.Context(), ns, "", State{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed namespace: %v", err)
	}
}
