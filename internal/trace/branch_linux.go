package trace

import (
	stdbytes "bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/xtables"
	"golang.org/x/sys/unix"
)

// branch is a rule that is being evaluated for all packets of a space. A map makes a branch
// for each of its elements.
type branch struct {
	walk  *walk
	rule  *nft.Rule
	space space
	regs  [20]loaded // by words of 4 bytes
	then  func(b *branch, s statement) error
}

// loaded is what a register holds, from one of its words on: parts of the packet, or
// a constant.
type loaded struct {
	parts []piece
	data  []byte // of a constant; else nil
	size  int
}

// piece is a part of a packet, or of what the kernel knows about it.
type piece struct {
	kind pieceKind
	v6   bool
	n    int    // bytes
	mask []byte // which bits of it; nil is all
}

type pieceKind byte

const (
	pieceOther  pieceKind = iota
	pieceFamily           // the family, as a number of netfilter
	pieceEther            // the protocol above Ethernet
	pieceProto
	pieceSource
	pieceDest // the destination address, or its first bytes
	pieceSourcePort
	pieceDestPort
	pieceIn    // the link that it comes in by
	pieceType  // of the destination address
	pieceState // ct state
)

// word is a register's first word, or -1.
func regWord(reg uint32) int {
	if at := offset(reg); at >= 0 {
		return at / 4
	}
	return -1
}

func (b *branch) load(reg uint32, l loaded) {
	if at := regWord(reg); at >= 0 {
		b.regs[at] = l
	}
}

func (b *branch) read(reg uint32) loaded {
	if at := regWord(reg); at >= 0 {
		return b.regs[at]
	}
	return loaded{}
}

// field is a piece and what a comparison has for it.
type field struct {
	piece
	data []byte
}

// fields are the pieces from a register on and their bytes of a key, in which each value
// that was loaded by itself begins with a word.
func (b *branch) fields(reg uint32, key []byte) (all []field, ok bool) {
	at := regWord(reg)
	for len(key) > 0 {
		if at < 0 || at >= len(b.regs) || b.regs[at].parts == nil {
			return nil, false
		}
		l := b.regs[at]
		for _, p := range l.parts {
			if p.n > len(key) {
				p.n = len(key) // a prefix of a name
				p.kind = min(p.kind, pieceIn)
			}
			all = append(all, field{p, key[:p.n]})
			key = key[p.n:]
		}
		words := max(1, (l.size+3)/4)
		if pad := 4*words - l.size; len(key) > 0 {
			key = key[min(pad, len(key)):]
		}
		at += words
	}
	return all, len(all) > 0
}

