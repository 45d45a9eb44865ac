package nat

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/google/nftables/expr"
)

// The source of each packet from a box is looked up. The subnets of networks are intervals, in same4 and
// same6, and a lookup among intervals of a concatenation takes several times as long as one in a hash
// table. So a subnet that is a few prefixes of 16 or 24 bits (64 for IPv6) is there as these, too, and
// they are looked up first. They only say sooner what same4 and same6 say.

// A nearSet holds prefixes of one length, with the interface of their network.
type nearSet struct {
	set  string
	f    *family46
	bits int
}

var nearSets = []nearSet{
	{"wide4", families[0], 16},
	{"near4", families[0], 24},
	{"near6", families[1], 64},
}

// isNear reports whether a set is one of these.
func isNear(set string) bool {
	return slices.ContainsFunc(nearSets, func(n nearSet) bool { return n.set == set })
}

// nearMost is the number of prefixes that a subnet may be.
const nearMost = 16

// source matches the family, and loads the prefix of the source with the ingress link: the key.
func (n nearSet) source() exprs {
	e := n.f.source(expr.MetaKeyIIFNAME)
	at := len(n.f.match()) + 1 // behind the address
	return slices.Insert(e, at, masked(maskOf(n.f, n.bits)))
}

func maskOf(f *family46, bits int) []byte {
	mask := make([]byte, f.unspecified().BitLen()/8)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// nearItems returns the elements of a range of addresses of a network, whose interface is the key.
func nearItems(r addrRange, key []byte) (items []item) {
	p, ok := r.prefix()
	if !ok {
		return nil
	}
	for _, n := range nearSets {
		if n.f != familyOf(r.first) || p.Bits() > n.bits || 1<<(n.bits-p.Bits()) > nearMost {
			continue
		}
		a := r.first
		for range 1 << (n.bits - p.Bits()) {
			items = append(items, item{n.set, nft.Element{Key: slices.Concat(a.AsSlice(), key)}})
			a = nextPrefix(a, n.bits)
		}
		return items
	}
	return nil
}

// nextPrefix returns the first address behind a prefix.
func nextPrefix(a netip.Addr, bits int) netip.Addr {
	if a.Is4() {
		raw := a.As4()
		v := binary.BigEndian.Uint32(raw[:]) + 1<<(32-bits)
		binary.BigEndian.PutUint32(raw[:], v)
		return netip.AddrFrom4(raw)
	}
	raw := a.As16()
	binary.BigEndian.PutUint64(raw[:8], binary.BigEndian.Uint64(raw[:8])+1<<(64-bits))
	return netip.AddrFrom16(raw)
}
