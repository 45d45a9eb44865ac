package nfttext

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags of the expressions that translate (NF_NAT_RANGE_*).
const (
	natRandom      = 1 << 2
	natPersistent  = 1 << 3
	natFullyRandom = 1 << 4
	natNetmap      = 1 << 6
)

func natFlags(flags uint32) string {
	var all []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{{natRandom, "random"}, {natFullyRandom, "fully-random"}, {natPersistent, "persistent"}} {
		if flags&f.bit != 0 {
			all = append(all, f.name)
		}
	}
	if all == nil {
		return ""
	}
	return " " + strings.Join(all, ",")
}

func (r *rule) nat(a *attrs) {
	s := "snat"
	if a.u32(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
		s = "dnat"
	}
	family, t := "ip", ipv4Type
	if a.u32(unix.NFTA_NAT_FAMILY) == unix.NFPROTO_IPV6 {
		family, t = "ip6", ipv6Type
	}
	flags := a.u32(unix.NFTA_NAT_FLAGS)
	to := r.target(a, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_PROTO_MIN, t, flags&natNetmap != 0)
	several := len(r.read(a.u32(unix.NFTA_NAT_REG_ADDR_MIN)).types) > 1
	if a[unix.NFTA_NAT_REG_ADDR_MIN] != nil && (several || r.w.Family != unix.NFPROTO_IPV4 && r.w.Family != unix.NFPROTO_IPV6 || flags&natNetmap != 0) {
		s += " " + family
	}
	if flags&natNetmap != 0 {
		s += " prefix"
	}
	r.add("%s to %s%s", s, to, natFlags(flags))
}

// target writes an address and a port, or ranges of them, from the registers that the
// attributes name: each attribute is followed by that of the last of a range.
func (r *rule) target(a *attrs, addrAttr, portAttr int, t *datatype, prefix bool) string {
	s, covered := "", false
	if a[addrAttr] != nil {
		min := r.read(a.u32(addrAttr))
		s = r.source(min, t)
		if max := r.read(a.u32(addrAttr + 1)); a[addrAttr+1] != nil && min.data != nil && max.data != nil && !bytes.Equal(max.data, min.data) {
			if n, ok := prefixOf(min.data, max.data); ok && prefix {
				s = fmt.Sprintf("%s/%d", s, n)
			} else {
				s += "-" + r.source(max, t)
			}
		}
		// A map's data may have the port behind the address.
		at := word(a.u32(portAttr)) - word(a.u32(addrAttr))
		covered = min.data == nil && len(min.types) > 1 && at > 0 && at < words(min.size)
		if a[portAttr] != nil && !covered && t == ipv6Type && min.data != nil {
			s = "[" + strings.ReplaceAll(s, "-", "]-[") + "]"
		}
	}
	if a[portAttr] == nil || covered {
		return s
	}
	min := r.read(a.u32(portAttr))
	s += ":" + r.source(min, serviceType)
	if max := r.read(a.u32(portAttr + 1)); a[portAttr+1] != nil && max.data != nil && min.data != nil && !bytes.Equal(max.data, min.data) {
		s += "-" + r.source(max, serviceType)
	}
	return s
}

// prefixOf returns the length of the prefix that a range is.
func prefixOf(from, to []byte) (n int, ok bool) {
	if len(from) != len(to) {
		return 0, false
	}
	for n < 8*len(from) && (from[n/8]^to[n/8])&(0x80>>(n%8)) == 0 {
		n++
	}
	for i := n; i < 8*len(from); i++ {
		if bit := byte(0x80 >> (i % 8)); from[i/8]&bit != 0 || to[i/8]&bit == 0 {
			return 0, false
		}
	}
	return n, true
}

func (r *rule) masquerade(a *attrs) {
	s := "masquerade"
	if a[unix.NFTA_MASQ_REG_PROTO_MIN] != nil {
		s += " to " + r.target(a, len(a)-2, unix.NFTA_MASQ_REG_PROTO_MIN, serviceType, false)
	}
	r.add("%s%s", s, natFlags(a.u32(unix.NFTA_MASQ_FLAGS)))
}

func (r *rule) redirect(a *attrs) {
	s := "redirect"
	if a[unix.NFTA_REDIR_REG_PROTO_MIN] != nil {
		s += " to " + r.target(a, len(a)-2, unix.NFTA_REDIR_REG_PROTO_MIN, serviceType, false)
	}
	r.add("%s%s", s, natFlags(a.u32(unix.NFTA_REDIR_FLAGS)))
}

// tproxy reads NFTA_TPROXY_*.
func (r *rule) tproxy(a *attrs) {
	const family, addr, port = 1, 2, 3
	s, t := "tproxy", ipv4Type
	switch a.u32(family) {
	case unix.NFPROTO_IPV4:
		s += " ip"
	case unix.NFPROTO_IPV6:
		s, t = s+" ip6", ipv6Type
	}
	if r.w.Family != unix.NFPROTO_INET {
		s = "tproxy"
	}
	s += " to "
	if a[addr] != nil {
		text := r.source(r.read(a.u32(addr)), t)
		if t == ipv6Type && a[port] != nil {
			text = "[" + text + "]"
		}
		s += text
	}
	if a[port] != nil {
		s += ":" + r.source(r.read(a.u32(port)), serviceType)
	}
	r.add("%s", s)
}
