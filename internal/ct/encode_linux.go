package ct

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Messages and attributes (linux/netfilter/nfnetlink_conntrack.h).
const (
	msgGet      = 1
	msgDelete   = 2
	msgGetStats = 5

	attrTupleOrig     = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoinfo     = 4
	attrTimeout       = 7
	attrMark          = 8
	attrCountersOrig  = 9
	attrCountersReply = 10
	attrID            = 12
	attrZone          = 18
	attrFilter        = 25
	attrStatusMask    = 26

	tupleIP    = 1
	tupleProto = 2
	tupleZone  = 3

	ip4Src = 1
	ip4Dst = 2
	ip6Src = 3
	ip6Dst = 4

	protoNum      = 1
	protoSrcPort  = 2
	protoDstPort  = 3
	protoICMPID   = 4 // then type and code
	protoICMP6ID  = 7
	counterPacket = 1
	counterBytes  = 2

	filterOrig  = 1 // CTA_FILTER_ORIG_FLAGS
	filterReply = 2 // CTA_FILTER_REPLY_FLAGS

	statsEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
)

// Parts of a tuple that a filter compares (CTA_FILTER_F_* in the kernel's
// nf_internals.h; part of its interface all the same).
const (
	partSrc     = 1 << 0
	partDst     = 1 << 1
	partProto   = 1 << 3
	partSrcPort = 1 << 4
	partDstPort = 1 << 5
)

// Bits of the status (linux/netfilter/nf_conntrack_common.h).
const (
	statusSeenReply = 1 << 1  // IPS_SEEN_REPLY
	statusDstNAT    = 1 << 5  // IPS_DST_NAT
	statusOffload   = 1 << 14 // IPS_OFFLOAD
)

func msgType(msg uint16) uint16 { return unix.NFNL_SUBSYS_CTNETLINK<<8 | msg }

// header is the struct nfgenmsg of a family, with room behind.
func header(v6 bool) []byte {
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	return append(make([]byte, 0, 128), family, unix.NFNETLINK_V0, 0, 0)
}

// everything is the body of a request for the flows of all families.
func everything() []byte { return []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0} }

// appendTuple appends a whole tuple.
func appendTuple(b []byte, typ uint16, t *Tuple) []byte {
	b, tuple := nl.Begin(b, typ)
	b, ip := nl.Begin(b, tupleIP)
	src, dst := uint16(ip4Src), uint16(ip4Dst)
	if t.Src.Addr().Is6() {
		src, dst = ip6Src, ip6Dst
	}
	b = nl.AppendAttr(b, src, t.Src.Addr().AsSlice())
	b = nl.AppendAttr(b, dst, t.Dst.Addr().AsSlice())
	nl.End(b, ip)
	b, proto := nl.Begin(b, tupleProto)
	b = nl.AppendU8(b, protoNum, t.Proto)
	switch t.Proto {
	case unix.IPPROTO_ICMP:
		b = appendICMP(b, protoICMPID, t.ICMP)
	case unix.IPPROTO_ICMPV6:
		b = appendICMP(b, protoICMP6ID, t.ICMP)
	default:
		b = nl.AppendBE16(b, protoSrcPort, t.Src.Port())
		b = nl.AppendBE16(b, protoDstPort, t.Dst.Port())
	}
	nl.End(b, proto)
	if t.Zone != 0 {
		b = nl.AppendBE16(b, tupleZone, t.Zone)
	}
	nl.End(b, tuple)
	return b
}

func appendICMP(b []byte, first uint16, i ICMP) []byte {
	b = nl.AppendBE16(b, first, i.ID)
	b = nl.AppendU8(b, first+1, i.Type)
	return nl.AppendU8(b, first+2, i.Code)
}

// deletion is the request to delete one flow. The id makes sure that it is not
// another one that has taken its place meanwhile.
func deletion(f *Flow) nl.Request {
	b := appendTuple(header(f.v6()), attrTupleOrig, &f.Orig)
	if f.Zone != 0 {
		b = nl.AppendBE16(b, attrZone, f.Zone)
	}
	return nl.Request{Type: msgType(msgDelete), Body: nl.AppendBE32(b, attrID, f.ID)}
}

// selection is the body of a request for the flows of a target: its protocol, its
// port unless it is a range, and its address if that is one of IPv4.
func selection(t Target) []byte { return selectionWith(t, false) }

// selectionWith adds where the flows were translated to: the port, and the address if that is one of
// IPv4.
func selectionWith(t Target, translated bool) []byte {
	flags := uint32(partProto)
	b, tuple := nl.Begin(header(t.Addr.Is6()), attrTupleOrig)
	if t.Addr.Is4() && !t.Addr.IsUnspecified() {
		flags |= partDst
		b = appendIP4(b, ip4Dst, t.Addr)
	}
	b, proto := nl.Begin(b, tupleProto)
	b = nl.AppendU8(b, protoNum, t.Proto)
	if t.First == t.Last {
		flags |= partDstPort
		b = nl.AppendBE16(b, protoDstPort, t.First)
	}
	nl.End(b, proto)
	nl.End(b, tuple)
	if translated {
		b, tuple = nl.Begin(b, attrTupleReply)
		if t.Translated.Addr().Is4() {
			b = appendIP4(b, ip4Src, t.Translated.Addr())
		}
		b, proto = nl.Begin(b, tupleProto)
		b = nl.AppendU8(b, protoNum, t.Proto)
		b = nl.AppendBE16(b, protoSrcPort, t.Translated.Port())
		nl.End(b, proto)
		nl.End(b, tuple)
	}
	b, filter := nl.Begin(b, attrFilter)
	b = nl.AppendU32(b, filterOrig, flags)
	if translated {
		reply := uint32(partProto | partSrcPort)
		if t.Translated.Addr().Is4() {
			reply |= partSrc
		}
		b = nl.AppendU32(b, filterReply, reply)
	}
	nl.End(b, filter)
	switch {
	case t.Unanswered:
		b = nl.AppendBE32(b, attrStatus, 0)
		b = nl.AppendBE32(b, attrStatusMask, statusSeenReply)
	case translated:
		b = nl.AppendBE32(b, attrStatus, statusDstNAT)
		b = nl.AppendBE32(b, attrStatusMask, statusDstNAT)
	}
	return b
}

// appendIP4 appends one address of a tuple.
func appendIP4(b []byte, which uint16, a netip.Addr) []byte {
	b, ip := nl.Begin(b, tupleIP)
	b = nl.AppendAttr(b, which, a.AsSlice())
	nl.End(b, ip)
	return b
}
