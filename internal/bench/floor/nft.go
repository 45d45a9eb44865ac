package floor

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const (
	subsysNftables = 10 << 8 // NFNL_SUBSYS_NFTABLES
	batchBegin     = 16      // NFNL_MSG_BATCH_BEGIN
	batchEnd       = 17
	newGen         = subsysNftables | 15
	getGen         = subsysNftables | 16
	getFlows       = 1<<8 | 1 // CTNETLINK's GET
	getStats       = 1<<8 | 5 // CTNETLINK's GET_STATS
	newSetElem     = subsysNftables | 12
	getSetElem     = subsysNftables | 13
	delSetElem     = subsysNftables | 14
)

// nfgen is struct nfgenmsg.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
}

// Elements are elements of a set or map.
type Elements struct {
	Set        string
	Keys, Data [][]byte
	Comment    string // of each
}

// Batch builds the transaction that adds or deletes elements, some hundred a
// message. Of which generation it is [SetGeneration] says.
func Batch(table string, add bool, all ...Elements) []byte {
	const perMessage = 500
	begin := nl.AppendBE32(nfgen(unix.AF_UNSPEC, 10), unix.NFNL_BATCH_GENID, 0)
	b := Message(nil, batchBegin, 0, begin)
	for at, e := range all {
		for len(e.Keys) > 0 {
			n := min(perMessage, len(e.Keys))
			some := Elements{e.Set, e.Keys[:n], e.Data, e.Comment}
			typ, flags := uint16(delSetElem), uint16(0)
			if add {
				typ, flags = newSetElem, unix.NLM_F_CREATE|unix.NLM_F_EXCL
				if e.Data != nil { // it is a map
					some.Data, e.Data = e.Data[:n], e.Data[n:]
				}
			} else {
				some.Data, some.Comment = nil, ""
			}
			e.Keys = e.Keys[n:]
			if len(e.Keys) == 0 && at == len(all)-1 {
				flags |= unix.NLM_F_ACK
			}
			b = Message(b, typ, flags, some.body(table))
		}
	}
	return Message(b, batchEnd, 0, nfgen(unix.AF_UNSPEC, 10))
}

// SetGeneration ties a batch to a generation of the ruleset: the kernel refuses it
// when there has been another since.
func SetGeneration(batch []byte, gen uint32) { binary.BigEndian.PutUint32(batch[24:], gen) }

// GetGeneration appends the question for the generation.
func GetGeneration(b []byte) []byte {
	return Message(b, getGen, unix.NLM_F_ACK, nfgen(unix.AF_UNSPEC, 0))
}

// GetElement appends the question for an element.
func GetElement(b []byte, table, set string, key []byte) []byte {
	return Message(b, getSetElem, unix.NLM_F_ACK, Elements{Set: set, Keys: [][]byte{key}}.body(table))
}

// GetElements is the request for all elements of a set, for [Socket.Dump].
func GetElements(table, set string) []byte {
	return Message(nil, getSetElem, unix.NLM_F_DUMP, Elements{Set: set}.body(table))
}

// GetFlows is the request for all flows in conntrack.
func GetFlows() []byte {
	return Message(nil, getFlows, unix.NLM_F_DUMP, nfgen(unix.AF_UNSPEC, 0))
}

// DeletePortFlows is the request to delete the flows of TCP to a port, of one family (Linux 6.11).
func DeletePortFlows(v6 bool, port uint16) []byte {
	const (
		tupleOrig  = 1           // CTA_TUPLE_ORIG
		tupleProto = 2           // CTA_TUPLE_PROTO
		protoNum   = 1           // CTA_PROTO_NUM
		protoDst   = 3           // CTA_PROTO_DST_PORT
		filter     = 25          // CTA_FILTER
		origFlags  = 1           // CTA_FILTER_ORIG_FLAGS
		compares   = 1<<3 | 1<<5 // CTA_FILTER_F_CTA_PROTO_NUM and _DST_PORT
	)
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	b, tuple := nl.Begin(nfgen(family, 0), tupleOrig)
	b, proto := nl.Begin(b, tupleProto)
	b = nl.AppendU8(b, protoNum, unix.IPPROTO_TCP)
	b = nl.AppendBE16(b, protoDst, port)
	nl.End(b, proto)
	nl.End(b, tuple)
	b, which := nl.Begin(b, filter)
	b = nl.AppendU32(b, origFlags, compares)
	nl.End(b, which)
	return Message(nil, deleteFlows, unix.NLM_F_ACK, b)
}

// CountFlows is the request for the number of flows in conntrack.
func CountFlows() []byte { return Message(nil, getStats, unix.NLM_F_ACK, nfgen(unix.AF_UNSPEC, 0)) }

func (e Elements) body(table string) []byte {
	b := nfgen(unix.NFPROTO_INET, 0)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_SET, e.Set)
	if len(e.Keys) == 0 {
		return b
	}
	b, list := nl.Begin(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for i := range e.Keys {
		var elem int
		b, elem = nl.Begin(b, unix.NFTA_LIST_ELEM)
		b = value(b, unix.NFTA_SET_ELEM_KEY, e.Keys[i])
		if e.Data != nil {
			b = value(b, unix.NFTA_SET_ELEM_DATA, e.Data[i])
		}
		if e.Comment != "" {
			text := append([]byte{0, byte(len(e.Comment) + 1)}, e.Comment...) // as nft writes it
			b = nl.AppendAttr(b, unix.NFTA_SET_ELEM_USERDATA, append(text, 0))
		}
		nl.End(b, elem)
	}
	nl.End(b, list)
	return b
}

func value(b []byte, typ uint16, v []byte) []byte {
	b, at := nl.Begin(b, typ)
	b = nl.AppendAttr(b, unix.NFTA_DATA_VALUE, v)
	nl.End(b, at)
	return b
}

// Batch sends a transaction and waits for the answer to its last message but one.
func (s *Socket) Batch(batch []byte) error {
	if len(batch) > 1<<16 {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(batch))
	}
	last := s.number(batch) - 1
	if err := write(s.fd, batch); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		n, err := read(s.fd, s.buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			if errno := -int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 {
				return syscall.Errno(errno)
			}
			if binary.NativeEndian.Uint32(b[8:]) == last {
				return nil
			}
			b = b[min((int(binary.NativeEndian.Uint32(b))+3)&^3, len(b)):]
		}
	}
}

// Ask sends questions, which may ask for what is not there, and hands the
// generation on if it was among them. The answer to the last is waited for.
func (s *Socket) Ask(questions []byte) (gen uint32, err error) {
	last := s.number(questions)
	if err := write(s.fd, questions); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := read(s.fd, s.buf)
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			switch binary.NativeEndian.Uint16(b[4:]) {
			case newGen:
				gen = binary.BigEndian.Uint32(b[24:])
			case unix.NLMSG_ERROR:
				errno := -int32(binary.NativeEndian.Uint32(b[16:]))
				if errno != 0 && errno != int32(unix.ENOENT) {
					return 0, syscall.Errno(errno)
				}
				if binary.NativeEndian.Uint32(b[8:]) == last {
					return gen, nil
				}
			}
			b = b[min((int(binary.NativeEndian.Uint32(b))+3)&^3, len(b)):]
		}
	}
}

// HasElement returns nil if a map has the key.
func (s *Socket) HasElement(table, set string, key []byte) error {
	return s.Send(GetElement(nil, table, set, key))
}
