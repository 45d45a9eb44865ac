package nat

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestTheRestOfASubnet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		subnet, trusted string // a list of one, and of any
		want            []string
	}{
		{"10.0.0.0/8", "", []string{"10.0.0.0-10.255.255.255"}},
		{"10.0.0.0/8", "0.0.0.0/0", []string{"10.0.0.0-10.255.255.255"}},
		{"10.0.0.0/8", "8.0.0.0/5", []string{"10.0.0.0-10.255.255.255"}},
		{"10.0.0.0/8", "10.0.0.0/9", []string{"10.128.0.0-10.255.255.255"}},
		{"10.0.0.0/8", "10.128.0.0/9", []string{"10.0.0.0-10.127.255.255"}},
		{"10.0.0.0/8", "9.0.0.0/8 10.1.0.0/16 10.2.0.0/16 10.4.0.0/32 10.255.0.0/16 11.0.0.0/8 fd88::/16",
			[]string{"10.0.0.0-10.0.255.255", "10.3.0.0-10.3.255.255", "10.4.0.1-10.254.255.255"}},
		{"10.0.0.0/30", "10.0.0.1/32 10.0.0.2/32", []string{"10.0.0.0-10.0.0.0", "10.0.0.3-10.0.0.3"}},
		{"10.0.0.0/30", "10.0.0.0/31 10.0.0.2/31", nil},
		{"255.255.255.254/31", "255.255.255.255/32", []string{"255.255.255.254-255.255.255.254"}},
		{"fd88::/64", "fd88::/128 fd88::ffff:ffff:ffff:ffff/128", []string{"fd88::1-fd88::ffff:ffff:ffff:fffe"}},
	} {
		n := Network{Subnets: prefixes(c.subnet), Trusted: list(c.trusted)}
		var got []string
		for _, r := range n.ranges() {
			got = append(got, r.first.String()+"-"+r.last.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s without %s: %v, want %v", c.subnet, c.trusted, got, c.want)
		}
	}
}

// list is the sorted prefixes of a list with spaces between.
func list(s string) (all []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		all = append(all, netip.MustParsePrefix(f))
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

// Whose an address is, by the longest prefix: what a search of all prefixes says, too.
func TestTheLongestPrefixSaysWhoseAnAddressIs(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	addr := func() netip.Addr { // few, so that prefixes meet
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|r.Uint32N(1<<12))))
	}
	random := func(n, shortest int) (all []netip.Prefix) {
		for range n {
			all = append(all, netip.PrefixFrom(addr(), shortest+r.IntN(33-shortest)).Masked())
			if _, _, found := overlapping(all); found {
				all = all[:len(all)-1]
			}
		}
		slices.SortFunc(all, comparePrefix)
		return all
	}
	longest := func(all []netip.Prefix, a netip.Addr) int {
		bits := -1
		for _, p := range all {
			if p.Contains(a) {
				bits = max(bits, p.Bits())
			}
		}
		return bits
	}
	inside := 0
	for range 2000 {
		n := Network{Subnets: random(3, 21), Trusted: random(r.IntN(12), 20)}
		for range 50 {
			a := addr()
			own, trusted := longest(n.Subnets, a), longest(n.Trusted, a)
			if got := n.contains(a); got != (own >= 0 && own >= trusted) {
				t.Fatalf("%v, trusted %v: contains(%v) is %v", n.Subnets, n.Trusted, a, got)
			}
			if got := n.trusts(a); got != (trusted >= 0) {
				t.Fatalf("trusted %v: trusts(%v) is %v", n.Trusted, a, got)
			}
			among := slices.ContainsFunc(n.ranges(), func(r addrRange) bool { return r.contains(a) })
			if among != n.contains(a) {
				t.Fatalf("%v, trusted %v: %v in the ranges %v is %v", n.Subnets, n.Trusted, a, n.ranges(), among)
			}
			if own >= 0 && trusted > own {
				inside++
			}
		}
	}
	if inside < 100 {
		t.Errorf("%d addresses were in a trusted prefix inside a subnet", inside)
	}
}

func TestARangeThatIsAPrefix(t *testing.T) {
	t.Parallel()
	for _, p := range prefixes("0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32", "10.0.0.2/31", "::/0", "fd88::/64", "fd88::1/128", "fd88::/127") {
		if got, ok := rangeOf(p).prefix(); !ok || got != p {
			t.Errorf("%v: %v, %v", p, got, ok)
		}
	}
	for _, r := range []addrRange{
		{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.2")},
		{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
		{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")},
		{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd88::")},
		{netip.MustParseAddr("fd88::1"), netip.MustParseAddr("fd88::2")},
	} {
		if got, ok := r.prefix(); ok {
			t.Errorf("%v to %v is the prefix %v", r.first, r.last, got)
		}
	}
}

func TestOverlapping(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"": false, "10.0.0.0/8": false, "10.0.0.0/8 11.0.0.0/8": false, "10.0.0.0/8 fd00::/8": false,
		"10.0.0.0/8 10.0.0.0/8": true, "10.1.0.0/16 9.0.0.0/8 10.0.0.0/8": true, "10.0.0.0/8 10.1.0.0/24 10.2.0.0/24 11.0.0.0/8": true,
		"0.0.0.0/0 10.0.0.0/8": true, "0.0.0.0/0 ::/0": false,
	} {
		if a, b, found := overlapping(list(s)); found != want {
			t.Errorf("%s: %v, %v", s, a, b)
		}
	}
}
