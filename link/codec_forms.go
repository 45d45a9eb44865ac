package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"reflect"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
)

// sameBytes is what most forms have in common.
type sameBytes struct{}

func (sameBytes) check(any) string             { return "" }
func (sameBytes) equal(want, have []byte) bool { return bytes.Equal(want, have) }

// integer is a number of so many bytes, or a switch that is 0 or 1. A field that is no
// pointer leaves a zero to the kernel. An int32 has a sign.
type integer uint8

const (
	u8  integer = 1
	u16 integer = 2
	u32 integer = 4
	u64 integer = 8

	bigEndian integer = 0x10
	be16              = 2 | bigEndian
	be32              = 4 | bigEndian
)

func (w integer) bytes() int { return int(w &^ bigEndian) }

// max is the largest number of this width.
func (w integer) max() uint64 { return 1<<(8*w.bytes()) - 1 }

func (w integer) appendUint(b []byte, v uint64) []byte {
	switch w {
	case u8:
		return append(b, uint8(v))
	case u16:
		return binary.NativeEndian.AppendUint16(b, uint16(v))
	case u32:
		return binary.NativeEndian.AppendUint32(b, uint32(v))
	case be16:
		return binary.BigEndian.AppendUint16(b, uint16(v))
	case be32:
		return binary.BigEndian.AppendUint32(b, uint32(v))
	}
	return binary.NativeEndian.AppendUint64(b, v)
}

// parseUint reads a payload; ok is false when it is too short.
func (w integer) parseUint(b []byte) (v uint64, ok bool) {
	if len(b) < w.bytes() {
		return 0, false
	}
	switch w {
	case u8:
		return uint64(b[0]), true
	case u16:
		return uint64(binary.NativeEndian.Uint16(b)), true
	case u32:
		return uint64(binary.NativeEndian.Uint32(b)), true
	case be16:
		return uint64(binary.BigEndian.Uint16(b)), true
	case be32:
		return uint64(binary.BigEndian.Uint32(b)), true
	}
	return binary.NativeEndian.Uint64(b), true
}

// refIndex is the index of another link, of 32 bits.
type refIndex struct{ sameBytes }

func (refIndex) check(v any) string {
	if i := v.(*Ref).Index; i < 0 || i > math.MaxInt32 {
		return fmt.Sprintf("%d, out of range (0 to %d)", i, math.MaxInt32)
	}
	return ""
}

func (refIndex) isSet(v any, zero bool) bool   { return zero || v.(*Ref).Index != 0 }
func (refIndex) append(b []byte, v any) []byte { return u32.appendUint(b, uint64(v.(*Ref).Index)) }

func (refIndex) parse(b []byte, v any, _ *store) {
	if n, ok := u32.parseUint(b); ok {
		v.(*Ref).Index = int(int32(n))
	}
}

// deref returns the value behind v, which is the pointer to a number or the pointer to
// a pointer to one; ok is false where that is nil.
func deref(v any) (e reflect.Value, isPointer, ok bool) {
	e = reflect.ValueOf(v).Elem()
	if e.Kind() != reflect.Pointer {
		return e, false, true
	}
	return e.Elem(), true, !e.IsNil()
}

func (w integer) check(v any) string {
	e, _, ok := deref(v)
	switch {
	case !ok || e.Kind() == reflect.Bool || e.Kind() == reflect.Int32:
	case e.CanInt() && (e.Int() < 0 || uint64(e.Int()) > w.max()):
		return fmt.Sprintf("%d, out of range (0 to %d)", e.Int(), w.max())
	case e.CanUint() && e.Uint() > w.max():
		return fmt.Sprintf("%d, out of range (0 to %d)", e.Uint(), w.max())
	}
	return ""
}

func (w integer) isSet(v any, zero bool) bool {
	e, isPointer, ok := deref(v)
	return ok && (isPointer || zero || !e.IsZero())
}

func (w integer) append(b []byte, v any) []byte {
	switch e, _, _ := deref(v); {
	case e.CanInt():
		return w.appendUint(b, uint64(e.Int()))
	case e.CanUint():
		return w.appendUint(b, e.Uint())
	case e.Bool():
		return w.appendUint(b, 1)
	}
	return w.appendUint(b, 0)
}

func (w integer) parse(b []byte, v any, s *store) {
	n, ok := w.parseUint(b)
	if !ok {
		return
	}
	e := reflect.ValueOf(v).Elem()
	if e.Kind() == reflect.Pointer {
		if p := s.room(v); p != nil {
			e.Set(reflect.ValueOf(p))
		} else {
			e.Set(reflect.New(e.Type().Elem()))
		}
		e = e.Elem()
	}
	switch {
	case e.Kind() == reflect.Int32:
		e.SetInt(int64(int32(n)))
	case e.CanInt():
		e.SetInt(int64(n))
	case e.CanUint():
		e.SetUint(n)
	default:
		e.SetBool(n != 0)
	}
}

