package nfttext

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// selector is what an expression loads by a number: its name in nft and its type.
type selector struct {
	name string
	typ  *datatype
	size int
}

func (s selector) value() *value {
	n := s.size
	if n == 0 {
		n = max(s.typ.size, 1)
	}
	return &value{text: s.name, types: []*datatype{s.typ}, size: n}
}

// at returns the selector with a number.
func at(list []selector, kind string, key uint32) selector {
	if int(key) < len(list) && list[key].name != "" {
		return list[key]
	}
	return selector{fmt.Sprintf("<%s %d>", kind, key), hexType, 4}
}

// metas are NFT_META_*.
var metas = []selector{
	{"meta length", hostInteger, 4}, {"meta protocol", etherTypeType, 0}, {"meta priority", classidType, 0}, {"meta mark", markType, 0},
	{"iif", ifindexType, 0}, {"oif", ifindexType, 0}, {"iifname", ifnameType, 0}, {"oifname", ifnameType, 0},
	{"meta iiftype", linkType, 0}, {"meta oiftype", linkType, 0}, {"meta skuid", uidType, 0}, {"meta skgid", gidType, 0},
	{"meta nftrace", hostInteger, 1}, {"meta rtclassid", realmType, 0}, {"meta secmark", hostInteger, 4}, {"meta nfproto", nfprotoType, 0},
	{"meta l4proto", protoType, 0}, {"meta ibrname", ifnameType, 0}, {"meta obrname", ifnameType, 0}, {"meta pkttype", pktTypeType, 0},
	{"meta cpu", hostInteger, 4}, {"iifgroup", devGroupType, 0}, {"oifgroup", devGroupType, 0}, {"meta cgroup", hostInteger, 4},
	{"meta random", integerType, 4}, {"meta ipsec", booleanType, 0}, {"meta iifkind", ifnameType, 0}, {"meta oifkind", ifnameType, 0},
	{"meta ibrpvid", hostInteger, 2}, {"meta ibrvproto", etherTypeType, 0}, {"meta time", dateType, 0}, {"meta day", dayType, 0},
	{"meta hour", hourType, 0}, {"meta sdif", ifindexType, 0}, {"meta sdifname", ifnameType, 0}, {"meta broute", hostInteger, 1},
}

func (r *rule) meta(a *attrs) {
	v := at(metas, "meta", a.u32(unix.NFTA_META_KEY)).value()
	if a[unix.NFTA_META_SREG] == nil {
		r.load(a.u32(unix.NFTA_META_DREG), v)
		return
	}
	name := v.text
	if !strings.HasPrefix(name, "meta ") {
		name = "meta " + name
	}
	r.add("%s set %s", name, r.source(r.read(a.u32(unix.NFTA_META_SREG)), v.typ()))
}

// cts are NFT_CT_*, without "ct " and the direction.
var cts = []selector{
	{"state", ctStateType, 0}, {"direction", ctDirType, 0}, {"status", ctStatusType, 0}, {"mark", markType, 0},
	{"secmark", hostInteger, 4}, {"expiration", &datatype{name: "time", size: 4, order: hostOrder, write: writeMilliseconds}, 0},
	{"helper", stringType, 16}, {"l3proto", nfprotoType, 0}, {"saddr", ipv4Type, 0}, {"daddr", ipv4Type, 0}, {"protocol", protoType, 0},
	{"proto-src", serviceType, 0}, {"proto-dst", serviceType, 0}, {"label", ctLabelType, 0}, {"packets", hostInteger, 8},
	{"bytes", hostInteger, 8}, {"avgpkt", hostInteger, 8}, {"zone", hostInteger, 2}, {"event", ctEventType, 0},
	{"ip saddr", ipv4Type, 0}, {"ip daddr", ipv4Type, 0}, {"ip6 saddr", ipv6Type, 0}, {"ip6 daddr", ipv6Type, 0}, {"id", integerType, 4},
}

func (r *rule) ct(a *attrs) {
	s := at(cts, "ct", a.u32(unix.NFTA_CT_KEY))
	if key := a.u32(unix.NFTA_CT_KEY); r.network == unix.NFPROTO_IPV6 && (key == unix.NFT_CT_SRC || key == unix.NFT_CT_DST) {
		s.typ = ipv6Type
	}
	direction := ""
	if d := a[unix.NFTA_CT_DIRECTION]; d != nil {
		direction = ctDirections.text(uint64(a.u8(unix.NFTA_CT_DIRECTION))) + " "
	}
	s.name = "ct " + direction + s.name
	v := s.value()
	if a[unix.NFTA_CT_SREG] == nil {
		r.load(a.u32(unix.NFTA_CT_DREG), v)
		return
	}
	r.add("%s set %s", v.text, r.source(r.read(a.u32(unix.NFTA_CT_SREG)), v.typ()))
}

