package nfttext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// value is what a register holds: a part of the packet or of what the kernel knows about it,
// or a constant.
type value struct {
	text  string
	types []*datatype // of its fields: several of what a map returns
	size  int         // bytes
	order order       // where byteorder has changed it; else 0
	data  []byte      // of a constant; else nil

	mask, xor []byte // what bitwise has done to it; else nil

	header *location // of a part of the packet; else nil
	shift  int       // how far the bits of a field are from the right
}

// location is a part of a packet.
type location struct{ base, at, n int }

func (v *value) typ() *datatype {
	if len(v.types) == 0 {
		return hexType
	}
	return v.types[0]
}

// constant writes a value that v is compared with, or is set to.
func (r *rule) constant(v *value, data []byte) string {
	o := v.order
	if o == 0 {
		o = v.typ().order
	}
	return r.w.value(v.typ(), shifted(data, v.shift), o)
}

// shifted is a number in network order, shifted to the right.
func shifted(b []byte, by int) []byte {
	if by == 0 || len(b) > 8 {
		return b
	}
	n := number(b, bigOrder) >> by
	return binary.BigEndian.AppendUint64(nil, n)[8-len(b):]
}

// source writes what a register holds, as something that has the type t, or that of the
// value if t is nil.
func (r *rule) source(v *value, t *datatype) string {
	if v.data != nil {
		if t == nil {
			t = v.typ()
		}
		return r.w.value(t, v.data, v.order)
	}
	return r.operand(v)
}

// operand writes a part of the packet with what bitwise has made of it.
func (r *rule) operand(v *value) string {
	v = r.resolve(v)
	if v.mask == nil {
		return v.text
	}
	// (x & mask) ^ xor is (x & (mask | o)) | o ^ rest, where o are the bits that the mask
	// clears and xor sets.
	mask, or, xor := slices.Clone(v.mask), make([]byte, len(v.mask)), make([]byte, len(v.mask))
	ones := true
	for i := range mask {
		or[i] = v.xor[i] &^ mask[i]
		xor[i] = v.xor[i] & mask[i]
		mask[i] |= or[i]
		ones = ones && mask[i] == 0xff
	}
	s := v.text
	if !ones {
		s += " & " + r.bitmask(v, mask)
	}
	if !zero(xor) {
		s += " ^ " + r.bitmask(v, xor)
	}
	if !zero(or) {
		s += " | " + r.bitmask(v, or)
	}
	return s
}

// bitmask writes a mask as nft does: by the names of bits in parentheses.
func (r *rule) bitmask(v *value, mask []byte) string {
	s := r.constant(v, mask)
	if v.typ().mask && strings.Contains(s, ",") {
		return "(" + strings.ReplaceAll(s, ",", " | ") + ")"
	}
	return s
}

func zero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// prefixLen is the number of leading ones of a mask that has no others; ok is false of
// any other mask.
func prefixLen(mask []byte, o order) (n int, ok bool) {
	for i, c := range big(mask, o) {
		ones := bits.LeadingZeros8(^c)
		if c != byte(uint16(0xff00)>>ones) || c != 0 && n != i*8 {
			return 0, false
		}
		n += ones
	}
	return n, true
}

// compare writes `value op data`, and notes what it says about the packet's protocols.
func (r *rule) compare(v *value, op uint32, data []byte) {
	for _, part := range r.parts(v, op, data) {
		v := r.resolve(part.v)
		if n := v.size - len(part.data); n > 0 && v.mask != nil {
			part.data = append(slices.Clone(part.data), make([]byte, n)...)
		}
		r.add("%s", r.comparison(v, op, part.data))
		r.learn(v, op, part.data)
	}
}

// Operators of cmp (NFT_CMP_*).
const (
	opEQ = iota
	opNEQ
	opLT
	opLTE
	opGT
	opGTE
)

var operators = [...]string{opEQ: "", opNEQ: "!= ", opLT: "< ", opLTE: "<= ", opGT: "> ", opGTE: ">= "}

func operator(op uint32) string {
	if int(op) < len(operators) {
		return operators[op]
	}
	return "<operator> "
}

// comparison is the text of a comparison.
func (r *rule) comparison(v *value, op uint32, data []byte) string {
	t := v.typ()
	o := v.order
	if o == 0 {
		o = t.order
	}
	switch {
	case v.mask == nil && t.mask && op == opEQ:
		return v.text + " == " + r.flags(v, data)
	case v.mask == nil && t.mask:
		return v.text + " " + operator(op) + r.flags(v, data)
	case v.mask == nil:
		return v.text + " " + operator(op) + r.constant(v, data)
	case zero(v.xor) && t.mask && len(v.mask) == len(data):
		return r.flagComparison(v, op, data)
	case zero(v.xor) && t.prefix && op <= opNEQ && len(v.mask) == len(data):
		if n, ok := prefixLen(v.mask, o); ok {
			return fmt.Sprintf("%s %s%s/%d", v.text, operator(op), r.constant(v, data), n)
		}
	}
	s := operator(op)
	if op == opEQ {
		s = "== "
	}
	return r.operand(v) + " " + s + r.constant(v, data)
}

// flags writes names of bits that are all meant.
func (r *rule) flags(v *value, data []byte) string {
	return strings.ReplaceAll(r.constant(v, data), ",", " | ")
}

func (r *rule) flagComparison(v *value, op uint32, data []byte) string {
	several := strings.Contains(r.constant(v, v.mask), ",")
	switch {
	case op == opNEQ && zero(data):
		return v.text + " " + r.constant(v, v.mask)
	case op == opEQ && zero(data):
		return v.text + " ! " + r.constant(v, v.mask)
	case several && op <= opNEQ:
		return v.text + " " + operator(op) + r.constant(v, data) + " / " + r.constant(v, v.mask)
	case op == opEQ:
		return r.operand(v) + " == " + r.flags(v, data)
	}
	return r.operand(v) + " " + operator(op) + r.flags(v, data)
}

// between writes two comparisons that are one of a range, and reports whether they are.
func (r *rule) between(a, b *attrs) bool {
	const sreg, op, data = 1, 2, 3 // NFTA_CMP_*
	from, to := a.value(data), b.value(data)
	if a.u32(op) != opGTE || b.u32(op) != opLTE || a.u32(sreg) != b.u32(sreg) || len(from) != len(to) {
		return false
	}
	r.writeRange(r.read(a.u32(sreg)), opEQ, from, to)
	return true
}

func (r *rule) writeRange(v *value, op uint32, from, to []byte) {
	v = r.resolve(v)
	if bytes.Equal(from, to) {
		r.compare(v, op, from)
		return
	}
	r.add("%s %s%s-%s", r.operand(v), operator(op), r.constant(v, from), r.constant(v, to))
}
