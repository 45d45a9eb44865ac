package xtables

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// NAT is where a target translates to.
type NAT struct {
	First, Last netip.Addr // not valid: the address stays, or is one of the host's own
	Port        Range      // both zero: the port stays
	Base        uint16     // with NF_NAT_RANGE_PROTO_OFFSET, the port that becomes the first of Port
	Flags       uint32     // unix.NF_NAT_RANGE_*
}

// ReadNAT reads the targets DNAT, SNAT, REDIRECT, MASQUERADE and NETMAP of a rule of a family.
func ReadNAT(target string, revision uint32, family byte, info []byte) (n NAT, ok bool) {
	switch target {
	case "DNAT", "SNAT", "REDIRECT", "MASQUERADE", "NETMAP":
	default:
		return n, false
	}
	if revision == 0 && family == unix.NFPROTO_IPV4 {
		return multiRange(info)
	}
	return natRange(family, info)
}

// multiRange reads struct nf_nat_ipv4_multi_range_compat: how many ranges, and one of flags,
// addresses and ports.
func multiRange(info []byte) (n NAT, ok bool) {
	if len(info) < 20 || binary.NativeEndian.Uint32(info) == 0 {
		return n, false
	}
	n.Flags = binary.NativeEndian.Uint32(info[4:])
	if n.Flags&unix.NF_NAT_RANGE_MAP_IPS != 0 {
		n.First, n.Last = netip.AddrFrom4([4]byte(info[8:])), netip.AddrFrom4([4]byte(info[12:]))
	}
	n.ports(info[16:])
	return n, true
}

// natRange reads struct nf_nat_range, with which nf_nat_range2 begins.
func natRange(family byte, info []byte) (n NAT, ok bool) {
	if len(info) < 40 {
		return n, false
	}
	n.Flags = binary.NativeEndian.Uint32(info)
	if n.Flags&unix.NF_NAT_RANGE_MAP_IPS != 0 {
		n.First, n.Last = inetAddr(family, info[4:]), inetAddr(family, info[20:])
	}
	n.ports(info[36:])
	if n.Flags&unix.NF_NAT_RANGE_PROTO_OFFSET != 0 && len(info) >= 42 {
		n.Base = binary.BigEndian.Uint16(info[40:])
	}
	return n, true
}

func (n *NAT) ports(b []byte) {
	if n.Flags&unix.NF_NAT_RANGE_PROTO_SPECIFIED != 0 {
		n.Port = Range{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
}

// inetAddr reads union nf_inet_addr.
func inetAddr(family byte, b []byte) netip.Addr {
	if family == unix.NFPROTO_IPV4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}
