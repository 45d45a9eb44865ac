package xtables

import "encoding/binary"

// Range is a range of ports, both ends included.
type Range struct{ First, Last uint16 }

// Ports is what a match says about the ports of a packet.
type Ports struct {
	Src, Dst       []Range // nil for all
	NotSrc, NotDst bool    // any but these
	Either         bool    // one of the two ports is in Dst
	More           bool    // it asks for something else, too
}

var every = Range{0, 65535}

// ReadPorts reads the matches tcp, udp, udplite, sctp and multiport.
func ReadPorts(match string, revision uint32, info []byte) (p Ports, ok bool) {
	switch {
	case match == "tcp" && len(info) >= 12: // struct xt_tcp
		p = pairs(info, info[11]&1 != 0, info[11]&2 != 0)
		p.More = info[8] != 0 || info[9] != 0
	case (match == "udp" || match == "udplite") && len(info) >= 9: // struct xt_udp
		p = pairs(info, info[8]&1 != 0, info[8]&2 != 0)
	case match == "sctp":
		return sctp(info)
	case match == "multiport":
		return multiport(revision, info)
	default:
		return p, false
	}
	return p, true
}

// pairs reads the first and last source port, and the destination ports behind them.
func pairs(info []byte, notSrc, notDst bool) Ports {
	read := func(at int) []Range {
		r := Range{binary.NativeEndian.Uint16(info[at:]), binary.NativeEndian.Uint16(info[at+2:])}
		if r == every {
			return nil
		}
		return []Range{r}
	}
	p := Ports{Src: read(0), Dst: read(4), NotSrc: notSrc, NotDst: notDst}
	if p.Src == nil && notSrc {
		p.Src = []Range{every}
	}
	if p.Dst == nil && notDst {
		p.Dst = []Range{every}
	}
	return p
}

// sctp reads struct xt_sctp_info: destination ports, source ports, chunks, flags.
func sctp(info []byte) (p Ports, ok bool) {
	const flagsAt, src, dst, chunks = 284, 1, 2, 4
	if len(info) < flagsAt+8 {
		return p, false
	}
	flags, inverted := binary.NativeEndian.Uint32(info[flagsAt:]), binary.NativeEndian.Uint32(info[flagsAt+4:])
	all := pairs(info, false, false)
	if flags&dst != 0 {
		p.Dst, p.NotDst = all.Src, inverted&dst != 0
	}
	if flags&src != 0 {
		p.Src, p.NotSrc = all.Dst, inverted&src != 0
	}
	p.More = flags&chunks != 0
	return p, true
}

// multiport reads struct xt_multiport and xt_multiport_v1.
func multiport(revision uint32, info []byte) (p Ports, ok bool) {
	const (
		most             = 15
		portsAt          = 2
		flagsAt          = portsAt + 2*most
		invertAt         = flagsAt + most
		src, dst, either = 0, 1, 2
	)
	if revision > 1 || len(info) < flagsAt || revision == 1 && len(info) <= invertAt {
		return p, false
	}
	var all []Range
	n := min(int(info[1]), most)
	for i := 0; i < n; i++ {
		first := binary.NativeEndian.Uint16(info[portsAt+2*i:])
		r := Range{first, first}
		if revision == 1 && info[flagsAt+i] != 0 && i+1 < n { // the next one is the end of a range
			i++
			r.Last = binary.NativeEndian.Uint16(info[portsAt+2*i:])
		}
		all = append(all, r)
	}
	not := revision == 1 && info[invertAt] != 0
	switch info[0] {
	case src:
		p.Src, p.NotSrc = all, not
	case dst:
		p.Dst, p.NotDst = all, not
	case either:
		p.Dst, p.NotDst, p.Either = all, not, true
	default:
		return p, false
	}
	return p, true
}