// run evaluates expressions and hands each way that the rule can end to then.
func (b *branch) run(exprs []nft.Expr) error {
	for i := range exprs {
		e := &exprs[i]
		a := parse(e.Data)
		possible := true
		switch e.Name {
		case "meta", "ct", "payload", "fib":
			b.loads(e.Name, &a)
		case "bitwise":
			b.bitwise(&a)
		case "byteorder":
			l := b.read(a.u32(unix.NFTA_BYTEORDER_SREG))
			l = other(l.size)
			b.load(a.u32(unix.NFTA_BYTEORDER_DREG), l)
		case "cmp":
			possible = b.compare(a.u32(unix.NFTA_CMP_SREG), a.u32(unix.NFTA_CMP_OP), a.value(unix.NFTA_CMP_DATA))
		case "range":
			possible = b.within(a.u32(unix.NFTA_RANGE_SREG), a.value(unix.NFTA_RANGE_FROM_DATA), a.value(unix.NFTA_RANGE_TO_DATA), a.u32(unix.NFTA_RANGE_OP) != unix.NFT_RANGE_EQ)
		case "lookup":
			done, err := b.lookup(&a, exprs[i+1:])
			if done || err != nil {
				return err
			}
		case "immediate":
			if v := parse(a[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT]; v != nil {
				return b.then(b, verdictOf(parse(v)))
			}
			data := a.value(unix.NFTA_IMMEDIATE_DATA)
			b.load(a.u32(unix.NFTA_IMMEDIATE_DREG), loaded{data: data, size: len(data)})
		case "match":
			possible = b.xtMatch(&a)
		case "nat", "redir", "target", "tproxy":
			if s, ends := b.translate(e.Name, &a); ends {
				return b.then(b, s)
			}
		case "reject":
			return b.then(b, statement{kind: stopDrop})
		case "counter", "log", "notrack", "dup", "objref", "flow_offload", "last", "masq":
		default:
			b.condition(false)
			b.regs = [20]loaded{}
		}
		if !possible {
			return nil
		}
	}
	return nil
}

// condition notes that the rule asks for something that the space cannot say: from is that it is
// where packets come from.
func (b *branch) condition(from bool) {
	if n := len(b.space.only); n == 0 || b.space.only[n-1] != b.rule {
		b.space.only = append(slices.Clone(b.space.only), b.rule)
	}
	b.space.odd = b.space.odd || !from
}

func other(n int) loaded { return loaded{parts: []piece{{n: n}}, size: n} }

func one(kind pieceKind, v6 bool, n int) loaded {
	return loaded{parts: []piece{{kind: kind, v6: v6, n: n}}, size: n}
}

// loads evaluates an expression that loads something.
func (b *branch) loads(name string, a *attrs) {
	switch name {
	case "meta":
		if a[unix.NFTA_META_SREG] == nil {
			b.load(a.u32(unix.NFTA_META_DREG), metaPiece(a.u32(unix.NFTA_META_KEY)))
		}
	case "ct":
		if a[unix.NFTA_CT_SREG] != nil {
			return
		}
		l := other(16)
		if a.u32(unix.NFTA_CT_KEY) == unix.NFT_CT_STATE {
			l = one(pieceState, false, 4)
		}
		b.load(a.u32(unix.NFTA_CT_DREG), l)
	case "payload":
		if a[unix.NFTA_PAYLOAD_SREG] == nil {
			n := int(min(a.u32(unix.NFTA_PAYLOAD_LEN), 64))
			b.load(a.u32(unix.NFTA_PAYLOAD_DREG), b.payload(a.u32(unix.NFTA_PAYLOAD_BASE), int(min(a.u32(unix.NFTA_PAYLOAD_OFFSET), 1<<16)), n))
		}
	case "fib":
		const daddr = 1 << 1 // NFTA_FIB_F_DADDR
		l := other(4)
		if a.u32(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE && a.u32(unix.NFTA_FIB_FLAGS) == daddr {
			l = one(pieceType, false, 4)
		}
		b.load(a.u32(unix.NFTA_FIB_DREG), l)
	}
}

func metaPiece(key uint32) loaded {
	switch key {
	case unix.NFT_META_NFPROTO:
		return one(pieceFamily, false, 1)
	case unix.NFT_META_PROTOCOL:
		return one(pieceEther, false, 2)
	case unix.NFT_META_L4PROTO:
		return one(pieceProto, false, 1)
	case unix.NFT_META_IIFNAME:
		return one(pieceIn, false, unix.IFNAMSIZ)
	case unix.NFT_META_IIF:
		return one(pieceIn, false, 4)
	}
	return other(4)
}

// layout are the parts of a header, from its start on.
type layout []piece

func at(l layout, offset, n int) loaded {
	var parts []piece
	start := 0
	for _, p := range l {
		switch {
		case start >= offset && start+p.n <= offset+n:
			parts = append(parts, p)
		case start == offset && (p.kind == pieceDest || p.kind == pieceSource): // the first bytes of an address
			p.n = n
			return loaded{parts: []piece{p}, size: n}
		}
		start += p.n
	}
	total := 0
	for _, p := range parts {
		total += p.n
	}
	if total != n {
		return other(n)
	}
	return loaded{parts: parts, size: n}
}

var (
	layout4     = layout{{n: 9}, {kind: pieceProto, n: 1}, {n: 2}, {kind: pieceSource, n: 4}, {kind: pieceDest, n: 4}}
	layout6     = layout{{n: 6}, {kind: pieceProto, n: 1}, {n: 1}, {kind: pieceSource, v6: true, n: 16}, {kind: pieceDest, v6: true, n: 16}}
	layoutPorts = layout{{kind: pieceSourcePort, n: 2}, {kind: pieceDestPort, n: 2}}
)

func (b *branch) payload(base uint32, offset, n int) loaded {
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return at(layoutPorts, offset, n)
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && b.space.family == unix.NFPROTO_IPV4:
		return at(layout4, offset, n)
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && b.space.family == unix.NFPROTO_IPV6:
		return at(layout6, offset, n)
	}
	return other(n)
}

func (b *branch) bitwise(a *attrs) {
	const opAttr = 6 // NFTA_BITWISE_OP: 0 is mask and xor
	l := b.read(a.u32(unix.NFTA_BITWISE_SREG))
	mask, xor := a.value(unix.NFTA_BITWISE_MASK), a.value(unix.NFTA_BITWISE_XOR)
	masked := loaded{parts: []piece{{n: len(mask)}}, size: len(mask)}
	if a.u32(opAttr) == 0 && len(l.parts) == 1 && l.parts[0].n == len(mask) && l.parts[0].mask == nil && len(stdbytes.Trim(xor, "\x00")) == 0 {
		masked.parts[0] = l.parts[0]
		masked.parts[0].mask = mask
	}
	b.load(a.u32(unix.NFTA_BITWISE_DREG), masked)
}

// compare takes what compares so from the space, and reports whether something is left.
func (b *branch) compare(reg, op uint32, data []byte) bool {
	all, ok := b.fields(reg, data)
	if !ok {
		b.condition(false)
		return true
	}
	lowest, highest := make([]byte, len(data)), stdbytes.Repeat([]byte{0xff}, len(data))
	switch {
	case op == unix.NFT_CMP_EQ:
		for _, f := range all {
			if !b.constrain(f.piece, f.data, f.data, false) {
				return false
			}
		}
		return true
	case len(all) > 1:
		b.condition(false)
		return true
	case op == unix.NFT_CMP_NEQ:
		return b.constrain(all[0].piece, data, data, true)
	case op == unix.NFT_CMP_LT, op == unix.NFT_CMP_GTE:
		return b.constrain(all[0].piece, data, highest, op == unix.NFT_CMP_LT)
	default:
		return b.constrain(all[0].piece, lowest, data, op == unix.NFT_CMP_GT)
	}
}

func (b *branch) within(reg uint32, from, to []byte, not bool) bool {
	all, ok := b.fields(reg, from)
	if !ok || len(all) != 1 || len(from) != len(to) {
		b.condition(false)
		return true
	}
	return b.constrain(all[0].piece, from, to, not)
}

// constrain takes the packets whose piece is in a range, or not, from the space. It
// reports whether something is left.
func (b *branch) constrain(p piece, from, to []byte, not bool) bool {
	s := &b.space
	single := stdbytes.Equal(from, to)
	switch p.kind {
	case pieceFamily:
		if single && !not {
			return s.setFamily(from[0])
		}
	case pieceEther:
		if len(from) != 2 { // the kernel compares as many bytes as a rule says
			break
		}
		switch v := binary.BigEndian.Uint16(from); {
		case !single || not:
		case v == unix.ETH_P_IP:
			return s.setFamily(unix.NFPROTO_IPV4)
		case v == unix.ETH_P_IPV6:
			return s.setFamily(unix.NFPROTO_IPV6)
		}
	case pieceProto:
		if single && !not && p.mask == nil {
			return s.setProtos(from[0])
		}
	case pieceDestPort:
		if p.mask == nil && len(from) == 2 {
			ports := []xtables.Range{{First: binary.BigEndian.Uint16(from), Last: binary.BigEndian.Uint16(to)}}
			if not {
				ports = otherPorts(ports)
			}
			return s.setPorts(ports)
		}
	case pieceDest:
		return b.dest(p, from, to, not)
	case pieceSource:
		// Nobody outside has such an address.
		if r, ok := p.addrs(from, to); ok && not && !comesFromOutside(r) {
			return true
		}
		b.condition(true)
		return true
	case pieceIn:
		if !not {
			b.condition(true)
		}
		return true
	case pieceType:
		if v := binary.NativeEndian.Uint32(pad(from, 4)); single && !not && v == unix.RTN_LOCAL {
			s.local = true
			return true
		}
	case pieceState:
		if b.newState(p, from, single, not) {
			return true
		}
	}
	b.condition(false)
	return true
}

// newState reports whether a comparison of ct state is true of the first packet of a connection.
func (b *branch) newState(p piece, data []byte, single, not bool) bool {
	v := binary.NativeEndian.Uint32(pad(data, 4))
	if p.mask != nil {
		return single && not && v == 0 && binary.NativeEndian.Uint32(pad(p.mask, 4))&stateNew != 0
	}
	return single && !not && v == stateNew
}

func (b *branch) dest(p piece, from, to []byte, not bool) bool {
	r, ok := p.addrs(from, to)
	family := byte(unix.NFPROTO_IPV4)
	if p.v6 {
		family = unix.NFPROTO_IPV6
	}
	switch {
	case !ok:
	case not && !comesFromOutside(r):
		return true
	case not:
	default:
		return b.space.setFamily(family) && b.space.setAddrs([]addrRange{r})
	}
	b.condition(false)
	return true
}

// comesFromOutside reports whether packets from outside have such addresses.
func comesFromOutside(r addrRange) bool {
	return !(r.first.IsLoopback() && r.last.IsLoopback() || r.first.IsLinkLocalUnicast() && r.last.IsLinkLocalUnicast())
}

// addrs are the addresses whose piece is in a range: the piece may be the first bytes or,
// by its mask, the first bits.
func (p *piece) addrs(from, to []byte) (r addrRange, ok bool) {
	n := 4
	if p.v6 {
		n = 16
	}
	first, last := pad(from, n), append(slices.Clone(to[:min(n, len(to))]), stdbytes.Repeat([]byte{0xff}, max(0, n-len(to)))...)
	if p.mask != nil {
		ones := 0
		for i, m := range p.mask {
			ones += bits.LeadingZeros8(^m)
			if i < len(last) {
				last[i] |= ^m
			}
		}
		for i, m := range p.mask { // no ones behind a zero
			want := max(0, min(8, ones-8*i))
			if m != byte(uint16(0xff00)>>want) {
				return r, false
			}
		}
	}
	r.first, _ = netip.AddrFromSlice(first)
	r.last, ok = netip.AddrFromSlice(last)
	return r, ok && r.first.IsValid()
}

// pad is the first n bytes, filled up with zeros.
func pad(b []byte, n int) []byte {
	p := make([]byte, n)
	copy(p, b)
	return p
}
