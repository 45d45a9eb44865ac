package floor

import (
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
)

// Message appends a netlink message of the type, with NLM_F_REQUEST and the
// given flags, to b.
func Message(b []byte, typ, flags uint16, body []byte) []byte {
	const request = 1
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|request)
	b = append(b, make([]byte, 8)...)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// IfInfo is the fixed header of a link message (struct ifinfomsg).
func IfInfo(index int, up bool) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	if up {
		binary.NativeEndian.PutUint32(b[8:], 1)
		binary.NativeEndian.PutUint32(b[12:], 1)
	}
	return b
}

// Attr appends an attribute; nested ones are built with [nl.Begin].
func Attr(b []byte, typ uint16, data []byte) []byte { return nl.AppendAttr(b, typ, data) }
