package nl

import (
	"encoding/binary"
	"math"
)

// Flag bits of an attribute's type (linux/netlink.h: NLA_F_*).
const (
	flagNested       = 1 << 15
	flagNetByteorder = 1 << 14
	typeMask         = ^uint16(flagNested | flagNetByteorder)
)

// attrHeader is the size of struct nlattr: a length and a type, 16 bits each.
const attrHeader = 4

// align rounds n up to the 4 bytes that netlink aligns everything to.
func align(n int) int { return (n + 3) &^ 3 }

// maxPayload is the longest payload: an attribute's length field has 16 bits and
// counts the header.
const maxPayload = math.MaxUint16 - attrHeader

// tooLong is the length of an attribute whose payload does not fit. No attribute is
// shorter than its header, so that the request is refused when it is to be sent (see
// Request.check).
const tooLong = 0

// AppendAttr appends an attribute with the given payload, padded to 4 bytes. A payload
// of more than 65,531 bytes makes the exchange refuse the request.
func AppendAttr(b []byte, typ uint16, data []byte) []byte {
	b = append(header(b, typ, len(data)), data...)
	return pad(b, len(data))
}

// AppendString appends a NUL-terminated string (NLA_NUL_STRING).
func AppendString(b []byte, typ uint16, s string) []byte {
	b = append(header(b, typ, len(s)+1), s...)
	return pad(append(b, 0), len(s)+1)
}

// AppendFlag appends an attribute without a payload (NLA_FLAG).
func AppendFlag(b []byte, typ uint16) []byte { return header(b, typ, 0) }

// AppendU8 appends one byte.
func AppendU8(b []byte, typ uint16, v uint8) []byte {
	return append(header(b, typ, 1), v, 0, 0, 0)
}

// AppendU16 appends 16 bits in the machine's byte order.
func AppendU16(b []byte, typ, v uint16) []byte {
	return pad(binary.NativeEndian.AppendUint16(header(b, typ, 2), v), 2)
}

// AppendU32 appends 32 bits in the machine's byte order.
func AppendU32(b []byte, typ uint16, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(header(b, typ, 4), v)
}

// AppendU64 appends 64 bits in the machine's byte order.
func AppendU64(b []byte, typ uint16, v uint64) []byte {
	return binary.NativeEndian.AppendUint64(header(b, typ, 8), v)
}

// AppendBE16 appends 16 bits in network byte order.
func AppendBE16(b []byte, typ, v uint16) []byte {
	return pad(binary.BigEndian.AppendUint16(header(b, typ, 2), v), 2)
}

// AppendBE32 appends 32 bits in network byte order.
func AppendBE32(b []byte, typ uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(header(b, typ, 4), v)
}

// AppendBE64 appends 64 bits in network byte order.
func AppendBE64(b []byte, typ uint16, v uint64) []byte {
	return binary.BigEndian.AppendUint64(header(b, typ, 8), v)
}

// Open opens an attribute and returns where it stands; hand that to [Close] once the
// payload is appended.
func Open(b []byte, typ uint16) ([]byte, int) { return header(b, typ, 0), len(b) }

// Close closes the attribute that [Open] opened at offset at: it writes the length and
// pads the payload.
func Close(b []byte, at int) []byte {
	End(b, at)
	return pad(b, len(b)-at)
}

// Payload returns what was appended to an attribute that is open at offset at.
func Payload(b []byte, at int) []byte { return b[at+attrHeader:] }

// Begin opens an attribute that holds attributes, and returns where it stands;
// hand that to [End] once they are appended.
func Begin(b []byte, typ uint16) ([]byte, int) { return Open(b, typ|flagNested) }

// End closes the attribute that [Begin] opened at offset at: it writes the length.
func End(b []byte, at int) { binary.NativeEndian.PutUint16(b[at:], length(len(b)-at-attrHeader)) }

func header(b []byte, typ uint16, payload int) []byte {
	b = binary.NativeEndian.AppendUint16(b, length(payload))
	return binary.NativeEndian.AppendUint16(b, typ)
}

func length(payload int) uint16 {
	if payload > maxPayload {
		return tooLong
	}
	return uint16(attrHeader + payload)
}

func pad(b []byte, n int) []byte {
	for ; n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}
