package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/xtables"
)

func TestOtherPortsAreTheRest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want []xtables.Range }{
		{nil, []xtables.Range{{First: 0, Last: 65535}}},
		{[]xtables.Range{{First: 0, Last: 65535}}, nil},
		{[]xtables.Range{{First: 80, Last: 90}, {First: 22, Last: 22}, {First: 85, Last: 100}}, []xtables.Range{{First: 0, Last: 21}, {First: 23, Last: 79}, {First: 101, Last: 65535}}},
		{[]xtables.Range{{First: 100, Last: 65535}}, []xtables.Range{{First: 0, Last: 99}}},
	} {
		if got := otherPorts(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

func TestRangesOfAddressesAreFewPrefixes(t *testing.T) {
	t.Parallel()
	for in, want := range map[[2]string]string{
		{"10.0.0.1", "10.0.0.1"}:               "[10.0.0.1/32]",
		{"10.0.0.0", "10.0.0.255"}:             "[10.0.0.0/24]",
		{"10.0.0.1", "10.0.0.8"}:               "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/30 10.0.0.8/32]",
		{"0.0.0.0", "255.255.255.255"}:         "[0.0.0.0/0]",
		{"224.0.0.0", "255.255.255.255"}:       "[224.0.0.0/3]",
		{"255.255.255.254", "255.255.255.255"}: "[255.255.255.254/31]",
	} {
		s := space{addrs: []addrRange{{netip.MustParseAddr(in[0]), netip.MustParseAddr(in[1])}}}
		if got := fmt.Sprint(s.prefixes(false)); got != want {
			t.Errorf("%v: %v, want %v", in, got, want)
		}
	}
	s := space{addrs: []addrRange{{netip.MustParseAddr("fd00::"), netip.MustParseAddr("fd00::ffff")}}}
	if got := fmt.Sprint(s.prefixes(true), s.prefixes(false)); got != "[fd00::/112] []" {
		t.Error(got)
	}
}
