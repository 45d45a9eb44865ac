package state

import (
	"iter"
	"net/netip"

	"github.com/boxwire/boxwire/netns"
)

// Capacity is how many prefixes of a node's size the pools of a family have.
func (c Config) Capacity(f netns.Family) uint64 {
	var n uint64
	for _, p := range c.PoolsOf(f) {
		if bits := c.Size(f) - p.Bits(); bits >= 0 && bits <= 32 {
			n += 1 << bits
		}
	}
	return n
}

// Nth is a prefix of a node's size, i counted through the pools of the family. i is below Capacity.
func (c Config) Nth(f netns.Family, i uint64) netip.Prefix {
	for _, p := range c.PoolsOf(f) {
		bits := c.Size(f) - p.Bits()
		if bits < 0 || bits > 32 {
			continue
		}
		if i >= 1<<bits {
			i -= 1 << bits
			continue
		}
		return netip.PrefixFrom(plus(p.Addr(), i, c.Size(f)), c.Size(f))
	}
	return netip.Prefix{}
}

// Choices are the prefixes of a family in the order in which the node tries them: all of them, each once. The order depends on
// the ID alone. Two nodes that begin with the same prefix go on with different ones, so that many that join at once do not all
// want the next one too.
func (c Config) Choices(id ID, f netns.Family) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		n := c.Capacity(f)
		if n == 0 {
			return
		}
		at, step := id.Hash()%n, id.step(n)
		for range n {
			if !yield(c.Nth(f, at)) {
				return
			}
			at = (at + step) % n
		}
	}
}

// Contains reports whether the prefix is one that a node can have.
func (c Config) Contains(p netip.Prefix) bool {
	f := netns.IPv6
	if p.Addr().Is4() {
		f = netns.IPv4
	}
	if !p.IsValid() || p != p.Masked() || p.Bits() != c.Size(f) {
		return false
	}
	for _, pool := range c.PoolsOf(f) {
		if pool.Overlaps(p) && pool.Bits() <= p.Bits() {
			return true
		}
	}
	return false
}

// Gateway is the first address of a node's prefix: the node's own, and its boxes' gateway.
func Gateway(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// plus adds i to the bits of the address that end at size.
func plus(a netip.Addr, i uint64, size int) netip.Addr {
	b := a.AsSlice()
	for at := size - 1; i > 0 && at >= 0; at, i = at-1, i>>1 {
		b[at/8] |= byte(i&1) << (7 - at%8)
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum
}