func (r *rule) fib(a *attrs) {
	flags := a.u32(unix.NFTA_FIB_FLAGS)
	var of []string
	for i, s := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			of = append(of, s)
		}
	}
	results := []selector{{}, {"oif", ifindexType, 0}, {"oifname", ifnameType, 0}, {"type", fibAddrType, 0}}
	s := at(results, "result", a.u32(unix.NFTA_FIB_RESULT))
	s.name = "fib " + strings.Join(of, " . ") + " " + s.name
	if flags&unix.NFTA_FIB_F_PRESENT != 0 {
		s.typ = booleanType
	}
	r.load(a.u32(unix.NFTA_FIB_DREG), s.value())
}

func (r *rule) rt(a *attrs) {
	s := at([]selector{
		{"rt classid", realmType, 0}, {"rt ip nexthop", ipv4Type, 0}, {"rt ip6 nexthop", ipv6Type, 0}, {"rt mtu", hostInteger, 2}, {"rt ipsec", booleanType, 0},
	}, "rt", a.u32(unix.NFTA_RT_KEY))
	if r.w.Family == unix.NFPROTO_IPV4 || r.w.Family == unix.NFPROTO_IPV6 {
		s.name = strings.NewReplacer("ip nexthop", "nexthop", "ip6 nexthop", "nexthop").Replace(s.name)
	}
	r.load(a.u32(unix.NFTA_RT_DREG), s.value())
}

// socket reads NFTA_SOCKET_*.
func (r *rule) socket(a *attrs) {
	const key, dreg, level = 1, 2, 3
	s := at([]selector{
		{"socket transparent", hostInteger, 1}, {"socket mark", markType, 0}, {"socket wildcard", hostInteger, 1}, {"socket cgroupv2", typesByNumber[46], 0},
	}, "socket", a.u32(key))
	if s.name == "socket cgroupv2" {
		s.name += fmt.Sprintf(" level %d", a.u32(level))
	}
	r.load(a.u32(dreg), s.value())
}

// numgen reads NFTA_NG_*.
func (r *rule) numgen(a *attrs) {
	mode := "inc"
	if a.u32(unix.NFTA_NG_TYPE) == unix.NFT_NG_RANDOM {
		mode = "random"
	}
	s := fmt.Sprintf("numgen %s mod %d", mode, a.u32(unix.NFTA_NG_MODULUS))
	if n := a.u32(unix.NFTA_NG_OFFSET); n != 0 {
		s += fmt.Sprintf(" offset %d", n)
	}
	r.load(a.u32(unix.NFTA_NG_DREG), selector{s, hostInteger, 4}.value())
}

// hash reads NFTA_HASH_*. What it hashes is as many bytes as it says.
func (r *rule) hash(a *attrs) {
	const symmetric = 1 // NFT_HASH_SYM
	s := "symhash"
	if a.u32(unix.NFTA_HASH_TYPE) != symmetric {
		var of []string
		reg, left := word(a.u32(unix.NFTA_HASH_SREG)), int(a.u32(unix.NFTA_HASH_LEN))
		for left > 0 && reg >= 0 && reg < len(r.regs) && r.regs[reg] != nil {
			v := r.regs[reg]
			of = append(of, r.operand(v))
			n := words(v.size)
			reg, left = reg+n, left-4*n
		}
		s = "jhash " + strings.Join(of, " . ")
	}
	s += fmt.Sprintf(" mod %d", a.u32(unix.NFTA_HASH_MODULUS))
	if n := a.u32(unix.NFTA_HASH_SEED); n != 0 {
		s += fmt.Sprintf(" seed %#x", n)
	}
	if n := a.u32(unix.NFTA_HASH_OFFSET); n != 0 {
		s += fmt.Sprintf(" offset %d", n)
	}
	r.load(a.u32(unix.NFTA_HASH_DREG), selector{s, hostInteger, 4}.value())
}

// osf reads NFTA_OSF_*.
func (r *rule) osf(a *attrs) {
	const dreg, flags, version = 1, 3, 1
	s := "osf name"
	if a.u32(flags)&version != 0 {
		s = "osf version"
	}
	r.load(a.u32(dreg), selector{s, stringType, 16}.value())
}

