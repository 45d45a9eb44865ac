package trace

import (
	stdbytes "bytes"
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// matching says whether a rule matches.
type matching int

const (
	no matching = iota
	maybe
	yes
)

func is(b bool) matching {
	if b {
		return yes
	}
	return no
}

// statement is what ends a rule.
type statement struct {
	kind  stop
	chain string
}

type stop int

const (
	stopNone stop = iota
	stopAccept
	stopDrop
	stopReturn
	stopJump
	stopGoto
	stopDNAT
)

// registers are 64 bytes; numbers 1 to 4 are 16 of them each, 8 to 23 are 4.
type registers struct {
	bytes
	strangers map[int]stranger // by the offset of the value
}

func newRegisters() registers { return registers{unknown(64), map[int]stranger{}} }

func offset(reg uint32) int {
	switch {
	case 1 <= reg && reg <= 4:
		return int(reg-1) * 16
	case 8 <= reg && reg <= 23:
		return int(reg-8) * 4
	}
	return -1
}

// load puts a value into a register; the last word is filled up with zeros.
func (r registers) load(reg uint32, v bytes) {
	at := offset(reg)
	if at < 0 {
		return
	}
	for i := range (len(v.data) + 3) &^ 3 {
		delete(r.strangers, at+i)
		if at+i >= len(r.data) {
			return
		}
		r.data[at+i], r.known[at+i] = 0, true
		if i < len(v.data) {
			r.data[at+i], r.known[at+i] = v.data[i], v.known[i]
		}
	}
}

func (r registers) read(reg uint32, n int) bytes {
	if at := offset(reg); at >= 0 {
		return r.part(at, n)
	}
	return unknown(n)
}

// attrs are the attributes of an expression by type; those above 15 are left out.
type attrs [16][]byte

func parse(data []byte) (a attrs) {
	for w := nl.Walk(data); w.Next(); {
		if int(w.Type()) < len(a) {
			a[w.Type()] = w.Data()
		}
	}
	return a
}

func (a *attrs) u32(typ int) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

// value is the NFTA_DATA_VALUE in an attribute.
func (a *attrs) value(typ int) []byte {
	in := parse(a[typ])
	return in[unix.NFTA_DATA_VALUE]
}

// rule says whether the rule matches the packet, and what it does then.
func (t *tracing) rule(rule *nft.Rule) (m matching, s statement, err error) {
	m = yes
	regs := newRegisters()
	for _, e := range rule.Exprs {
		a := parse(e.Data)
		one := yes
		switch e.Name {
		case "meta":
			if a[unix.NFTA_META_SREG] == nil {
				regs.load(a.u32(unix.NFTA_META_DREG), t.packet.meta(a.u32(unix.NFTA_META_KEY)))
			}
		case "ct":
			if a[unix.NFTA_CT_SREG] == nil {
				regs.load(a.u32(unix.NFTA_CT_DREG), t.packet.ct(a.u32(unix.NFTA_CT_KEY)))
			}
		case "payload":
			if a[unix.NFTA_PAYLOAD_SREG] == nil {
				regs.load(a.u32(unix.NFTA_PAYLOAD_DREG), t.payload(&a))
				t.noteStranger(regs, &a)
			}
		case "fib":
			regs.load(a.u32(unix.NFTA_FIB_DREG), t.fib(&a))
		case "bitwise":
			masked := regs.masked(&a)
			regs.load(a.u32(unix.NFTA_BITWISE_DREG), bitwise(regs, &a))
			regs.strange(a.u32(unix.NFTA_BITWISE_DREG), masked)
		case "byteorder":
			regs.load(a.u32(unix.NFTA_BYTEORDER_DREG), byteorder(regs, &a))
		case "cmp":
			one = regs.compare(&a)
		case "range":
			one = inRange(regs, &a)
		case "lookup":
			one, err = t.lookup(rule, regs, &a, &s)
		case "immediate":
			if v := parse(a[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT]; v != nil {
				s = verdictOf(parse(v))
			} else {
				regs.load(a.u32(unix.NFTA_IMMEDIATE_DREG), known(a.value(unix.NFTA_IMMEDIATE_DATA)))
			}
		case "exthdr":
			one = loadExtension(regs, &a)
		case "match":
			one = t.xtMatch(&a)
		case "target":
			s = xtTarget(&a)
		case "reject":
			s.kind = stopDrop
		case "nat":
			if a.u32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
				s.kind = stopDNAT
			}
		case "redir", "tproxy":
			s.kind = stopDNAT
		case "counter", "log", "notrack", "masq", "dup", "objref", "flow_offload", "last":
		default: // limit, quota, connlimit, dynset, rt, numgen, what is newer
			one = maybe
			regs = newRegisters()
		}
		if err != nil || one == no {
			return no, s, err
		}
		m = min(m, one)
	}
	return m, s, nil
}

func (t *tracing) payload(a *attrs) bytes {
	at, n := int(a.u32(unix.NFTA_PAYLOAD_OFFSET)), int(min(a.u32(unix.NFTA_PAYLOAD_LEN), 64))
	switch a.u32(unix.NFTA_PAYLOAD_BASE) {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		return t.packet.network().part(at, n)
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return t.packet.transport().part(at, n)
	}
	return unknown(n)
}

func (t *tracing) fib(a *attrs) bytes {
	const saddr, daddr, iif, present = 1 << 0, 1 << 1, 1 << 3, 1 << 5 // NFTA_FIB_F_*
	if flags := a.u32(unix.NFTA_FIB_FLAGS); t.packet.Returns && a.u32(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_OIF &&
		flags&present != 0 && flags&(saddr|iif) == saddr|iif {
		return known([]byte{1})
	}
	if a.u32(unix.NFTA_FIB_RESULT) == unix.NFT_FIB_RESULT_ADDRTYPE && a.u32(unix.NFTA_FIB_FLAGS) == daddr {
		kind := uint32(unix.RTN_UNICAST)
		if t.packet.Local {
			kind = unix.RTN_LOCAL
		}
		return known(binary.NativeEndian.AppendUint32(nil, kind))
	}
	return unknown(16)
}

// loadExtension is what an exthdr expression does: the packet has no extension header of IPv6.
// Options of TCP are not known.
func loadExtension(regs registers, a *attrs) matching {
	const opIPv6, present = 0, 1 // NFT_EXTHDR_OP_IPV6, NFT_EXTHDR_F_PRESENT
	switch {
	case a.u32(unix.NFTA_EXTHDR_OP) != opIPv6:
		regs.load(a.u32(unix.NFTA_EXTHDR_DREG), unknown(16))
		return maybe
	case a.u32(unix.NFTA_EXTHDR_FLAGS)&present == 0:
		return no
	}
	regs.load(a.u32(unix.NFTA_EXTHDR_DREG), known([]byte{0}))
	return yes
}

func bitwise(regs registers, a *attrs) bytes {
	const opAttr = 6 // NFTA_BITWISE_OP: 0 is mask and xor
	n := int(min(a.u32(unix.NFTA_BITWISE_LEN), 64))
	v := regs.read(a.u32(unix.NFTA_BITWISE_SREG), n)
	mask, xor := a.value(unix.NFTA_BITWISE_MASK), a.value(unix.NFTA_BITWISE_XOR)
	if a.u32(opAttr) != 0 || len(mask) < n || len(xor) < n {
		return unknown(n)
	}
	for i := range n {
		v.data[i] = v.data[i]&mask[i] ^ xor[i]
		v.known[i] = v.known[i] || mask[i] == 0
	}
	return v
}

// byteorder swaps the bytes of each number of a register. nft has numbers that are shorter than
// one, too, which the kernel leaves alone.
func byteorder(regs registers, a *attrs) bytes {
	size, n := int(a.u32(unix.NFTA_BYTEORDER_SIZE)), int(min(a.u32(unix.NFTA_BYTEORDER_LEN), 64))
	v := regs.read(a.u32(unix.NFTA_BYTEORDER_SREG), n)
	if size == 0 || binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // this machine's order is the network's
		return v
	}
	for at := 0; at+size <= n; at += size {
		slices.Reverse(v.data[at : at+size])
		slices.Reverse(v.known[at : at+size])
	}
	return v
}

func compare(v bytes, op uint32, with []byte) matching {
	differs := false
	for i := range v.data {
		differs = differs || v.known[i] && v.data[i] != with[i]
	}
	switch {
	case op == unix.NFT_CMP_EQ && differs:
		return no
	case op == unix.NFT_CMP_NEQ && differs:
		return yes
	case !v.all():
		return maybe
	}
	c := stdbytes.Compare(v.data, with)
	switch op {
	case unix.NFT_CMP_EQ:
		return is(c == 0)
	case unix.NFT_CMP_NEQ:
		return is(c != 0)
	case unix.NFT_CMP_LT:
		return is(c < 0)
	case unix.NFT_CMP_LTE:
		return is(c <= 0)
	case unix.NFT_CMP_GT:
		return is(c > 0)
	case unix.NFT_CMP_GTE:
		return is(c >= 0)
	}
	return maybe
}

func inRange(regs registers, a *attrs) matching {
	from, to := a.value(unix.NFTA_RANGE_FROM_DATA), a.value(unix.NFTA_RANGE_TO_DATA)
	v := regs.read(a.u32(unix.NFTA_RANGE_SREG), len(from))
	if !v.all() || len(from) != len(to) {
		return maybe
	}
	in := stdbytes.Compare(v.data, from) >= 0 && stdbytes.Compare(v.data, to) <= 0
	return is(in == (a.u32(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_EQ))
}

// Verdicts (linux/netfilter.h, linux/netfilter/nf_tables.h).
func verdictOf(a attrs) statement {
	s := statement{chain: string(stdbytes.TrimRight(a[unix.NFTA_VERDICT_CHAIN], "\x00"))}
	switch int32(a.u32(unix.NFTA_VERDICT_CODE)) {
	case 0:
		s.kind = stopDrop
	case 1, 3: // accept; to a program by NFQUEUE, which may go either way
		s.kind = stopAccept
	case unix.NFT_JUMP:
		s.kind = stopJump
	case unix.NFT_GOTO:
		s.kind = stopGoto
	case unix.NFT_RETURN:
		s.kind = stopReturn
	}
	return s
}
