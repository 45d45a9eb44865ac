package nfttext

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// order is the byte order of a value.
type order byte

const (
	hostOrder order = iota + 1 // NFT_BYTEORDER_HOST_ENDIAN of nft's userdata
	bigOrder
)

// datatype is how nft types a value: how many bytes it has, and how they are written.
type datatype struct {
	name   string
	size   int // bytes of one in a key; 0 for as many as there are
	order  order
	names  symbols
	mask   bool // the names are of bits
	prefix bool // parts are written as prefixes
	write  func(w *Writer, b []byte, o order) string
}

var (
	verdictType   = &datatype{name: "verdict"}
	integerType   = &datatype{name: "integer", order: bigOrder}
	hostInteger   = &datatype{name: "integer", order: hostOrder}
	stringType    = &datatype{name: "string", write: writeString}
	nfprotoType   = &datatype{name: "nf_proto", size: 1, order: hostOrder, names: nfprotos}
	llAddrType    = &datatype{name: "ll_addr", order: bigOrder, write: writeMAC}
	ipv4Type      = &datatype{name: "ipv4_addr", size: 4, order: bigOrder, prefix: true, write: writeAddr}
	ipv6Type      = &datatype{name: "ipv6_addr", size: 16, order: bigOrder, prefix: true, write: writeAddr}
	etherType     = &datatype{name: "ether_addr", size: 6, order: bigOrder, write: writeMAC}
	etherTypeType = &datatype{name: "ether_type", size: 2, order: bigOrder, names: etherTypes, write: writeHex}
	arpOpType     = &datatype{name: "arp_op", size: 2, order: bigOrder, names: arpOps}
	protoType     = &datatype{name: "inet_proto", size: 1, order: bigOrder, names: protocols}
	serviceType   = &datatype{name: "inet_service", size: 2, order: bigOrder}
	icmpType      = &datatype{name: "icmp_type", size: 1, order: bigOrder, names: icmpTypes}
	tcpFlagType   = &datatype{name: "tcp_flag", size: 1, order: bigOrder, names: tcpFlags, mask: true}
	timeType      = &datatype{name: "time", size: 8, order: hostOrder, write: writeMilliseconds}
	markType      = &datatype{name: "mark", size: 4, order: hostOrder, prefix: true, write: writeMark}
	ifindexType   = &datatype{name: "iface_index", size: 4, order: hostOrder, write: writeIndex}
	linkType      = &datatype{name: "iface_type", size: 2, order: hostOrder, names: linkTypes}
	realmType     = &datatype{name: "realm", size: 4, order: hostOrder}
	classidType   = &datatype{name: "classid", size: 4, order: hostOrder, write: writeClassid}
	uidType       = &datatype{name: "uid", size: 4, order: hostOrder}
	gidType       = &datatype{name: "gid", size: 4, order: hostOrder}
	ctStateType   = &datatype{name: "ct_state", size: 4, order: hostOrder, names: ctStates, mask: true}
	ctDirType     = &datatype{name: "ct_dir", size: 1, order: bigOrder, names: ctDirections}
	ctStatusType  = &datatype{name: "ct_status", size: 4, order: hostOrder, names: ctStatus, mask: true}
	icmp6Type     = &datatype{name: "icmpv6_type", size: 1, order: bigOrder, names: icmp6Types}
	ctLabelType   = &datatype{name: "ct_label", size: 16, order: hostOrder, mask: true, write: writeBits}
	pktTypeType   = &datatype{name: "pkt_type", size: 1, order: hostOrder, names: packetTypes}
	icmpCodeType  = &datatype{name: "icmp_code", size: 1, order: bigOrder, names: icmpCodes}
	icmp6CodeType = &datatype{name: "icmpv6_code", size: 1, order: bigOrder, names: icmp6Codes}
	icmpxCodeType = &datatype{name: "icmpx_code", size: 1, order: bigOrder, names: icmpxCodes}
	devGroupType  = &datatype{name: "devgroup", size: 4, order: hostOrder, names: symbols{{0, `"default"`}}}
	dscpType      = &datatype{name: "dscp", size: 1, order: bigOrder, names: dscps}
	ecnType       = &datatype{name: "ecn", size: 1, order: bigOrder, names: ecns}
	fibAddrType   = &datatype{name: "fib_addrtype", size: 4, order: hostOrder, names: addrTypes}
	booleanType   = &datatype{name: "boolean", size: 1, order: hostOrder, names: booleans}
	ctEventType   = &datatype{name: "ct_event", size: 4, order: hostOrder, names: ctEvents, mask: true}
	ifnameType    = &datatype{name: "ifname", size: 16, order: hostOrder, prefix: true, write: writeString}
	igmpTypeType  = &datatype{name: "igmp_type", size: 1, order: bigOrder, names: igmpTypes}
	dayType       = &datatype{name: "day", size: 1, order: bigOrder, names: days}
	hourType      = &datatype{name: "hour", size: 4, order: hostOrder, write: writeHour}
	dateType      = &datatype{name: "time", size: 8, order: hostOrder, write: writeDate}
	hexType       = &datatype{name: "integer", order: bigOrder, write: writeHex}
)