func (integer) equal(want, have []byte) bool { return bytes.Equal(want, have) }

// interval is a time in a unit. The kernel counts in its own ticks: what it reports
// may be one unit off.
type interval struct {
	width integer
	unit  time.Duration
}

const (
	ticks  = time.Second / 100 // USER_HZ, the same on every Linux
	millis = time.Millisecond
)

var (
	ticks32   = &interval{u32, ticks}
	ticks64   = &interval{u64, ticks}
	millis32  = &interval{u32, millis}
	seconds32 = &interval{u32, time.Second}
)

func (i *interval) check(v any) string {
	e, _, ok := deref(v)
	if !ok {
		return ""
	}
	d := time.Duration(e.Int())
	if d < 0 || d%i.unit != 0 || uint64(d/i.unit) > i.width.max() {
		return fmt.Sprintf("%v, not a multiple of %v from 0 to %d times that", d, i.unit, i.width.max())
	}
	return ""
}

func (i *interval) isSet(v any, zero bool) bool { return i.width.isSet(v, zero) }

func (i *interval) append(b []byte, v any) []byte {
	e, _, _ := deref(v)
	return i.width.appendUint(b, uint64(time.Duration(e.Int())/i.unit))
}

func (i *interval) parse(b []byte, v any, _ *store) {
	n, ok := i.width.parseUint(b)
	d := time.Duration(min(n, uint64(math.MaxInt64/i.unit))) * i.unit
	switch p := v.(type) {
	case *time.Duration:
		if ok {
			*p = d
		}
	case **time.Duration:
		if ok {
			*p = &d
		}
	}
}

func (i *interval) equal(want, have []byte) bool {
	a, _ := i.width.parseUint(want)
	b, ok := i.width.parseUint(have)
	return ok && a-b+1 <= 2
}

// flagAttr is on when its attribute is there (NLA_FLAG). Some kernels report it with
// a byte of 0 or 1.
type flagAttr struct{}

func (flagAttr) check(any) string                { return "" }
func (flagAttr) isSet(v any, _ bool) bool        { return *v.(*bool) }
func (flagAttr) append(b []byte, _ any) []byte   { return b }
func (flagAttr) parse(b []byte, v any, _ *store) { *v.(*bool) = len(b) == 0 || b[0] != 0 }
func (flagAttr) equal(_, have []byte) bool       { return len(have) == 0 || have[0] != 0 }

// text is a string that ends in a NUL; the empty one is left out.
type text struct{ sameBytes }

func (text) isSet(v any, _ bool) bool      { return *v.(*string) != "" }
func (text) append(b []byte, v any) []byte { return append(append(b, *v.(*string)...), 0) }

func (text) parse(b []byte, v any, _ *store) {
	b, _, _ = bytes.Cut(b, []byte{0})
	*v.(*string) = string(b)
}

// hardware is a hardware address of six bytes; nil is left out.
type hardware struct{ sameBytes }

func (hardware) check(v any) string {
	if mac := *v.(*net.HardwareAddr); mac != nil && len(mac) != 6 {
		return fmt.Sprintf("%q, not a hardware address of 6 bytes", mac)
	}
	return ""
}

func (hardware) isSet(v any, _ bool) bool      { return *v.(*net.HardwareAddr) != nil }
func (hardware) append(b []byte, v any) []byte { return append(b, *v.(*net.HardwareAddr)...) }

func (hardware) parse(b []byte, v any, _ *store) {
	if len(b) > 0 {
		*v.(*net.HardwareAddr) = bytes.Clone(b)
	}
}

// ip4 and ip6 are an IP address of the family. The kernel reports the unspecified
// address where there is none.
type (
	ip4 struct{ sameBytes }
	ip6 struct{ sameBytes }
)

func (ip4) check(v any) string { return checkIP(v) }
func (ip6) check(v any) string { return checkIP(v) }

func checkIP(v any) string {
	if a := v.(*netip.Addr); a.Is4In6() || a.Zone() != "" {
		return fmt.Sprintf("%s: give IPv4 in its own form, and no zone", a)
	}
	return ""
}

func (ip4) isSet(v any, _ bool) bool        { return v.(*netip.Addr).Is4() }
func (ip6) isSet(v any, _ bool) bool        { return v.(*netip.Addr).Is6() }
func (ip4) append(b []byte, v any) []byte   { return append(b, v.(*netip.Addr).AsSlice()...) }
func (ip6) append(b []byte, v any) []byte   { return append(b, v.(*netip.Addr).AsSlice()...) }
func (ip4) parse(b []byte, v any, _ *store) { parseIP(b, v) }
func (ip6) parse(b []byte, v any, _ *store) { parseIP(b, v) }

