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
	// Where it stands are numbers and no slices: to write a pointer costs much
	// more while the garbage collector runs.
	b        []byte
	from, to int // payload of the current attribute
	err      error
}

// Walk returns a walker over b, which holds whole attributes.
func Walk(b []byte) Walker { return Walker{b: b} }

// Next steps to the next attribute. It returns false at the end and at the first malformed
// attribute, which Err then reports.
func (w *Walker) Next() bool {
	if at := align(w.to); at+attrHeader <= len(w.b) {
		if n := int(binary.NativeEndian.Uint16(w.b[at:])); n >= attrHeader && n <= len(w.b)-at {
			w.from, w.to = at+attrHeader, at+n
			return true
		}
	}
	return w.stop()
}

// stop ends the walk where Next found no attribute.
func (w *Walker) stop() bool {
	if at := align(w.to); at+attrHeader <= len(w.b) {
		w.fail("attribute %d claims %d of %d bytes", binary.NativeEndian.Uint16(w.b[at+2:])&typeMask, binary.NativeEndian.Uint16(w.b[at:]), len(w.b)-at)
	} else if at < len(w.b) {
		w.fail("%d stray bytes after the last attribute", len(w.b)-at)
	}
	return false
}

// fail ends the walk, behind the current attribute, with an error.
func (w *Walker) fail(format string, args ...any) {
	w.b = w.b[:w.to]
	if w.err == nil {
		w.err = fmt.Errorf("malformed reply: "+format, args...)
	}
}

// Err returns the first malformed or too short attribute, or nil.
func (w *Walker) Err() error { return w.err }

// Type returns the current attribute's type without its flag bits.
func (w *Walker) Type() uint16 { return w.flags() & typeMask }

// flags is the type with its flag bits.
func (w *Walker) flags() uint16 { return binary.NativeEndian.Uint16(w.b[w.from-2:]) }

// IsNested reports whether the current attribute says that it holds attributes.
// The kernel does not always say so.
func (w *Walker) IsNested() bool { return w.flags()&flagNested != 0 }

// Data returns the current payload. It aliases what is walked over.
func (w *Walker) Data() []byte { return w.b[w.from:w.to:w.to] }

// Nested returns a walker over the attributes inside the current one.
func (w *Walker) Nested() Walker { return Walk(w.Data()) }

// U8 reads one byte.
func (w *Walker) U8() uint8 {
	if w.short(1) {
		return 0
	}
	return w.b[w.from]
}

// U16 reads 16 bits in the machine's byte order.
func (w *Walker) U16() uint16 {
	if w.short(2) {
		return 0
	}
	return binary.NativeEndian.Uint16(w.b[w.from:])
}

// U32 reads 32 bits in the machine's byte order.
func (w *Walker) U32() uint32 {
	if w.short(4) {
		return 0
	}
	return binary.NativeEndian.Uint32(w.b[w.from:])
}

// U64 reads 64 bits in the machine's byte order.
func (w *Walker) U64() uint64 {
	if w.short(8) {
		return 0
	}
	return binary.NativeEndian.Uint64(w.b[w.from:])
}

// BE16 reads 16 bits in network byte order.
func (w *Walker) BE16() uint16 {
	if w.short(2) {
		return 0
	}
	return binary.BigEndian.Uint16(w.b[w.from:])
}

// BE32 reads 32 bits in network byte order.
func (w *Walker) BE32() uint32 {
	if w.short(4) {
		return 0
	}
	return binary.BigEndian.Uint32(w.b[w.from:])
}

// BE64 reads 64 bits in network byte order.
func (w *Walker) BE64() uint64 {
	if w.short(8) {
		return 0
	}
	return binary.BigEndian.Uint64(w.b[w.from:])
}

// String reads a string up to its NUL or the end of the payload.
func (w *Walker) String() string {
	s, _, _ := bytes.Cut(w.Data(), []byte{0})
	return string(s)
}

func (w *Walker) short(n int) bool {
	if w.to-w.from >= n {
		return false
	}
	w.fail("attribute %d has %d bytes, want %d", w.Type(), w.to-w.from, n)
	return true
}
