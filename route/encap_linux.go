package route

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Kinds of encapsulation (linux/lwtunnel.h: LWTUNNEL_ENCAP_*).
const (
	lwtMPLS      = 1
	lwtIP        = 2
	lwtIP6       = 4
	lwtSeg6      = 5
	lwtSeg6Local = 7
)

// Attributes of the kinds.
const (
	ipID, ipDst, ipSrc, ipTTL, ipTOS, ipFlags, ipPad, ipOpts = 1, 2, 3, 4, 5, 6, 7, 8 // LWTUNNEL_IP_*, LWTUNNEL_IP6_*

	mplsDst, mplsTTL = 1, 2 // MPLS_IPTUNNEL_*

	seg6SRH = 1 // SEG6_IPTUNNEL_SRH

	localAction, localSRH, localTable, localNH4, localNH6 = 1, 2, 3, 4, 5 // SEG6_LOCAL_*
	localIIF, localOIF, localVRF, localCount, localFlv    = 6, 7, 9, 10, 11

	countPackets, countBytes, countErrors = 2, 3, 4 // SEG6_LOCAL_CNT_*
	flvOps, flvBlock, flvNode             = 1, 2, 3 // SEG6_LOCAL_FLV_*
)

// appendEncap appends the kind and the encapsulation in the attributes of the
// given types: those of routes and of next hops differ.
func appendEncap(b []byte, kindAttr, attr uint16, e Encap) []byte {
	var at int
	begin := func(kind uint16) {
		b = nl.AppendU16(b, kindAttr, kind)
		b, at = nl.Begin(b, attr)
	}
	switch e := e.(type) {
	case nil:
		return b
	case IPEncap:
		kind := uint16(lwtIP)
		if e.Dst.Is6() {
			kind = lwtIP6
		}
		begin(kind)
		b = appendIPEncap(b, e)
	case MPLSEncap:
		begin(lwtMPLS)
		stack := make([]byte, 0, 4*len(e.Labels))
		for i, l := range e.Labels {
			entry := l << 12
			if i == len(e.Labels)-1 {
				entry |= 1 << 8 // bottom of the stack
			}
			stack = binary.BigEndian.AppendUint32(stack, entry)
		}
		b = nl.AppendAttr(b, mplsDst, stack)
		if e.TTL != 0 {
			b = nl.AppendU8(b, mplsTTL, e.TTL)
		}
	case Seg6Encap:
		begin(lwtSeg6)
		segs := e.Segments
		if e.Mode == Seg6ModeInline { // the packet's own destination takes the last place
			segs = append(slices.Clone(segs), netip.IPv6Unspecified())
		}
		tuninfo := binary.NativeEndian.AppendUint32(nil, uint32(e.Mode))
		b = nl.AppendAttr(b, seg6SRH, appendSRH(tuninfo, segs, e.HMAC))
	case Seg6LocalEncap:
		begin(lwtSeg6Local)
		b = appendSeg6Local(b, e)
	case RawEncap:
		begin(e.Kind)
		b = append(b, e.Data...)
	}
	nl.End(b, at)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendIPEncap(b []byte, e IPEncap) []byte {
	b = nl.AppendBE64(b, ipID, e.ID)
	b = appendAddr(b, ipDst, e.Dst)
	if e.Src.IsValid() {
		b = appendAddr(b, ipSrc, e.Src)
	}
	if e.TTL != 0 {
		b = nl.AppendU8(b, ipTTL, e.TTL)
	}
	if e.TOS != 0 {
		b = nl.AppendU8(b, ipTOS, e.TOS)
	}
	if e.Flags != 0 {
		b = nl.AppendBE16(b, ipFlags, uint16(e.Flags))
	}
	if len(e.Options) > 0 {
		b = nl.AppendAttr(b, ipOpts|unix.NLA_F_NESTED, e.Options)
	}
	return b
}

// appendSRH appends a struct ipv6_sr_hdr (linux/seg6.h), which holds the
// segments from the last to the first.
func appendSRH(b []byte, segs []netip.Addr, hmac uint32) []byte {
	n := uint8(len(segs))
	units, flags := 2*n, uint8(0)
	if hmac != 0 {
		units, flags = units+5, 1<<3 // SR6_FLAG1_HMAC
	}
	b = append(b, 0, units, 4, n-1, n-1, flags, 0, 0)
	for i := len(segs) - 1; i >= 0; i-- {
		a := segs[i].As16()
		b = append(b, a[:]...)
	}
	if hmac != 0 { // struct sr6_tlv_hmac: type, length, reserved, key id, 32 bytes to sign in
		b = append(b, 5, 38, 0, 0)
		b = binary.BigEndian.AppendUint32(b, hmac)
		b = append(b, make([]byte, 32)...)
	}
	return b
}

// readSRH reads what appendSRH writes; ok is false for anything more.
func readSRH(b []byte) (segs []netip.Addr, hmac uint32, ok bool) {
	if len(b) < 8 || b[2] != 4 {
		return nil, 0, false
	}
	n := int(b[4]) + 1
	if len(b) < 8+16*n {
		return nil, 0, false
	}
	for i := n - 1; i >= 0; i-- {
		segs = append(segs, netip.AddrFrom16([16]byte(b[8+16*i:])))
	}
	tlv := b[8+16*n:]
	if b[5]&(1<<3) != 0 && len(tlv) >= 40 && tlv[0] == 5 {
		hmac, tlv = binary.BigEndian.Uint32(tlv[4:]), tlv[40:]
	}
	return segs, hmac, len(tlv) == 0
}

func appendSeg6Local(b []byte, e Seg6LocalEncap) []byte {
	b = nl.AppendU32(b, localAction, uint32(e.Action))
	if len(e.Segments) > 0 {
		b = nl.AppendAttr(b, localSRH, appendSRH(nil, e.Segments, 0))
	}
	if e.Table != 0 {
		b = nl.AppendU32(b, localTable, uint32(e.Table))
	}
	if e.VRFTable != 0 {
		b = nl.AppendU32(b, localVRF, uint32(e.VRFTable))
	}
	if e.Via4.IsValid() {
		b = appendAddr(b, localNH4, e.Via4)
	}
	if e.Via6.IsValid() {
		b = appendAddr(b, localNH6, e.Via6)
	}
	if e.In != 0 {
		b = nl.AppendU32(b, localIIF, uint32(e.In))
	}
	if e.Out != 0 {
		b = nl.AppendU32(b, localOIF, uint32(e.Out))
	}
	var at int
	if e.Count {
		b, at = nl.Begin(b, localCount)
		for _, c := range [...]uint16{countPackets, countBytes, countErrors} {
			b = nl.AppendU64(b, c, 0)
		}
		nl.End(b, at)
	}
	if e.Flavors != 0 {
		b, at = nl.Begin(b, localFlv)
		b = nl.AppendU32(b, flvOps, uint32(e.Flavors))
		if e.BlockBits != 0 {
			b = nl.AppendU8(b, flvBlock, e.BlockBits)
		}
		if e.NodeBits != 0 {
			b = nl.AppendU8(b, flvNode, e.NodeBits)
		}
		nl.End(b, at)
	}
	return b
}

// readEncap reads an encapsulation. What it cannot read whole is a RawEncap.
func readEncap(kind uint16, data []byte) Encap {
	var e Encap
	ok := false
	switch kind {
	case 0:
		return nil
	case lwtIP, lwtIP6:
		e, ok = readIPEncap(kind, data)
	case lwtMPLS:
		e, ok = readMPLS(data)
	case lwtSeg6:
		e, ok = readSeg6(data)
	case lwtSeg6Local:
		e, ok = readSeg6Local(data)
	}
	if !ok || e.check() != nil {
		return RawEncap{Kind: kind, Data: slices.Clone(data)}
	}
	return e
}

func readIPEncap(kind uint16, data []byte) (e IPEncap, ok bool) {
	af := uint8(unix.AF_INET)
	if kind == lwtIP6 {
		af = unix.AF_INET6
	}
	ok = true
	w := nl.Walk(data)
	for w.Next() {
		switch w.Type() {
		case ipID:
			e.ID = w.BE64()
		case ipDst:
			e.Dst = addrOf(af, w.Data())
		case ipSrc:
			if e.Src = addrOf(af, w.Data()); e.Src.IsUnspecified() {
				e.Src = netip.Addr{}
			}
		case ipTTL:
			e.TTL = w.U8()
		case ipTOS:
			e.TOS = w.U8()
		case ipFlags:
			e.Flags = TunnelFlags(w.BE16())
		case ipOpts:
			e.Options = slices.Clone(w.Data())
		case ipPad:
		default:
			ok = false
		}
	}
	return e, ok && w.Err() == nil && (e.Dst.Is6() == (kind == lwtIP6))
}

func readMPLS(data []byte) (e MPLSEncap, ok bool) {
	ok = true
	w := nl.Walk(data)
	for w.Next() {
		switch w.Type() {
		case mplsDst:
			for d := w.Data(); len(d) >= 4; d = d[4:] {
				e.Labels = append(e.Labels, binary.BigEndian.Uint32(d)>>12)
			}
		case mplsTTL:
			e.TTL = w.U8()
		default:
			ok = false
		}
	}
	return e, ok && w.Err() == nil
}

func readSeg6(data []byte) (e Seg6Encap, ok bool) {
	w := nl.Walk(data)
	for n := 0; w.Next(); n++ {
		d := w.Data()
		if n > 0 || w.Type() != seg6SRH || len(d) < 4 {
			return e, false
		}
		mode := binary.NativeEndian.Uint32(d)
		if mode > uint32(Seg6ModeL2EncapRed) {
			return e, false
		}
		e.Mode = Seg6Mode(mode)
		e.Segments, e.HMAC, ok = readSRH(d[4:])
		if last := len(e.Segments) - 1; e.Mode == Seg6ModeInline && last > 0 && e.Segments[last].IsUnspecified() {
			e.Segments = e.Segments[:last]
		}
	}
	return e, ok && w.Err() == nil
}

func readSeg6Local(data []byte) (e Seg6LocalEncap, ok bool) {
	ok = true
	w := nl.Walk(data)
	for w.Next() {
		switch w.Type() {
		case localAction:
			e.Action = Seg6Action(w.U32())
		case localSRH:
			var hmac uint32
			e.Segments, hmac, ok = readSRH(w.Data())
			ok = ok && hmac == 0
		case localTable:
			e.Table = Table(w.U32())
		case localVRF:
			e.VRFTable = Table(w.U32())
		case localNH4:
			e.Via4 = addrOf(unix.AF_INET, w.Data())
		case localNH6:
			e.Via6 = addrOf(unix.AF_INET6, w.Data())
		case localIIF:
			e.In = int(w.U32())
		case localOIF:
			e.Out = int(w.U32())
		case localCount:
			e.Count = true
		case localFlv:
			f := w.Nested()
			for f.Next() {
				switch f.Type() {
				case flvOps:
					e.Flavors = Seg6Flavors(f.U32())
				case flvBlock:
					e.BlockBits = f.U8()
				case flvNode:
					e.NodeBits = f.U8()
				}
			}
			ok = ok && f.Err() == nil
		default:
			return e, false
		}
	}
	return e, ok && w.Err() == nil
}
