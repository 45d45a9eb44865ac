package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
)

// The longest prefix says whose an address is: the network's, by its subnets, or trusted, by Trusted.
//
//   - A trusted prefix around a subnet stays one element of trusted4 or trusted6. No packet with a
//     source of the subnet is looked up there: the sources of subnets are checked first, and what
//     comes in by a network's link is not trusted.
//   - A trusted prefix inside a subnet takes its addresses out of same4 and nets4 (same6, nets6): the
//     subnet is there as the ranges that remain. So every rule that looks an address up there, for
//     each packet, finds who has it with one lookup, as ever.
//
// The elements of a range in same4 and same6 have the subnet as their comment, because the range does
// not say it. nets4 and nets6 have the interface there, as for a whole subnet.

// addrRange is the addresses from first to last, of one family.
type addrRange struct{ first, last netip.Addr }

func rangeOf(p netip.Prefix) addrRange { return addrRange{p.Masked().Addr(), lastAddr(p)} }

// contains reports whether an address is in the range.
func (r addrRange) contains(a netip.Addr) bool {
	return r.first.BitLen() == a.BitLen() && r.first.Compare(a) <= 0 && a.Compare(r.last) <= 0
}

// covers reports whether all of another range is in the range.
func (r addrRange) covers(o addrRange) bool { return r.contains(o.first) && r.contains(o.last) }

// meets returns one of sorted prefixes that do not overlap which the range overlaps.
func (r addrRange) meets(sorted []netip.Prefix) (p netip.Prefix, overlaps bool) {
	if p, overlaps = prefixOf(sorted, r.first); overlaps {
		return p, true
	}
	next, _ := slices.BinarySearchFunc(sorted, r.first, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	if next == len(sorted) || !r.contains(sorted[next].Addr()) {
		return p, false
	}
	return sorted[next], true
}

// prefix returns the prefix that the range is, if it is one.
func (r addrRange) prefix() (p netip.Prefix, ok bool) {
	first, last := r.first.AsSlice(), r.last.AsSlice()
	if len(first) != len(last) {
		return p, false
	}
	bits := 0
	for i := range first {
		for mask := byte(0x80); mask != 0 && first[i]&mask == last[i]&mask; mask >>= 1 {
			bits++
		}
		if first[i] != last[i] {
			break
		}
	}
	p = netip.PrefixFrom(r.first, bits)
	return p, p.Masked() == p && lastAddr(p) == r.last
}

// comparePrefix orders by family, then by address.
func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// prefixOf returns the prefix that an address is in, among sorted ones that do not overlap.
func prefixOf(sorted []netip.Prefix, a netip.Addr) (p netip.Prefix, ok bool) {
	after, _ := slices.BinarySearchFunc(sorted, a, func(p netip.Prefix, a netip.Addr) int {
		if p.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	if after == 0 || !sorted[after-1].Contains(a) {
		return p, false
	}
	return sorted[after-1], true
}

// overlapping returns two of the prefixes that overlap.
func overlapping(prefixes []netip.Prefix) (a, b netip.Prefix, found bool) {
	sorted := slices.SortedFunc(slices.Values(prefixes), comparePrefix)
	for i := 1; i < len(sorted); i++ {
		if sorted[i-1].Overlaps(sorted[i]) { // of any two that overlap, what is between them does, too
			return sorted[i-1], sorted[i], true
		}
	}
	return a, b, false
}

// trustedIn returns the trusted prefixes inside a subnet. Those of the subnet's own length are not: the
// subnet wins.
func (n Network) trustedIn(subnet netip.Prefix) []netip.Prefix {
	from, _ := slices.BinarySearchFunc(n.Trusted, subnet, comparePrefix)
	to := from
	for to < len(n.Trusted) && subnet.Contains(n.Trusted[to].Addr()) {
		to++
	}
	inside := n.Trusted[from:to]
	if len(inside) > 0 && inside[0].Bits() == subnet.Bits() {
		return nil
	}
	return inside
}

// rest returns what trusted prefixes leave of a subnet: all of it, as a rule.
func (n Network) rest(subnet netip.Prefix) (left []addrRange) {
	all := rangeOf(subnet)
	for _, t := range n.trustedIn(subnet) {
		taken := rangeOf(t)
		if all.first != taken.first {
			left = append(left, addrRange{all.first, taken.first.Prev()})
		}
		if taken.last == all.last {
			return left
		}
		all.first = taken.last.Next()
	}
	return append(left, all)
}

// ranges returns the addresses of the network.
func (n Network) ranges() (all []addrRange) {
	for _, s := range n.Subnets {
		all = append(all, n.rest(s)...)
	}
	return all
}

// contains reports whether an address is one of the network's. Trusted has to be sorted, as checked
// leaves it.
func (n Network) contains(a netip.Addr) bool {
	for _, s := range n.Subnets {
		if s.Contains(a) {
			t, trusted := prefixOf(n.Trusted, a)
			return !trusted || t.Bits() <= s.Bits()
		}
	}
	return false
}

// trusts reports whether an address is in a trusted prefix. Of an address of a network, that says
// nothing.
func (n Network) trusts(a netip.Addr) bool {
	_, trusted := prefixOf(n.Trusted, a)
	return trusted
}

// far returns the trusted prefixes that VisitorSNAT is for.
func (n Network) far() (all []netip.Prefix) {
	for _, p := range n.Trusted {
		if _, ok := n.seenAs(p.Addr().Is6()); ok {
			all = append(all, p)
		}
	}
	return all
}

// seenAs returns the VisitorSNAT address of a family.
func (n Network) seenAs(v6 bool) (netip.Addr, bool) { return ofFamily(n.VisitorSNAT, v6) }

// ofFamily returns the address of a family.
func ofFamily(addrs []netip.Addr, v6 bool) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Is6() == v6 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// checkedTrusted returns the trusted prefixes without host bits and sorted, if they fit to the subnets.
func (n Network) checkedTrusted() ([]netip.Prefix, error) {
	all, err := maskedPrefixes("trusted prefix", n.Trusted)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, comparePrefix)
	n.Trusted = all
	for _, p := range all {
		if !n.has(p.Addr().Is6()) {
			return nil, refuse.Input("the trusted prefix %v is of a family that the network has no subnet of", p)
		}
	}
	for _, s := range n.Subnets {
		if _, same := slices.BinarySearchFunc(all, s, comparePrefix); same {
			return nil, refuse.Input("the trusted prefix %v is a subnet of the network", s)
		}
		if len(n.rest(s)) == 0 {
			return nil, refuse.Input("the trusted prefixes leave no address of the subnet %v", s)
		}
	}
	return all, nil
}

// effective returns the network without the trusted prefixes that checked refuses. Before version 8 of
// the skeleton a trusted prefix inside a subnet was without effect, so it may be any.
func (n Network) effective() Network {
	if _, err := n.checkedTrusted(); err == nil {
		return n
	}
	n.Trusted = slices.DeleteFunc(slices.Clone(n.Trusted), func(t netip.Prefix) bool {
		return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return t.Bits() >= s.Bits() && s.Overlaps(t) })
	})
	return n
}
