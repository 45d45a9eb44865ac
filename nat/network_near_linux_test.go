package nat

import (
	"fmt"
	"net/netip"
	"testing"
)

// An element of a near set stands for addresses of its network, and for no others.
func TestNearItemsAreTheirRange(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		subnet string
		want   []string
	}{
		{"10.88.0.0/16", []string{"wide4 10.88.0.0"}},
		{"10.88.0.0/15", []string{"wide4 10.88.0.0", "wide4 10.89.0.0"}},
		{"10.0.0.0/8", nil},
		{"10.88.0.0/17", nil},
		{"10.88.7.0/24", []string{"near4 10.88.7.0"}},
		{"10.88.254.0/23", []string{"near4 10.88.254.0", "near4 10.88.255.0"}},
		{"255.255.255.0/24", []string{"near4 255.255.255.0"}},
		{"10.88.7.128/25", nil},
		{"10.88.7.1/32", nil},
		{"fd88::/64", []string{"near6 fd88::"}},
		{"fd88:0:0:fffe::/63", []string{"near6 fd88:0:0:fffe::", "near6 fd88:0:0:ffff::"}},
		{"fd88::/48", nil},
		{"fd88::/80", nil},
	} {
		p := netip.MustParsePrefix(x.subnet)
		var got []string
		for _, it := range nearItems(rangeOf(p), ifname("br0")) {
			n := p.Addr().BitLen() / 8
			a, _ := netip.AddrFromSlice(it.elem.Key[:n])
			got = append(got, fmt.Sprint(it.set, " ", a))
			if name := nameOf(it.elem.Key[n:]); name != "br0" || it.network() != "br0" {
				t.Errorf("%s: the key has %q", x.subnet, name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(x.want) {
			t.Errorf("%s: %v, want %v", x.subnet, got, x.want)
		}
	}
	for _, r := range []string{"10.88.0.0 10.88.6.255", "10.88.8.0 10.88.255.255", "10.88.0.1 10.88.0.1"} {
		var first, last string
		fmt.Sscan(r, &first, &last)
		if got := nearItems(addrRange{netip.MustParseAddr(first), netip.MustParseAddr(last)}, ifname("br0")); got != nil {
			t.Errorf("%s: %v", r, got)
		}
	}
}