// typesByNumber are the types of sets' keys and data by their number in nft (enum datatypes).
var typesByNumber = [...]*datatype{
	1: verdictType, 2: nfprotoType, 3: {name: "bitmask", order: hostOrder}, 4: integerType, 5: stringType, 6: llAddrType, 7: ipv4Type,
	8: ipv6Type, 9: etherType, 10: etherTypeType, 11: arpOpType, 12: protoType, 13: serviceType, 14: icmpType, 15: tcpFlagType,
	16: {name: "dccp_pkttype", size: 1, order: bigOrder, names: dccpTypes}, 17: {name: "mh_type", size: 1, order: bigOrder},
	18: timeType, 19: markType, 20: ifindexType, 21: linkType, 22: realmType, 23: classidType, 24: uidType, 25: gidType,
	26: ctStateType, 27: ctDirType, 28: ctStatusType, 29: icmp6Type, 30: ctLabelType, 31: pktTypeType, 32: icmpCodeType,
	33: icmp6CodeType, 34: icmpxCodeType, 35: devGroupType, 36: dscpType, 37: ecnType, 38: fibAddrType, 39: booleanType,
	40: ctEventType, 41: ifnameType, 42: igmpTypeType, 43: dateType, 44: hourType, 45: dayType,
	46: {name: "cgroupsv2", size: 8, order: hostOrder},
}

// typesOf are the types of the fields of a key or of data, of which nft writes 6 bits each
// (TYPE_BITS), the last field lowest.
func typesOf(number uint32) (all []*datatype) {
	const bits = 6
	for ; number != 0; number >>= bits {
		n := number & (1<<bits - 1)
		if int(n) >= len(typesByNumber) || typesByNumber[n] == nil {
			return nil
		}
		all = append(all, typesByNumber[n])
	}
	slices.Reverse(all)
	return all
}

func typeNames(types []*datatype) string {
	if len(types) == 0 {
		return "unknown"
	}
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.name
	}
	return strings.Join(names, " . ")
}

// value writes a value of the type. The order, unless it is 0, is another one than usual.
func (w *Writer) value(t *datatype, b []byte, o order) string {
	if o == 0 || t.size == 1 {
		o = t.order
	}
	if t.mask && t.write == nil {
		return bitNames(t, number(b, o))
	}
	if len(b) <= 8 {
		if s, ok := t.names.name(number(b, o)); ok {
			return s
		}
	}
	if t.write != nil {
		return t.write(w, b, o)
	}
	if len(b) > 8 {
		return writeHex(w, b, o)
	}
	return strconv.FormatUint(number(b, o), 10)
}

