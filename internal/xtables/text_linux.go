package xtables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// MatchText writes what a match asks for: `dport 8080`. ok is false if the match is not known; then
// the text is empty.
func MatchText(match string, revision uint32, family byte, info []byte, quote func(string) string) (s string, ok bool) {
	if p, ok := ReadPorts(match, revision, info); ok {
		return p.text(), true
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	switch {
	case match == "comment":
		text, _, _ := bytes.Cut(info, []byte{0})
		return quote(string(text)), true
	case match == "addrtype" && revision == 1 && len(info) >= 8:
		return addrtype(info), true
	case match == "conntrack" && revision == 3 && len(info) >= 152:
		return conntrack(info)
	case match == "state" && len(info) >= 4:
		return strings.Join(states(u32(0)), ","), true
	case (match == "mark" || match == "connmark") && revision == 1 && len(info) >= 9:
		return not(info[8] != 0) + masked(u32(0), u32(4)), true
	case match == "limit" && len(info) >= 8:
		return limit(u32(0), u32(4)), true
	case match == "iprange" && revision == 1 && len(info) >= 65:
		return iprange(family, info), true
	case match == "mac" && len(info) >= 12:
		return not(u32(8) != 0) + "source " + net.HardwareAddr(info[:6]).String(), true
	case (match == "icmp" || match == "icmp6") && len(info) >= 4:
		return icmp(info), true
	case match == "owner" && revision == 1 && len(info) >= 18:
		return owner(info), true
	case match == "pkttype" && len(info) >= 8:
		return not(u32(4) != 0) + named(u32(0), "host", "broadcast", "multicast", "other"), true
	}
	return "", false
}

// TargetText writes what a target does: `to 172.17.0.2:80`.
func TargetText(target string, revision uint32, family byte, info []byte, quote func(string) string) (s string, ok bool) {
	if n, ok := ReadNAT(target, revision, family, info); ok {
		return n.text(), true
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	switch {
	case target == "MARK" && revision == 2 && len(info) >= 8:
		return "set " + masked(u32(0), u32(4)), true
	case target == "CONNMARK" && (revision == 1 && len(info) >= 13 || revision == 2 && len(info) >= 15):
		return connmark(revision, info), true
	case target == "LOG" && len(info) >= 32:
		prefix, _, _ := bytes.Cut(info[2:32], []byte{0})
		return fmt.Sprintf("level %d prefix %s", info[0], quote(string(prefix))), true
	case target == "TCPMSS" && len(info) >= 2:
		if n := binary.NativeEndian.Uint16(info); n != 0xffff {
			return fmt.Sprintf("set %d", n), true
		}
		return "clamp to pmtu", true
	case target == "REJECT" && len(info) >= 4:
		return reject(family, u32(0)), true
	}
	return "", false
}

func not(b bool) string {
	if b {
		return "! "
	}
	return ""
}

func masked(v, mask uint32) string {
	if mask == 0xffffffff {
		return fmt.Sprintf("0x%x", v)
	}
	return fmt.Sprintf("0x%x/0x%x", v, mask)
}

// named is the name of a number that counts from 0.
func named(n uint32, names ...string) string {
	if int64(n) < int64(len(names)) {
		return names[n]
	}
	return fmt.Sprint(n)
}

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func (p *Ports) text() string {
	var all []string
	add := func(word string, ranges []Range, inverted bool) {
		if ranges == nil {
			return
		}
		var list []string
		for _, r := range ranges {
			list = append(list, r.String())
		}
		all = append(all, word+" "+not(inverted)+strings.Join(list, ","))
	}
	add("sport", p.Src, p.NotSrc)
	word := "dport"
	if p.Either {
		word = "port"
	}
	add(word, p.Dst, p.NotDst)
	if p.More {
		all = append(all, "and more")
	}
	return strings.Join(all, " ")
}

func (n *NAT) text() string {
	s := ""
	if n.First.IsValid() {
		s = n.First.String()
		if n.Last != n.First {
			s += "-" + n.Last.String()
		}
	}
	if n.Port != (Range{}) {
		if n.First.Is6() {
			s = "[" + s + "]"
		}
		s += ":" + n.Port.String()
		if n.Base != 0 {
			s += fmt.Sprintf("/%d", n.Base)
		}
	}
	if s != "" {
		s = "to " + s
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.NF_NAT_RANGE_PROTO_RANDOM, "random"}, {unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"}, {unix.NF_NAT_RANGE_PERSISTENT, "persistent"}} {
		if n.Flags&f.bit != 0 {
			s += " " + f.name
		}
	}
	return strings.TrimSpace(s)
}

// bitNames are the names of the bits that are set, from the lowest on.
func bitNames(bits uint32, names ...string) (all []string) {
	for i, s := range names {
		if bits&(1<<i) != 0 && s != "" {
			all = append(all, s)
		}
	}
	return all
}

// addrtype writes struct xt_addrtype_info_v1.
func addrtype(info []byte) string {
	types := func(at int) string {
		return strings.Join(bitNames(uint32(binary.NativeEndian.Uint16(info[at:])), "UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST",
			"MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"), ",")
	}
	flags := binary.NativeEndian.Uint32(info[4:])
	var all []string
	if s := types(0); s != "" {
		all = append(all, "src-type "+not(flags&1 != 0)+s)
	}
	if s := types(2); s != "" {
		all = append(all, "dst-type "+not(flags&2 != 0)+s)
	}
	all = append(all, bitNames(flags>>2, "limit-iface-in", "limit-iface-out")...)
	return strings.Join(all, " ")
}

// states names XT_CONNTRACK_STATE_*.
func states(mask uint32) []string {
	return bitNames(mask, "INVALID", "ESTABLISHED", "RELATED", "NEW", "", "", "SNAT", "DNAT", "UNTRACKED")
}

// conntrack writes struct xt_conntrack_mtinfo3 as far as it asks for state, status and protocol.
func conntrack(info []byte) (s string, ok bool) {
	const (
		protoAt   = 136
		flagsAt   = 146 // match_flags, invert_flags, state_mask, status_mask
		state     = 1 << 0
		proto     = 1 << 1
		status    = 1 << 6
		direction = 1 << 12
		alias     = 1 << 13 // state was written by its old name
		known     = state | proto | status | direction | alias
	)
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(info[at:]) }
	flags, inverted := u16(flagsAt), u16(flagsAt+2)
	var all []string
	if flags&state != 0 {
		all = append(all, "ctstate "+not(inverted&state != 0)+strings.Join(states(uint32(u16(flagsAt+4))), ","))
	}
	if flags&proto != 0 {
		all = append(all, fmt.Sprintf("ctproto %s%d", not(inverted&proto != 0), u16(protoAt)))
	}
	if flags&status != 0 {
		all = append(all, "ctstatus "+not(inverted&status != 0)+strings.Join(bitNames(uint32(u16(flagsAt+6)), "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"), ","))
	}
	if flags&direction != 0 {
		way := "ORIGINAL"
		if inverted&direction != 0 {
			way = "REPLY"
		}
		all = append(all, "ctdir "+way)
	}
	if flags&^uint16(known) != 0 {
		all = append(all, "and more")
	}
	return strings.Join(all, " "), true
}

// limit writes struct xt_rateinfo: between two packets, in 1/10,000 s, and how many at once.
func limit(avg, burst uint32) string {
	const scale = 10000
	if avg == 0 {
		return fmt.Sprintf("burst %d", burst)
	}
	for _, u := range []struct {
		seconds uint32
		name    string
	}{{1, "sec"}, {60, "min"}, {3600, "hour"}, {86400, "day"}} {
		if n := u.seconds * scale / avg; n > 0 {
			return fmt.Sprintf("%d/%s burst %d", n, u.name, burst)
		}
	}
	return fmt.Sprintf("once in %d s burst %d", avg/scale, burst)
}

// iprange writes struct xt_iprange_mtinfo.
func iprange(family byte, info []byte) string {
	addr := func(at int) netip.Addr { return inetAddr(family, info[at:at+16]) }
	flags := info[64]
	var all []string
	if flags&1 != 0 {
		all = append(all, fmt.Sprintf("src %s%v-%v", not(flags&0x10 != 0), addr(0), addr(16)))
	}
	if flags&2 != 0 {
		all = append(all, fmt.Sprintf("dst %s%v-%v", not(flags&0x20 != 0), addr(32), addr(48)))
	}
	return strings.Join(all, " ")
}

// icmp writes struct ipt_icmp and ip6t_icmp.
func icmp(info []byte) string {
	s := fmt.Sprintf("%stype %d", not(info[3]&1 != 0), info[0])
	if info[0] == 0xff {
		s = "any type"
	}
	if info[1] != 0 || info[2] != 0xff {
		s += " code " + Range{uint16(info[1]), uint16(info[2])}.String()
	}
	return s
}

// owner writes struct xt_owner_match_info.
func owner(info []byte) string {
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	ids := func(at int) string {
		if u32(at) == u32(at+4) {
			return fmt.Sprint(u32(at))
		}
		return fmt.Sprintf("%d-%d", u32(at), u32(at+4))
	}
	match, inverted := info[16], info[17]
	var all []string
	if match&1 != 0 {
		all = append(all, not(inverted&1 != 0)+"uid "+ids(0))
	}
	if match&2 != 0 {
		all = append(all, not(inverted&2 != 0)+"gid "+ids(8))
	}
	if match&4 != 0 {
		all = append(all, not(inverted&4 != 0)+"socket exists")
	}
	return strings.Join(all, " ")
}

// connmark writes struct xt_connmark_tginfo1 and _tginfo2.
func connmark(revision uint32, info []byte) string {
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	mode := info[12]
	if revision == 2 {
		mode = info[14]
	}
	verb := named(uint32(mode), "set", "save", "restore")
	if mode == 0 {
		return verb + " " + masked(u32(0), u32(4))
	}
	if u32(4) == 0xffffffff && u32(8) == 0xffffffff {
		return verb
	}
	return fmt.Sprintf("%s ctmask 0x%x nfmask 0x%x", verb, u32(4), u32(8))
}

// reject writes enum ipt_reject_with and ip6t_reject_with.
func reject(family byte, with uint32) string {
	if family == unix.NFPROTO_IPV6 {
		return "with " + named(with, "icmp6-no-route", "icmp6-adm-prohibited", "icmp6-not-neighbour", "icmp6-addr-unreachable",
			"icmp6-port-unreachable", "icmp6-echo-reply", "tcp-reset", "icmp6-policy-fail", "icmp6-reject-route")
	}
	return "with " + named(with, "icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-port-unreachable",
		"icmp-echo-reply", "icmp-net-prohibited", "icmp-host-prohibited", "tcp-reset", "icmp-admin-prohibited")
}
