package nfttext

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func (r *rule) bitwise(a *attrs) {
	const opAttr, dataAttr, lshift, rshift = 6, 7, 1, 2 // NFTA_BITWISE_OP, _DATA, NFT_BITWISE_LSHIFT, _RSHIFT
	v := *r.read(a.u32(unix.NFTA_BITWISE_SREG))
	n := int(min(a.u32(unix.NFTA_BITWISE_LEN), 64))
	mask, xor := a.value(unix.NFTA_BITWISE_MASK), a.value(unix.NFTA_BITWISE_XOR)
	switch op := a.u32(opAttr); {
	case op == lshift || op == rshift:
		sign := "<<"
		if op == rshift {
			sign = ">>"
		}
		types := r.resolve(&v).types
		v = value{text: fmt.Sprintf("%s %s %d", r.operand(&v), sign, number(a.value(dataAttr), hostOrder)), types: types, size: v.size}
	case op != 0 || len(mask) != n || len(xor) != n || v.mask != nil:
		v = value{text: r.operand(&v) + " <bitwise>", types: v.types, size: v.size}
	default:
		v.mask, v.xor = mask, xor
	}
	r.load(a.u32(unix.NFTA_BITWISE_DREG), &v)
}

// byteorder turns the bytes of a value round: what it is compared with is turned, too.
func (r *rule) byteorder(a *attrs) {
	v := *r.resolve(r.read(a.u32(unix.NFTA_BYTEORDER_SREG)))
	const hton = 1 // NFT_BYTEORDER_HTON
	v.order = hostOrder
	if a.u32(unix.NFTA_BYTEORDER_OP) == hton {
		v.order = bigOrder
	}
	for _, m := range []*[]byte{&v.mask, &v.xor} {
		if *m != nil {
			*m = slices.Clone(*m)
			slices.Reverse(*m)
		}
	}
	r.load(a.u32(unix.NFTA_BYTEORDER_DREG), &v)
}

func (r *rule) cmp(a *attrs) {
	r.compare(r.read(a.u32(unix.NFTA_CMP_SREG)), a.u32(unix.NFTA_CMP_OP), a.value(unix.NFTA_CMP_DATA))
}

func (r *rule) inRange(a *attrs) {
	op := uint32(opEQ)
	if a.u32(unix.NFTA_RANGE_OP) != unix.NFT_RANGE_EQ {
		op = opNEQ
	}
	r.writeRange(r.read(a.u32(unix.NFTA_RANGE_SREG)), op, a.value(unix.NFTA_RANGE_FROM_DATA), a.value(unix.NFTA_RANGE_TO_DATA))
}

func (r *rule) immediate(a *attrs) {
	in := parse(a[unix.NFTA_IMMEDIATE_DATA])
	if v := in[unix.NFTA_DATA_VERDICT]; v != nil {
		r.add("%s", verdictText(v))
		return
	}
	data := in[unix.NFTA_DATA_VALUE]
	if data == nil {
		data = []byte{}
	}
	r.load(a.u32(unix.NFTA_IMMEDIATE_DREG), &value{data: data, size: len(data)})
}

// verdictText writes the attributes of a verdict.
func verdictText(attributes []byte) string {
	a := parse(attributes)
	chain := name(a.text(unix.NFTA_VERDICT_CHAIN))
	switch code := int32(a.u32(unix.NFTA_VERDICT_CODE)); code {
	case 0: // NF_DROP
		return "drop"
	case 1: // NF_ACCEPT
		return "accept"
	case 3: // NF_QUEUE
		return "queue"
	case unix.NFT_CONTINUE:
		return "continue"
	case unix.NFT_BREAK:
		return "break"
	case unix.NFT_JUMP:
		return "jump " + chain
	case unix.NFT_GOTO:
		return "goto " + chain
	case unix.NFT_RETURN:
		return "return"
	default:
		return fmt.Sprintf("<verdict %d>", code)
	}
}

func (r *rule) counter(a *attrs) {
	r.add("counter packets %d bytes %d", a.u64(unix.NFTA_COUNTER_PACKETS), a.u64(unix.NFTA_COUNTER_BYTES))
}