// bitNames writes the names of the bits, the lowest first, and what has none as a number.
func bitNames(t *datatype, n uint64) string {
	if n == 0 {
		return "0x0"
	}
	var all []string
	for left := n; left != 0; left &= left - 1 {
		bit := uint64(1) << bits.TrailingZeros64(left)
		s, ok := t.names.name(bit)
		if !ok {
			s = fmt.Sprintf("%#x", bit)
		}
		all = append(all, s)
	}
	return strings.Join(all, ",")
}

// number reads up to 8 bytes.
func number(b []byte, o order) (n uint64) {
	for i := range min(len(b), 8) {
		c := b[i]
		if o == hostOrder && littleEndian {
			c = b[len(b)-1-i]
		}
		n = n<<8 | uint64(c)
	}
	return n
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// big returns the bytes with the most significant one first.
func big(b []byte, o order) []byte {
	b = slices.Clone(b)
	if o == hostOrder && littleEndian {
		slices.Reverse(b)
	}
	return b
}

func writeHex(_ *Writer, b []byte, o order) string { return "0x" + hex.EncodeToString(big(b, o)) }

func writeMark(_ *Writer, b []byte, o order) string { return fmt.Sprintf("0x%08x", number(b, o)) }

func writeMAC(_ *Writer, b []byte, _ order) string { return net.HardwareAddr(b).String() }

func writeAddr(w *Writer, b []byte, o order) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return writeHex(w, b, o)
}

func writeMilliseconds(_ *Writer, b []byte, o order) string {
	return duration(time.Duration(min(number(b, o), 1<<40)) * time.Millisecond)
}

// writeBits writes the numbers of the bits that are set.
func writeBits(_ *Writer, b []byte, o order) string {
	var all []string
	for i, c := range slices.Backward(big(b, o)) {
		for bit := range 8 {
			if c&(1<<bit) != 0 {
				all = append(all, strconv.Itoa((len(b)-1-i)*8+bit))
			}
		}
	}
	return strings.Join(all, ",")
}

func writeIndex(w *Writer, b []byte, o order) string {
	n := uint32(number(b, o))
	if w.Link != nil {
		if s := w.Link(n); s != "" {
			return quoted(s)
		}
	}
	if n == 1 { // LOOPBACK_IFINDEX
		return `"lo"`
	}
	return strconv.FormatUint(uint64(n), 10)
}

func writeClassid(_ *Writer, b []byte, o order) string {
	n := number(b, o)
	switch n {
	case 0:
		return "none"
	case 1<<32 - 1:
		return "root"
	}
	return fmt.Sprintf("%x:%x", n>>16, n&0xffff)
}

func writeHour(_ *Writer, b []byte, o order) string {
	const day = 24 * 60 * 60
	_, east := time.Now().Zone() // the kernel has it in UTC, and nft lists local time
	s := (int(number(b, o)%day) + east + day) % day
	if s%60 != 0 {
		return fmt.Sprintf(`"%02d:%02d:%02d"`, s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf(`"%02d:%02d"`, s/3600, s/60%60)
}

func writeDate(_ *Writer, b []byte, o order) string {
	return quoted(time.Unix(0, int64(number(b, o))).Format("2006-01-02 15:04:05"))
}

// writeString writes a name that ends with a NUL. One without is the beginning of names.
func writeString(_ *Writer, b []byte, _ order) string {
	s, _, whole := strings.Cut(string(b), "\x00")
	if strings.HasSuffix(s, "*") {
		s = strings.TrimSuffix(s, "*") + `\*`
	}
	if !whole && len(b) < 16 {
		s += "*"
	}
	if strings.HasSuffix(s, `\*`) {
		return `"` + strings.Trim(quoted(s[:len(s)-2]), `"`) + `\*"`
	}
	return quoted(s)
}

// duration writes a time as nft does: 1d2h3m4s5ms.
func duration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}
