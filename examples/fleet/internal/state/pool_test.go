package state

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

func TestNthCountsThroughAllPools(t *testing.T) {
	t.Parallel()
	c := Config{Pools: prefixes("10.0.0.0/22", "fd00::/62", "10.9.0.0/23", "10.7.7.0/24"), Size4: 24, Size6: 64}
	if got := c.Capacity(netns.IPv4); got != 7 {
		t.Errorf("capacity %d: want 7", got)
	}
	want := prefixes("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24", "10.9.0.0/24", "10.9.1.0/24", "10.7.7.0/24")
	for i, p := range want {
		if got := c.Nth(netns.IPv4, uint64(i)); got != p {
			t.Errorf("number %d is %v: want %v", i, got, p)
		}
		if !c.Contains(p) {
			t.Errorf("%v is not one of the fleet's", p)
		}
	}
	if got := c.Nth(netns.IPv4, 7); got.IsValid() {
		t.Errorf("number 7 is %v: there are 7", got)
	}
	if got := c.Nth(netns.IPv6, 3); got != netip.MustParsePrefix("fd00:0:0:3::/64") {
		t.Errorf("number 3 of IPv6 is %v", got)
	}
}

func TestNthAcrossBytes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pool string
		size int
		n    uint64
		want string
	}{
		{"10.0.0.0/8", 24, 0x1234, "10.18.52.0/24"},
		{"10.128.0.0/9", 27, 0x3ffff, "10.255.255.224/27"},
		{"fd00::/48", 64, 0xabcd, "fd00:0:0:abcd::/64"},
		{"fd00::/47", 79, 0xffffffff, "fd00:0:1:ffff:fffe::/79"},
		{"fd00:0:0:8000::/49", 60, 1, "fd00:0:0:8010::/60"},
	} {
		c := Config{Pools: prefixes(test.pool), Size4: test.size, Size6: test.size}
		f := netns.IPv6
		if c.Pools[0].Addr().Is4() {
			f = netns.IPv4
		}
		if got := c.Nth(f, test.n); got != netip.MustParsePrefix(test.want) {
			t.Errorf("number %d of %s is %v: want %s", test.n, test.pool, got, test.want)
		}
		if got := c.Nth(f, c.Capacity(f)-1); !c.Contains(got) {
			t.Errorf("the last of %s is %v", test.pool, got)
		}
	}
}

func TestChoicesAreAllPrefixesOnce(t *testing.T) {
	t.Parallel()
	for _, pools := range [][]string{{"10.0.0.0/24"}, {"10.0.0.0/23"}, {"10.0.0.0/22", "10.9.0.0/23", "10.7.7.0/24"}, {"10.0.0.0/16"}, {"10.0.0.0/18", "10.1.0.0/17", "10.2.0.0/24"}} {
		c := Config{Pools: prefixes(pools...), Size4: 24}
		for range 20 {
			id, seen := NewID(), map[netip.Prefix]bool{}
			for p := range c.Choices(id, netns.IPv4) {
				if seen[p] || !c.Contains(p) {
					t.Fatalf("%v of node %v: %v comes twice, or is not of the pools", pools, id, p)
				}
				seen[p] = true
			}
			if n := c.Capacity(netns.IPv4); uint64(len(seen)) != n {
				t.Fatalf("%v of node %v: %d choices, want %d", pools, id, len(seen), n)
			}
		}
	}
	for p := range (Config{Size4: 24}).Choices(NewID(), netns.IPv4) {
		t.Errorf("a fleet without pools has %v", p)
	}
}

func TestChoicesDependOnTheIDAlone(t *testing.T) {
	t.Parallel()
	c := Config{Pools: prefixes("10.0.0.0/16"), Size4: 24}
	first := func(id ID, n int) []netip.Prefix {
		var list []netip.Prefix
		for p := range c.Choices(id, netns.IPv4) {
			if list = append(list, p); len(list) == n {
				break
			}
		}
		return list
	}
	var id ID
	binary.BigEndian.PutUint64(id[:], 256+77)
	binary.BigEndian.PutUint64(id[8:], 3)
	want := prefixes("10.0.77.0/24", "10.0.80.0/24", "10.0.83.0/24")
	for range 2 {
		for i, got := range first(id, 3) {
			if got != want[i] {
				t.Errorf("choice %d is %v: want %v", i, got, want[i])
			}
		}
	}
	// One that begins at the same prefix goes on elsewhere.
	id[15] = 9
	if got := first(id, 2); got[0] != want[0] || got[1] == want[1] {
		t.Errorf("choices %v", got)
	}
}

func TestContains(t *testing.T) {
	t.Parallel()
	c := Config{Pools: prefixes("10.0.0.0/16", "fd00::/48"), Size4: 24, Size6: 64}
	for text, want := range map[string]bool{
		"10.0.7.0/24": true, "fd00:0:0:7::/64": true,
		"10.0.7.0/25": false, "10.0.0.0/16": false, "10.1.7.0/24": false, "fd00:0:1:7::/64": false, "fd00::/48": false, "10.0.7.1/24": false,
	} {
		if got := c.Contains(netip.MustParsePrefix(text)); got != want {
			t.Errorf("contains %s: %v", text, got)
		}
	}
	if c.Contains(netip.Prefix{}) {
		t.Error("contains no prefix")
	}
}

func TestGateway(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"10.100.7.0/24": "10.100.7.1", "fd99:0:0:7::/64": "fd99:0:0:7::1"} {
		if got := Gateway(netip.MustParsePrefix(text)); got.String() != want {
			t.Errorf("gateway of %s is %v: want %s", text, got, want)
		}
	}
}