// size writes a number of bytes in the largest unit that divides it.
func size(n uint64) string {
	units := [...]string{"bytes", "kbytes", "mbytes"}
	u := 0
	for ; u < len(units)-1 && n != 0 && n%1024 == 0; u++ {
		n /= 1024
	}
	return fmt.Sprintf("%d %s", n, units[u])
}

func (r *rule) limit(a *attrs) { r.add("limit %s", limitText(a)) }

func limitText(a *attrs) string {
	over := ""
	if a.u32(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV != 0 {
		over = "over "
	}
	unit := duration(time.Duration(min(a.u64(unix.NFTA_LIMIT_UNIT), 1<<32)) * time.Second)
	if s, ok := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[a.u64(unix.NFTA_LIMIT_UNIT)]; ok {
		unit = s
	}
	rate, burst := a.u64(unix.NFTA_LIMIT_RATE), a.u32(unix.NFTA_LIMIT_BURST)
	if a.u32(unix.NFTA_LIMIT_TYPE) == unix.NFT_LIMIT_PKT_BYTES {
		s := fmt.Sprintf("rate %s%s/%s", over, size(rate), unit)
		if burst != 0 {
			s += " burst " + size(uint64(burst))
		}
		return s
	}
	s := fmt.Sprintf("rate %s%d/%s", over, rate, unit)
	const usual = 5 // packets, what nft takes where none is given
	if burst != 0 && burst != usual {
		s += fmt.Sprintf(" burst %d packets", burst)
	}
	return s
}

func (r *rule) quota(a *attrs) { r.add("quota %s", quotaText(a)) }

func quotaText(a *attrs) string {
	s := ""
	if a.u32(unix.NFTA_QUOTA_FLAGS)&1 != 0 { // NFT_QUOTA_F_INV
		s = "over "
	}
	s += size(a.u64(unix.NFTA_QUOTA_BYTES))
	if n := a.u64(unix.NFTA_QUOTA_CONSUMED); n != 0 {
		s += " used " + size(n)
	}
	return s
}

// connlimit reads NFTA_CONNLIMIT_*.
func (r *rule) connlimit(a *attrs) {
	const count, flags, inverted = 1, 2, 1
	over := ""
	if a.u32(flags)&inverted != 0 {
		over = "over "
	}
	r.add("ct count %s%d", over, a.u32(count))
}

// last reads NFTA_LAST_*.
func (r *rule) last(a *attrs) {
	const set, msecs = 1, 2
	if a.u32(set) == 0 {
		r.add("last used never")
		return
	}
	r.add("last used %s", duration(time.Duration(min(a.u64(msecs), 1<<40))*time.Millisecond))
}

func (r *rule) log(a *attrs) {
	s := "log"
	if p := a[unix.NFTA_LOG_PREFIX]; p != nil {
		s += " prefix " + quoted(cString(p))
	}
	if a[unix.NFTA_LOG_GROUP] != nil {
		s += fmt.Sprintf(" group %d", a.u16(unix.NFTA_LOG_GROUP))
		if n := a.u32(unix.NFTA_LOG_SNAPLEN); n != 0 {
			s += fmt.Sprintf(" snaplen %d", n)
		}
		if n := a.u16(unix.NFTA_LOG_QTHRESHOLD); n != 0 {
			s += fmt.Sprintf(" queue-threshold %d", n)
		}
		r.add("%s", s)
		return
	}
	const usual = 4 // warn
	if level := a.u32(unix.NFTA_LOG_LEVEL); a[unix.NFTA_LOG_LEVEL] != nil && level != usual {
		if n, ok := logLevels.name(uint64(level)); ok {
			s += " level " + n
		} else {
			s += fmt.Sprintf(" level %d", level)
		}
	}
	r.add("%s%s", s, logFlags(a.u32(unix.NFTA_LOG_FLAGS)))
}

// logFlags writes NF_LOG_*.
func logFlags(flags uint32) string {
	const sequence, options, ip, uid, nflog, ether = 1, 2, 4, 8, 16, 32
	if flags&^nflog == sequence|options|ip|uid|ether {
		return " flags all"
	}
	s := ""
	switch flags & (sequence | options) {
	case sequence | options:
		s += " flags tcp sequence,options"
	case sequence:
		s += " flags tcp sequence"
	case options:
		s += " flags tcp options"
	}
	if flags&ip != 0 {
		s += " flags ip options"
	}
	if flags&uid != 0 {
		s += " flags skuid"
	}
	if flags&ether != 0 {
		s += " flags ether"
	}
	return s
}

func (r *rule) reject(a *attrs) {
	code := uint64(a.u8(unix.NFTA_REJECT_ICMP_CODE))
	inet := r.w.Family != unix.NFPROTO_IPV4 && r.w.Family != unix.NFPROTO_IPV6
	word, names, usual := "icmp", icmpCodes, uint64(3)
	switch typ := a.u32(unix.NFTA_REJECT_TYPE); {
	case typ == unix.NFT_REJECT_TCP_RST:
		if !inet {
			r.leaveOut(transportLayer)
		}
		r.add("reject with tcp reset")
		return
	case typ == unix.NFT_REJECT_ICMPX_UNREACH:
		word, names, usual, inet = "icmpx", icmpxCodes, 1, false
	case r.network == unix.NFPROTO_IPV6:
		word, names, usual = "icmpv6", icmp6Codes, 4
	}
	if code == usual && !inet {
		r.add("reject")
		return
	}
	s, ok := names.name(code)
	if !ok {
		s = fmt.Sprint(code)
	}
	if inet {
		r.leaveOut(networkLayer)
	}
	r.add("reject with %s %s", word, s)
}

func (r *rule) queue(a *attrs) {
	first, total := int(a.u16(unix.NFTA_QUEUE_NUM)), int(a.u16(unix.NFTA_QUEUE_TOTAL))
	var flags []string
	for i, s := range []string{"bypass", "fanout"} {
		if a.u16(unix.NFTA_QUEUE_FLAGS)&(1<<i) != 0 {
			flags = append(flags, s)
		}
	}
	s := "queue"
	if flags != nil {
		s += " flags " + strings.Join(flags, ",")
	}
	switch {
	case a[unix.NFTA_QUEUE_SREG_QNUM] != nil:
		s += " to " + r.source(r.read(a.u32(unix.NFTA_QUEUE_SREG_QNUM)), hostInteger)
	case total > 1:
		s += fmt.Sprintf(" to %d-%d", first, first+total-1)
	default:
		s += fmt.Sprintf(" to %d", first)
	}
	r.add("%s", s)
}

// dup reads NFTA_DUP_*.
func (r *rule) dup(a *attrs) {
	s := "dup to"
	t := ipv4Type
	if r.w.Family == unix.NFPROTO_IPV6 {
		t = ipv6Type
	}
	if a[unix.NFTA_DUP_SREG_ADDR] != nil {
		s += " " + r.source(r.read(a.u32(unix.NFTA_DUP_SREG_ADDR)), t)
	}
	if a[unix.NFTA_DUP_SREG_DEV] != nil {
		if a[unix.NFTA_DUP_SREG_ADDR] != nil {
			s += " device"
		}
		s += " " + r.source(r.read(a.u32(unix.NFTA_DUP_SREG_DEV)), ifindexType)
	}
	r.add("%s", s)
}

// fwd reads NFTA_FWD_*.
func (r *rule) fwd(a *attrs) {
	const addr, nfproto = 2, 3
	dev := r.source(r.read(a.u32(unix.NFTA_FWD_SREG_DEV)), ifindexType)
	if a[addr] == nil {
		r.add("fwd to %s", dev)
		return
	}
	family, t := "ip", ipv4Type
	if a.u32(nfproto) == unix.NFPROTO_IPV6 {
		family, t = "ip6", ipv6Type
	}
	r.add("fwd %s to %s device %s", family, r.source(r.read(a.u32(addr)), t), dev)
}

// synproxy reads NFTA_SYNPROXY_*, and NF_SYNPROXY_OPT_*.
func (r *rule) synproxy(a *attrs) { r.add("%s", strings.TrimSpace("synproxy "+synproxyText(a))) }

func synproxyText(a *attrs) string {
	const mss, wscale, flags = 1, 2, 3
	var all []string
	set := a.u32(flags)
	if set&1 != 0 {
		all = append(all, fmt.Sprintf("mss %d", a.u16(mss)))
	}
	if set&2 != 0 {
		all = append(all, fmt.Sprintf("wscale %d", a.u8(wscale)))
	}
	if set&8 != 0 {
		all = append(all, "timestamp")
	}
	if set&4 != 0 {
		all = append(all, "sack-perm")
	}
	return strings.Join(all, " ")
}

func (r *rule) flowOffload(a *attrs) { r.add("flow add @%s", name(a.text(1))) }

func (r *rule) objref(a *attrs) {
	typ := a.u32(unix.NFTA_OBJREF_IMM_TYPE)
	if set := a.text(unix.NFTA_OBJREF_SET_NAME); set != "" {
		of := "objref"
		s := r.set(set)
		if s != nil {
			of = objectWord(s.Object)
		}
		key := r.key(a.u32(unix.NFTA_OBJREF_SET_SREG), s)
		r.add("%s %s map %s", of, key, r.reference(set, s))
		return
	}
	r.add("%s %s", objectWord(typ), quoted(a.text(unix.NFTA_OBJREF_IMM_NAME)))
}

// objectWord is how a rule refers to an object of a type.
func objectWord(typ uint32) string {
	switch typ {
	case unix.NFT_OBJECT_CT_HELPER, unix.NFT_OBJECT_CT_TIMEOUT, unix.NFT_OBJECT_CT_EXPECT:
		return objectNames.text(uint64(typ)) + " set"
	case unix.NFT_OBJECT_SECMARK:
		return "meta secmark set"
	}
	if s, ok := objectNames.name(uint64(typ)); ok {
		return s + " name"
	}
	return fmt.Sprintf("<object %d>", typ)
}

// dynset reads NFTA_DYNSET_*.
func (r *rule) dynset(a *attrs) {
	const exprsAttr = 10 // NFTA_DYNSET_EXPRESSIONS
	op := [...]string{"add", "update", "delete"}
	verb := "<dynset>"
	if n := a.u32(unix.NFTA_DYNSET_OP); int(n) < len(op) {
		verb = op[n]
	}
	set := a.text(unix.NFTA_DYNSET_SET_NAME)
	s := r.set(set)
	text := r.key(a.u32(unix.NFTA_DYNSET_SREG_KEY), s)
	if t := a.u64(unix.NFTA_DYNSET_TIMEOUT); t != 0 {
		text += " timeout " + duration(time.Duration(min(t, 1<<40))*time.Millisecond)
	}
	var exprs []Expr
	if data := a[unix.NFTA_DYNSET_EXPR]; data != nil {
		e, _ := decodeExpr(walk(data))
		exprs = []Expr{e}
	} else if data := a[exprsAttr]; data != nil {
		exprs, _ = decodeExprs(walk(data))
	}
	if exprs != nil {
		text += " " + r.w.fresh(exprs)
	}
	if a[unix.NFTA_DYNSET_SREG_DATA] != nil {
		var types []*datatype
		if s != nil {
			types = s.Data
		}
		text += " : " + r.tuple(a.u32(unix.NFTA_DYNSET_SREG_DATA), types)
	}
	r.add("%s @%s { %s }", verb, name(set), text)
}

// stateful writes what an element or a set has besides its keys: counters, limits.
func (w *Writer) stateful(exprs []Expr) string {
	inner := newRule(w)
	for i := range exprs {
		a := parse(exprs[i].Data)
		switch exprs[i].Name {
		case "counter", "limit", "quota", "connlimit", "last":
			expressions[exprs[i].Name](inner, &a)
		default:
			inner.unknown(exprs[i].Name)
		}
	}
	return inner.String()
}

// fresh is stateful for what new elements have: counters begin at 0, and that is not said.
func (w *Writer) fresh(exprs []Expr) string {
	return strings.ReplaceAll(w.stateful(exprs), "counter packets 0 bytes 0", "counter")
}
