package trace

import (
	"encoding/binary"
	"net/netip"

	"github.com/boxwire/boxwire/internal/xtables"
	"golang.org/x/sys/unix"
)

// translate evaluates what translates a destination, or is another target of iptables. ends is that
// the rule ends there, as s says.
func (b *branch) translate(name string, a *attrs) (s statement, ends bool) {
	switch name {
	case "nat":
		if a.u32(unix.NFTA_NAT_TYPE) != unix.NFT_NAT_DNAT {
			return statement{kind: stopAccept}, true
		}
		b.dnat(a)
		return statement{}, true
	case "redir":
		var t target
		if !b.ports(a, unix.NFTA_REDIR_REG_PROTO_MIN, &t) {
			b.walk.unread(b.rule)
		} else {
			b.walk.found(b, t)
		}
		return statement{}, true
	case "tproxy":
		b.walk.unread(b.rule)
		return statement{}, true
	}
	switch a.name() {
	case "DNAT", "REDIRECT":
		b.xtNAT(a)
		return statement{}, true
	case "NETMAP", "TPROXY":
		b.walk.unread(b.rule)
		return statement{}, true
	case "REJECT", "DROP":
		return statement{kind: stopDrop}, true
	case "SNAT", "MASQUERADE":
		return statement{kind: stopAccept}, true
	}
	return statement{}, false // it goes on: LOG, MARK, ...
}

// dnat evaluates the expression nat: its addresses and ports are in registers.
func (b *branch) dnat(a *attrs) {
	const netmap = 1 << 6 // NF_NAT_RANGE_NETMAP
	family := byte(unix.NFPROTO_IPV4)
	n := 4
	if a.u32(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6 {
		family, n = unix.NFPROTO_IPV6, 16
	}
	var t target
	ok := a.u32(unix.NFTA_NAT_FLAGS)&netmap == 0
	if a[unix.NFTA_NAT_REG_ADDR_MIN] != nil {
		t.first, ok = b.addr(a.u32(unix.NFTA_NAT_REG_ADDR_MIN), n, ok)
		t.last = t.first
		if a[unix.NFTA_NAT_REG_ADDR_MAX] != nil {
			t.last, ok = b.addr(a.u32(unix.NFTA_NAT_REG_ADDR_MAX), n, ok)
		}
		if !b.space.setFamily(family) {
			return
		}
	}
	// Without an address, a packet for another host keeps that host's.
	ok = ok && (t.first.IsValid() || b.space.local)
	if !ok || !b.ports(a, unix.NFTA_NAT_REG_PROTO_MIN, &t) {
		b.walk.unread(b.rule)
		return
	}
	b.walk.found(b, t)
}

func (b *branch) addr(reg uint32, n int, sure bool) (netip.Addr, bool) {
	l := b.read(reg)
	if !sure || len(l.data) < n {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(l.data[:n])
}

// ports reads the ports in the registers that an attribute and the next one name.
func (b *branch) ports(a *attrs, attr int, t *target) bool {
	if a[attr] == nil {
		return true
	}
	first := b.read(a.u32(attr))
	last := first
	if a[attr+1] != nil {
		last = b.read(a.u32(attr + 1))
	}
	if len(first.data) < 2 || len(last.data) < 2 {
		return false
	}
	t.port = xtables.Range{First: binary.BigEndian.Uint16(first.data), Last: binary.BigEndian.Uint16(last.data)}
	return true
}

// xtNAT evaluates the targets DNAT and REDIRECT of iptables.
func (b *branch) xtNAT(a *attrs) {
	n, ok := xtables.ReadNAT(a.name(), a.u32(xtRevision), b.rule.Family, a[xtInfo])
	if !ok || !n.First.IsValid() && a.name() == "DNAT" && !b.space.local {
		b.walk.unread(b.rule)
		return
	}
	b.walk.found(b, target{first: n.First, last: n.Last, port: n.Port, base: n.Base})
}

// xtMatch takes what a match of iptables asks for from the space, and reports whether something
// is left.
func (b *branch) xtMatch(a *attrs) bool {
	name, info := a.name(), a[xtInfo]
	if p, ok := xtables.ReadPorts(name, a.u32(xtRevision), info); ok {
		return b.xtPorts(name, p)
	}
	switch name {
	case "comment":
		return true
	case "addrtype":
		// struct xt_addrtype_info_v1: types of source and destination, flags.
		local := uint16(1 << unix.RTN_LOCAL)
		if a.u32(xtRevision) == 1 && len(info) >= 8 && binary.NativeEndian.Uint16(info) == 0 && binary.NativeEndian.Uint16(info[2:]) == local && binary.NativeEndian.Uint32(info[4:]) == 0 {
			b.space.local = true
			return true
		}
	case "conntrack":
		t := tracing{packet: &Packet{}}
		if t.xtConntrack(a.u32(xtRevision), info) == yes {
			return true
		}
	}
	b.condition(false)
	return true
}

func (b *branch) xtPorts(match string, p xtables.Ports) bool {
	protos := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "udplite": unix.IPPROTO_UDPLITE, "sctp": unix.IPPROTO_SCTP}
	if proto, ok := protos[match]; ok && !b.space.setProtos(proto) {
		return false
	}
	if p.More || p.Either {
		b.condition(false)
	}
	if p.Src != nil {
		b.condition(true)
	}
	if p.Dst == nil || p.Either {
		return true
	}
	ports := p.Dst
	if p.NotDst {
		ports = otherPorts(ports)
	}
	return b.space.setPorts(ports)
}