func parseIP(b []byte, v any) {
	if a, ok := netip.AddrFromSlice(b); ok && !a.IsUnspecified() {
		*v.(*netip.Addr) = a
	}
}

// raw is the payload of an attribute that the library does not know.
type raw struct{ sameBytes }

func (raw) isSet(any, bool) bool            { return true }
func (raw) append(b []byte, v any) []byte   { return append(b, *v.(*[]byte)...) }
func (raw) parse(b []byte, v any, _ *store) { *v.(*[]byte) = bytes.Clone(b) }

// readOnly is what the kernel reports and does not take.
type readOnly struct{ sameBytes }

func (readOnly) isSet(any, bool) bool          { return false }
func (readOnly) append(b []byte, _ any) []byte { return b }

// skipped is an attribute that is read elsewhere, or not at all.
type skipped struct{ readOnly }

func (skipped) parse([]byte, any, *store) {}

// group holds attributes: its value is the fields.
type group struct{ readOnly }

func (group) parse(b []byte, v any, _ *store) {
	var in attrs
	if in.index(b) == nil {
		in.decode(v.([]field))
	}
}

// maskedBits are switches in a struct of values and a mask of those that are meant, from
// the lowest bit: a list of pointers to pointers. Those in inverse are the opposite of
// their fields. What a kernel does not know it reports as not meant.
type maskedBits struct{ inverse uint32 }

func (*maskedBits) check(any) string { return "" }

func (*maskedBits) isSet(v any, _ bool) bool {
	for _, p := range v.([]**bool) {
		if *p != nil {
			return true
		}
	}
	return false
}

func (m *maskedBits) append(b []byte, v any) []byte {
	var value, mask uint32
	for i, p := range v.([]**bool) {
		if *p == nil {
			continue
		}
		mask |= 1 << i
		if **p {
			value |= 1 << i
		}
	}
	return appendPair(b, value^m.inverse&mask, mask)
}

func (m *maskedBits) parse(b []byte, v any, _ *store) {
	value, mask, ok := cutPair(b)
	for i, p := range v.([]**bool) {
		if ok && mask&(1<<i) != 0 {
			*p = new((value^m.inverse)&(1<<i) != 0)
		}
	}
}

func (*maskedBits) equal(want, have []byte) bool {
	wv, wm, _ := cutPair(want)
	hv, hm, ok := cutPair(have)
	return ok && wm&hm == wm && wv&wm == hv&wm
}

// appendPair appends a struct of two numbers of 32 bits.
func appendPair(b []byte, x, y uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, x), y)
}

func cutPair(b []byte) (x, y uint32, ok bool) {
	if len(b) < 8 {
		return 0, 0, false
	}
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), true
}

// bits are switches in one number of 16 bits without a mask, from the lowest: a list of
// pointers.
type bits struct{ sameBytes }

func (bits) number(v any) (n uint16) {
	for i, p := range v.([]*bool) {
		if *p {
			n |= 1 << i
		}
	}
	return n
}

func (c bits) isSet(v any, zero bool) bool   { return zero || c.number(v) != 0 }
func (c bits) append(b []byte, v any) []byte { return u16.appendUint(b, uint64(c.number(v))) }

func (bits) parse(b []byte, v any, _ *store) {
	n, ok := u16.parseUint(b)
	for i, p := range v.([]*bool) {
		if ok {
			*p = n&(1<<i) != 0
		}
	}
}

// addressList is a list of addresses, each in an attribute whose type is its place.
type addressList struct{ sameBytes }

func (addressList) isSet(v any, _ bool) bool { return len(*v.(*[]netip.Addr)) > 0 }

func (addressList) append(b []byte, v any) []byte {
	for i, a := range *v.(*[]netip.Addr) {
		b = nl.AppendAttr(b, uint16(i), a.AsSlice())
	}
	return b
}

func (addressList) parse(b []byte, v any, _ *store) {
	p := v.(*[]netip.Addr)
	for w := nl.Walk(b); w.Next(); {
		if a, ok := netip.AddrFromSlice(w.Data()); ok {
			*p = append(*p, a)
		}
	}
}

// portRange is a struct of two ports in network byte order.
type portRange struct{ sameBytes }

func (portRange) isSet(v any, _ bool) bool { return *v.(*PortRange) != PortRange{} }

func (portRange) append(b []byte, v any) []byte {
	p := v.(*PortRange)
	return be16.appendUint(be16.appendUint(b, uint64(p.Low)), uint64(p.High))
}

func (portRange) parse(b []byte, v any, _ *store) {
	if len(b) >= 4 {
		*v.(*PortRange) = PortRange{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
}
