package trace

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// stranger is a value that begins with the first n bytes of an address that is not known, some
// other host's. The zero stranger is another value.
type stranger struct {
	n    int
	v6   bool
	mask []byte
}

// noWhere are prefixes without hosts that a packet from or to the outside is for: this host's own
// and the unspecified addresses, groups, what is reserved, and 6to4 (RFC 7526).
var noWhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("ff00::/8"),
}

// noteStranger records that a payload expression has loaded an address that is not known.
func (t *tracing) noteStranger(regs registers, a *attrs) {
	if a.u32(unix.NFTA_PAYLOAD_BASE) != unix.NFT_PAYLOAD_NETWORK_HEADER {
		return
	}
	src, size := 12, 4
	if t.packet.V6 {
		src, size = 8, 16
	}
	n := int(a.u32(unix.NFTA_PAYLOAD_LEN))
	if n < 1 || n > size {
		return
	}
	switch at := int(a.u32(unix.NFTA_PAYLOAD_OFFSET)); {
	case at == src && !t.packet.Src.IsValid():
		regs.strange(a.u32(unix.NFTA_PAYLOAD_DREG), stranger{n: n, v6: t.packet.V6})
	case at == src+size && !t.packet.Dst.IsValid() && !t.packet.Local:
		regs.strange(a.u32(unix.NFTA_PAYLOAD_DREG), stranger{n: n, v6: t.packet.V6})
	}
}

// strange records what a register has.
func (r registers) strange(reg uint32, who stranger) {
	if at := offset(reg); at >= 0 && who.n > 0 {
		r.strangers[at] = who
	}
}

// masked is the stranger behind a bitwise expression that keeps the first bits.
func (r registers) masked(a *attrs) stranger {
	const opAttr = 6 // NFTA_BITWISE_OP: 0 is mask and xor
	who := r.strangers[offset(a.u32(unix.NFTA_BITWISE_SREG))]
	mask := a.value(unix.NFTA_BITWISE_MASK)
	if who.n == 0 || who.mask != nil || a.u32(opAttr) != 0 || len(mask) != who.n {
		return stranger{}
	}
	for _, x := range a.value(unix.NFTA_BITWISE_XOR) {
		if x != 0 {
			return stranger{}
		}
	}
	who.mask = mask
	return who
}

// compare is what a cmp expression finds.
func (r registers) compare(a *attrs) matching {
	reg, op, with := a.u32(unix.NFTA_CMP_SREG), a.u32(unix.NFTA_CMP_OP), a.value(unix.NFTA_CMP_DATA)
	if who := r.strangers[offset(reg)]; who.n > 0 && len(with) == who.n && !who.mayBe(with, with) {
		switch op {
		case unix.NFT_CMP_EQ:
			return no
		case unix.NFT_CMP_NEQ:
			return yes
		}
	}
	return compare(r.read(reg, len(with)), op, with)
}

// mayBe reports whether addresses whose first bytes are in a range may be a stranger's.
func (s stranger) mayBe(from, to []byte) bool {
	n := len(from)
	if n != s.n || n != len(to) {
		return true
	}
	p := piece{v6: s.v6, mask: s.mask}
	r, ok := p.addrs(from, to)
	if !ok {
		return true
	}
	for _, nobody := range noWhere {
		if nobody.Contains(r.first) && nobody.Contains(r.last) {
			return false
		}
	}
	return true
}
