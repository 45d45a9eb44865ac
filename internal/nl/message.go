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
	Port        uint32 // whose request it answers, or tells of (see Conn.PortID); 0 is the kernel's own doing
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

// cutMessage splits the first message off b. ok is false at the end and when
// what is left is no message.
func cutMessage(b []byte) (m Message, rest []byte, ok bool) {
	if len(b) < msgHeader {
		return m, nil, false
	}
	n := binary.NativeEndian.Uint32(b)
	if n < msgHeader || uint64(n) > uint64(len(b)) {
		return m, nil, false
	}
	m = Message{
		Type:  binary.NativeEndian.Uint16(b[4:]),
		Flags: binary.NativeEndian.Uint16(b[6:]),
		Seq:   binary.NativeEndian.Uint32(b[8:]),
		Port:  binary.NativeEndian.Uint32(b[12:]),
		Body:  b[msgHeader:n:n],
	}
	return m, b[min(align(int(n)), len(b)):], true
}
