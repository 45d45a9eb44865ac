package nl

import "encoding/binary"

// Request is one message to send.
type Request struct {
	Type  uint16 // RTM_NEWLINK, NFNL_SUBSYS_NFTABLES<<8 | NFT_MSG_NEWRULE, ...
	Flags uint16 // NLM_F_CREATE, NLM_F_EXCL, ...; REQUEST, ACK and DUMP are the exchange's to add
	Body  []byte // the fixed header and the attributes

	// Names gives the attribute with the given path of types (from the
	// outermost) the name of its uapi constant, or "". It may be nil.
	Names func(path []uint16) string
}

// Message is one message received. Body aliases the receive buffer: it is valid
// until the callback that got it returns.
type Message struct {
	Type, Flags uint16
	Seq         uint32
	Port        uint32 // of the connection whose request it answers or notifies (Conn.PortID); 0 is the kernel's own
	Body        []byte
}

// msgHeader is the size of struct nlmsghdr.
const msgHeader = 16

// appendMessage appends r with its netlink header, padded to 4 bytes.
func appendMessage(b []byte, r *Request, flags uint16, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(msgHeader+len(r.Body)))
	b = binary.NativeEndian.AppendUint16(b, r.Type)
	b = binary.NativeEndian.AppendUint16(b, r.Flags|flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0) // port id: the kernel knows the sender
	b = append(b, r.Body...)
	return pad(b, len(r.Body))
}

// cutMessage reads the message at an offset of b and returns where the next one
// begins: 0 at the end, and when what is left is no message.
func cutMessage(b []byte, at int) (m Message, next int) {
	rest := b[min(at, len(b)):]
	if len(rest) < msgHeader {
		return m, 0
	}
	n := binary.NativeEndian.Uint32(rest)
	if n < msgHeader || uint64(n) > uint64(len(rest)) {
		return m, 0
	}
	m = Message{
		Type:  binary.NativeEndian.Uint16(rest[4:]),
		Flags: binary.NativeEndian.Uint16(rest[6:]),
		Seq:   binary.NativeEndian.Uint32(rest[8:]),
		Port:  binary.NativeEndian.Uint32(rest[12:]),
		Body:  rest[msgHeader:n:n],
	}
	return m, at + align(int(n))
}