// xfrm reads NFTA_XFRM_*.
func (r *rule) xfrm(a *attrs) {
	const dreg, key, dir, spnum = 1, 2, 3, 4
	s := at([]selector{
		{}, {"ip daddr", ipv4Type, 0}, {"ip saddr", ipv4Type, 0}, {"ip6 daddr", ipv6Type, 0}, {"ip6 saddr", ipv6Type, 0},
		{"reqid", hostInteger, 4}, {"spi", integerType, 4},
	}, "xfrm", a.u32(key))
	way := "in"
	if a.u8(dir) != 0 {
		way = "out"
	}
	s.name = fmt.Sprintf("ipsec %s spnum %d %s", way, a.u32(spnum), s.name)
	r.load(a.u32(dreg), s.value())
}

// exthdr loads a part of an option or of an extension header, or says whether there is
// one; or it writes one.
func (r *rule) exthdr(a *attrs) {
	v := exthdrValue(a)
	if op := a.u32(unix.NFTA_EXTHDR_OP); op == unix.NFT_EXTHDR_OP_IPV6 || op == 2 { // NFT_EXTHDR_OP_IPV4
		r.leaveOut(networkLayer)
	}
	if sreg := a[unix.NFTA_EXTHDR_SREG]; sreg != nil {
		r.add("%s set %s", v.text, r.source(r.read(a.u32(unix.NFTA_EXTHDR_SREG)), v.typ()))
		return
	}
	if a[unix.NFTA_EXTHDR_DREG] == nil {
		r.add("reset %s", v.text)
		return
	}
	r.load(a.u32(unix.NFTA_EXTHDR_DREG), v)
}

// exthdrKind is an option or extension header: its name and its fields by their offset.
type exthdrKind struct {
	name   string
	fields map[uint32]string
}

var tcpOptions = map[byte]exthdrKind{
	0: {"eol", nil}, 1: {"nop", nil}, 2: {"maxseg", map[uint32]string{1: "length", 2: "size"}}, 3: {"window", map[uint32]string{1: "length", 2: "count"}},
	4: {"sack-perm", map[uint32]string{1: "length"}}, 5: {"sack", map[uint32]string{1: "length", 2: "left", 6: "right"}},
	8: {"timestamp", map[uint32]string{1: "length", 2: "tsval", 6: "tsecr"}}, 19: {"md5sig", nil}, 30: {"mptcp", map[uint32]string{2: "subtype"}}, 34: {"fastopen", nil},
}

var ipOptions = map[byte]exthdrKind{
	7: {"rr", map[uint32]string{2: "ptr", 3: "addr"}}, 131: {"lsrr", map[uint32]string{2: "ptr", 3: "addr"}},
	137: {"ssrr", map[uint32]string{2: "ptr", 3: "addr"}}, 148: {"ra", map[uint32]string{2: "value"}},
}

var ip6Headers = map[byte]exthdrKind{
	0: {"hbh", map[uint32]string{0: "nexthdr", 1: "hdrlength"}}, 43: {"rt", map[uint32]string{0: "nexthdr", 1: "hdrlength", 2: "type", 3: "seg-left"}},
	44: {"frag", map[uint32]string{0: "nexthdr", 2: "frag-off", 4: "id"}}, 60: {"dst", map[uint32]string{0: "nexthdr", 1: "hdrlength"}},
	135: {"mh", map[uint32]string{0: "nexthdr", 1: "hdrlength", 2: "type"}},
}

func exthdrValue(a *attrs) *value {
	var kinds map[byte]exthdrKind
	prefix, present := "", "exthdr "
	switch op := a.u32(unix.NFTA_EXTHDR_OP); op {
	case unix.NFT_EXTHDR_OP_IPV6:
		kinds = ip6Headers
	case unix.NFT_EXTHDR_OP_TCPOPT:
		kinds, prefix = tcpOptions, "tcp option "
	case 2: // NFT_EXTHDR_OP_IPV4
		kinds, prefix = ipOptions, "ip option "
	case 3: // NFT_EXTHDR_OP_SCTP
		prefix = "sctp chunk "
	case 4: // NFT_EXTHDR_OP_DCCP
		prefix = "dccp option "
	}
	if prefix != "" {
		present = prefix
	}
	typ, at, n := a.u8(unix.NFTA_EXTHDR_TYPE), a.u32(unix.NFTA_EXTHDR_OFFSET), int(min(a.u32(unix.NFTA_EXTHDR_LEN), 64))
	kind, ok := kinds[typ]
	if !ok {
		kind.name = fmt.Sprint(typ)
	}
	if a.u32(unix.NFTA_EXTHDR_FLAGS)&unix.NFT_EXTHDR_F_PRESENT != 0 {
		return selector{present + kind.name, booleanType, 1}.value()
	}
	f := kind.fields[at]
	if f == "" {
		return selector{fmt.Sprintf("%s@%s,%d,%d", prefix, kind.name, at*8, n*8), hexType, n}.value()
	}
	return selector{prefix + kind.name + " " + f, integerType, n}.value()
}
