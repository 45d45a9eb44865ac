package trace

import (
	stdbytes "bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Attributes of the expressions that carry a match or a target of iptables
// (NFTA_MATCH_*, NFTA_TARGET_*).
const (
	xtName     = 1
	xtRevision = 2
	xtInfo     = 3
)

func (a *attrs) name() string { return string(stdbytes.TrimRight(a[xtName], "\x00")) }

func (t *tracing) xtMatch(a *attrs) matching {
	info := a[xtInfo]
	switch a.name() {
	case "comment":
		return yes
	case "tcp":
		if t.packet.Proto != unix.IPPROTO_TCP {
			return no
		}
		// struct xt_tcp: source and destination ports, option, flag mask, flags, inverted.
		if len(info) < 12 {
			return maybe
		}
		if info[8] != 0 || info[9] != 0 {
			return min(maybe, t.xtPorts(info, info[11]))
		}
		return t.xtPorts(info, info[11])
	case "udp":
		if t.packet.Proto != unix.IPPROTO_UDP {
			return no
		}
		if len(info) < 9 { // struct xt_udp
			return maybe
		}
		return t.xtPorts(info, info[8])
	case "addrtype":
		return t.xtAddrtype(a.u32(xtRevision), info)
	case "rt", "frag", "hbh", "dst", "ah":
		return no // an extension header of IPv6, which the packet does not have
	case "conntrack":
		return t.xtConntrack(a.u32(xtRevision), info)
	}
	return maybe
}

// xtPorts compares ports with two ranges in the machine's order; bits 1 and 2 of
// inverted turn them round.
func (t *tracing) xtPorts(info []byte, inverted byte) matching {
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(info[at:]) }
	m := is((u16(4) <= t.packet.Dport && t.packet.Dport <= u16(6)) != (inverted&2 != 0))
	if u16(0) != 0 || u16(2) != 65535 || inverted&1 != 0 {
		m = min(m, maybe)
	}
	return m
}

// xtAddrtype reads struct xt_addrtype_info_v1: bits of the types that source and
// destination may have, and flags.
func (t *tracing) xtAddrtype(revision uint32, info []byte) matching {
	const invertDest = 2
	if revision != 1 || len(info) < 8 {
		return maybe
	}
	source, dest, flags := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:]), binary.NativeEndian.Uint32(info[4:])
	if source != 0 || flags&^invertDest != 0 {
		return maybe
	}
	kind := unix.RTN_UNICAST
	if t.packet.Local {
		kind = unix.RTN_LOCAL
	}
	return is((dest&(1<<kind) != 0) != (flags&invertDest != 0))
}

// xtConntrack reads struct xt_conntrack_mtinfo3, if it asks for the state only.
func (t *tracing) xtConntrack(revision uint32, info []byte) matching {
	const (
		flags     = 146 // match_flags, invert_flags, state_mask follow each other
		state     = 1
		stateDNAT = 1 << 7 // XT_CONNTRACK_STATE_DNAT
	)
	if revision != 3 || len(info) < flags+6 || binary.NativeEndian.Uint16(info[flags:]) != state {
		return maybe
	}
	inverted, mask := binary.NativeEndian.Uint16(info[flags+2:]), binary.NativeEndian.Uint16(info[flags+4:])
	bits := uint16(stateNew)
	if t.packet.Translated {
		bits |= stateDNAT
	}
	return is((mask&bits != 0) != (inverted&state != 0))
}

func xtTarget(a *attrs) statement {
	switch a.name() {
	case "DNAT", "REDIRECT", "NETMAP", "TPROXY":
		return statement{kind: stopDNAT}
	case "REJECT", "DROP":
		return statement{kind: stopDrop}
	}
	return statement{}
}
