package ct

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var errShort = errors.New("malformed reply: shorter than its header")

// decodeFlow reads the body of a CT_NEW message.
func decodeFlow(b []byte) (f Flow, err error) {
	if len(b) < 4 {
		return f, errShort
	}
	w := nl.Walk(b[4:])
	for err == nil && w.Next() {
		switch w.Type() {
		case attrTupleOrig:
			f.Orig, err = decodeTuple(w.Nested())
		case attrTupleReply:
			f.Reply, err = decodeTuple(w.Nested())
		case attrStatus:
			f.Status = w.BE32()
		case attrProtoinfo:
			f.State, err = decodeState(w.Nested())
		case attrTimeout:
			f.Timeout = time.Duration(w.BE32()) * time.Second
		case attrMark:
			f.Mark = w.BE32()
		case attrCountersOrig:
			f.Counted = true
			f.Sent, err = decodeCounter(w.Nested())
		case attrCountersReply:
			f.Counted = true
			f.Received, err = decodeCounter(w.Nested())
		case attrID:
			f.ID = w.BE32()
		case attrZone:
			f.Zone = w.BE16()
		}
	}
	if err == nil {
		err = w.Err()
	}
	return f, err
}

// decodeCount reads the number of flows in the body of a CT_GET_STATS message;
// where it is not in it, it may be any.
func decodeCount(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, errShort
	}
	n := math.MaxInt32
	w := nl.Walk(b[4:])
	for w.Next() {
		if w.Type() == statsEntries {
			n = int(w.BE32())
		}
	}
	return n, w.Err()
}

func decodeTuple(w nl.Walker) (t Tuple, err error) {
	var src, dst netip.Addr
	var sport, dport uint16
	for w.Next() {
		switch w.Type() {
		case tupleIP:
			ip := w.Nested()
			for ip.Next() {
				switch ip.Type() {
				case ip4Src, ip6Src:
					src, _ = netip.AddrFromSlice(ip.Data())
				case ip4Dst, ip6Dst:
					dst, _ = netip.AddrFromSlice(ip.Data())
				}
			}
			err = ip.Err()
		case tupleProto:
			p := w.Nested()
			for p.Next() {
				switch p.Type() {
				case protoNum:
					t.Proto = p.U8()
				case protoSrcPort:
					sport = p.BE16()
				case protoDstPort:
					dport = p.BE16()
				case protoICMPID, protoICMP6ID:
					t.ICMP.ID = p.BE16()
				case protoICMPID + 1, protoICMP6ID + 1:
					t.ICMP.Type = p.U8()
				case protoICMPID + 2, protoICMP6ID + 2:
					t.ICMP.Code = p.U8()
				}
			}
			err = p.Err()
		case tupleZone:
			t.Zone = w.BE16()
		}
		if err != nil {
			return t, err
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return t, w.Err()
}

// decodeState reads CTA_PROTOINFO: the protocol's own attributes, of which the
// first is the state, whatever the protocol (TCP 1, DCCP 2, SCTP 3).
func decodeState(w nl.Walker) (state uint8, err error) {
	for w.Next() {
		p := w.Nested()
		for p.Next() {
			if p.Type() == 1 {
				state = p.U8()
			}
		}
		if err := p.Err(); err != nil {
			return 0, err
		}
	}
	return state, w.Err()
}

func decodeCounter(w nl.Walker) (c Counter, err error) {
	for w.Next() {
		switch w.Type() {
		case counterPacket:
			c.Packets = w.BE64()
		case counterBytes:
			c.Bytes = w.BE64()
		}
	}
	return c, w.Err()
}

// hasPorts says whether tuples of the protocol have ports.
func hasPorts(proto uint8) bool {
	return proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP || proto == unix.IPPROTO_SCTP
}
