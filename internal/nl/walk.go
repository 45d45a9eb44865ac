package nl

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A Walker steps through a sequence of attributes without copying them:
//
//	w := nl.Walk(attrs)
//	for w.Next() {
//		switch w.Type() {
//		case unix.IFLA_MTU:
//			mtu = w.U32()
//		}
//	}
//	return w.Err()
//
// Attributes that the caller does not ask for are skipped, and payloads longer
// than asked for are read for their known part: a newer kernel breaks nothing.
// A payload shorter than asked for reads as zero and sets Err.
type Walker struct {
	rest []byte // what has not been stepped over yet
	data []byte // payload of the current attribute
	typ  uint16 // its type with the flag bits
	err  error
}

// Walk returns a walker over b, which holds whole attributes.
func Walk(b []byte) Walker { return Walker{rest: b} }

// Next steps to the next attribute. It returns false at the end and at the
// first malformed attribute, which Err then tells.
func (w *Walker) Next() bool {
	if w.err != nil || len(w.rest) == 0 {
		return false
	}
	if len(w.rest) < attrHeader {
		w.err = fmt.Errorf("malformed reply: %d stray bytes after the last attribute", len(w.rest))
		return false
	}
	n := int(binary.NativeEndian.Uint16(w.rest))
	w.typ = binary.NativeEndian.Uint16(w.rest[2:])
	if n < attrHeader || n > len(w.rest) {
		w.err = fmt.Errorf("malformed reply: attribute %d claims %d of %d bytes", w.Type(), n, len(w.rest))
		return false
	}
	w.data = w.rest[attrHeader:n:n]
	w.rest = w.rest[min(align(n), len(w.rest)):]
	return true
}

// Err returns the first malformed or too short attribute, or nil.
func (w *Walker) Err() error { return w.err }

// Type returns the current attribute's type without its flag bits.
func (w *Walker) Type() uint16 { return w.typ & typeMask }

// IsNested reports whether the current attribute says that it holds attributes.
// The kernel does not always say so.
func (w *Walker) IsNested() bool { return w.typ&flagNested != 0 }

// Data returns the current payload. It aliases what is walked over.
func (w *Walker) Data() []byte { return w.data }

// Nested returns a walker over the attributes inside the current one.
func (w *Walker) Nested() Walker { return Walk(w.data) }

// U8 reads one byte.
func (w *Walker) U8() uint8 {
	if w.short(1) {
		return 0
	}
	return w.data[0]
}

// U16 reads 16 bits in the machine's byte order.
func (w *Walker) U16() uint16 {
	if w.short(2) {
		return 0
	}
	return binary.NativeEndian.Uint16(w.data)
}

// U32 reads 32 bits in the machine's byte order.
func (w *Walker) U32() uint32 {
	if w.short(4) {
		return 0
	}
	return binary.NativeEndian.Uint32(w.data)
}

// U64 reads 64 bits in the machine's byte order.
func (w *Walker) U64() uint64 {
	if w.short(8) {
		return 0
	}
	return binary.NativeEndian.Uint64(w.data)
}

// BE16 reads 16 bits in network byte order.
func (w *Walker) BE16() uint16 {
	if w.short(2) {
		return 0
	}
	return binary.BigEndian.Uint16(w.data)
}

// BE32 reads 32 bits in network byte order.
func (w *Walker) BE32() uint32 {
	if w.short(4) {
		return 0
	}
	return binary.BigEndian.Uint32(w.data)
}

// BE64 reads 64 bits in network byte order.
func (w *Walker) BE64() uint64 {
	if w.short(8) {
		return 0
	}
	return binary.BigEndian.Uint64(w.data)
}

// String reads a string up to its NUL or the end of the payload.
func (w *Walker) String() string {
	s, _, _ := bytes.Cut(w.data, []byte{0})
	return string(s)
}

func (w *Walker) short(n int) bool {
	if len(w.data) >= n {
		return false
	}
	if w.err == nil {
		w.err = fmt.Errorf("malformed reply: attribute %d has %d bytes, want %d", w.Type(), len(w.data), n)
	}
	return true
}
