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
	newSetElem     = subsysNftables | 12
	getSetElem     = subsysNftables | 13
	delSetElem     = subsysNftables | 14
)

// nfgen is struct nfgenmsg.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
}

// ElementBatch builds the transaction that adds or deletes one element of a map.
func ElementBatch(table, set string, add bool, key, data []byte) []byte {
	return ElementsBatch(table, set, add, [][]byte{key}, [][]byte{data})
}

// ElementsBatch does so for many, some hundred a message.
func ElementsBatch(table, set string, add bool, keys, data [][]byte) []byte {
	const perMessage = 500
	b := Message(nil, batchBegin, 0, nfgen(unix.AF_UNSPEC, 10))
	for len(keys) > 0 {
		n := min(perMessage, len(keys))
		typ, flags := uint16(newSetElem), uint16(unix.NLM_F_CREATE|unix.NLM_F_EXCL)
		if !add {
			typ, flags = delSetElem, 0
		}
		if n == len(keys) {
			flags |= unix.NLM_F_ACK
		}
		b = Message(b, typ, flags, elements(table, set, add, keys[:n], data[:n]))
		keys, data = keys[n:], data[n:]
	}
	return Message(b, batchEnd, 0, nfgen(unix.AF_UNSPEC, 10))
}

func elements(table, set string, withData bool, keys, data [][]byte) []byte {
	b := nfgen(unix.NFPROTO_INET, 0)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_SET, set)
	b, list := nl.Begin(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for i := range keys {
		var elem int
		b, elem = nl.Begin(b, unix.NFTA_LIST_ELEM)
		b = value(b, unix.NFTA_SET_ELEM_KEY, keys[i])
		if withData {
			b = value(b, unix.NFTA_SET_ELEM_DATA, data[i])
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

// HasElement returns nil if a map has the key.
func (s *Socket) HasElement(table, set string, key []byte) error {
	return s.Send(Message(nil, getSetElem, unix.NLM_F_ACK, elements(table, set, false, [][]byte{key}, nil)))
}
