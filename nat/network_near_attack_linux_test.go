package nat

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Whatever the length of a subnet, and whatever it was before, a box sends to the host from its addresses,
// and from none beside them: the sets of near prefixes say no more than the subnets.
func TestSourcesBesideASubnetAreDroppedAtEveryLength(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	s.gw = open(t, s.host)
	gate, box := macOf(t, s.host, "br0"), newWireEnd(t, s.box, "eth0")
	heard := map[bool]*receiver{false: listen(t, s.host, "203.0.113.1:9"), true: listen(t, s.host, "[2001:db8:1::1]:9")}
	setSysctl(t, s.host, "ipv4/conf/all/rp_filter", "0")
	setSysctl(t, s.host, "ipv4/conf/br0/rp_filter", "0")
	for i, n := range []Network{
		{Subnets: prefixes("10.88.0.0/16", "fd88::/64")},
		{Subnets: prefixes("10.88.0.0/15", "fd88::/63")},
		{Subnets: prefixes("10.88.0.0/12", "fd88::/60")},
		{Subnets: prefixes("10.88.0.0/11", "fd88::/59")},
		{Subnets: prefixes("10.88.0.0/17", "fd88::/65")},
		{Subnets: prefixes("10.88.0.0/20", "fd88::/48")},
		{Subnets: prefixes("10.88.0.0/24", "fd88::/64")},
		{Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Trusted: prefixes("10.88.7.0/24", "fd88::7:0/112")},
		{Subnets: prefixes("10.88.0.0/24", "fd88::/64"), Trusted: prefixes("10.88.0.128/25", "fd88::8000:0:0:0/65")},
		{Subnets: prefixes("10.88.0.0/25", "10.88.1.0/24", "fd88::/128", "fd88:0:0:1::/64")},
	} {
		n.Interface = "br0"
		set := s.gw.SetNetwork
		if i%2 == 1 {
			set = func(ctx context.Context, n Network) error { return s.gw.Sync(ctx, State{Networks: []Network{n}}) }
		}
		if err := set(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		var false_ []string
		for _, p := range n.Subnets {
			r := rangeOf(p)
			to := netip.MustParseAddrPort("203.0.113.1:9")
			if r.first.Is6() {
				to = netip.MustParseAddrPort("[2001:db8:1::1]:9")
			}
			addrs := []netip.Addr{r.first.Prev(), r.first, r.last, r.last.Next()}
			for _, q := range n.Trusted {
				if q.Addr().Is4() == r.first.Is4() {
					in := rangeOf(q)
					addrs = append(addrs, in.first.Prev(), in.first, in.last, in.last.Next())
				}
			}
			for _, a := range addrs {
				own := false
				for _, o := range n.Subnets {
					own = own || o.Contains(a)
				}
				for _, q := range n.Trusted {
					own = own && !q.Contains(a)
				}
				text := fmt.Sprintf("%d: from %v", i, a)
				send := func() { box.send(t, gate, netip.AddrPortFrom(a, 1000), to, text) }
				if !own {
					send()
					false_ = append(false_, text)
				} else if !until(func() bool { send(); return heard[a.Is6()].has(text) }) {
					t.Errorf("%v: nothing arrives from %v", n.Subnets, a)
				}
			}
		}
		for _, text := range false_ {
			if heard[false].has(text) || heard[true].has(text) {
				t.Errorf("%v without %v: arrives %s", n.Subnets, n.Trusted, text)
			}
		}
	}
}
