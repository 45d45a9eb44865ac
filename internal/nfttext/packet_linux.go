package nfttext

import (
	"bytes"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// payload loads a part of the packet, or writes one.
func (r *rule) payload(a *attrs) {
	l := &location{int(a.u32(unix.NFTA_PAYLOAD_BASE)), int(a.u32(unix.NFTA_PAYLOAD_OFFSET)), int(a.u32(unix.NFTA_PAYLOAD_LEN))}
	v := &value{header: l, size: l.n}
	if a[unix.NFTA_PAYLOAD_SREG] == nil {
		r.load(a.u32(unix.NFTA_PAYLOAD_DREG), v)
		return
	}
	src := r.read(a.u32(unix.NFTA_PAYLOAD_SREG))
	if r.setBits(l, src) {
		return
	}
	v = r.resolve(v)
	r.add("%s set %s", v.text, r.source(src, v.typ()))
}

// setBits writes the setting of a field that is less than what was loaded: the other bits
// are kept by bitwise.
func (r *rule) setBits(l *location, src *value) bool {
	if src.header == nil || *src.header != *l || src.mask == nil || l.n > 8 {
		return false
	}
	width := uint64(1)<<(8*l.n) - 1
	if l.n == 8 {
		width = 1<<64 - 1
	}
	cleared := width &^ number(src.mask, bigOrder)
	f := r.headerAt(l).bits(l.at, l.n, cleared)
	if f == nil { // of a field of one byte, two were loaded, for the checksum
		f, cleared = r.byteOf(l, cleared, width)
	}
	if f == nil {
		return false
	}
	v := r.resolve(&value{header: &location{l.base, f.at, f.n}, size: f.n, mask: maskBytes(f), xor: make([]byte, f.n)})
	set := number(src.xor, bigOrder) >> bits.TrailingZeros64(cleared)
	if f.mask == 0 {
		set = number(src.xor, bigOrder) & cleared >> bits.TrailingZeros64(cleared)
	}
	b := make([]byte, 8)
	for i := range b {
		b[7-i] = byte(set >> (8 * i))
	}
	r.add("%s set %s", v.text, r.w.value(v.typ(), b[8-f.n:], 0))
	return true
}

// byteOf finds the field that lies in some bits of what was loaded.
func (r *rule) byteOf(l *location, cleared, width uint64) (*field, uint64) {
	h := r.headerAt(l)
	if h == nil {
		return nil, cleared
	}
	for i := range h.fields {
		f := &h.fields[i]
		if f.at < l.at || f.at+f.n > l.at+l.n || f.n >= l.n {
			continue
		}
		m := f.mask
		if m == 0 {
			m = uint64(1)<<(8*f.n) - 1
		}
		if m<<(8*(l.at+l.n-f.at-f.n))&width == cleared {
			return f, cleared
		}
	}
	return nil, cleared
}

func maskBytes(f *field) []byte {
	if f.mask == 0 {
		return nil
	}
	b := make([]byte, f.n)
	for i := range b {
		b[len(b)-1-i] = byte(f.mask >> (8 * i))
	}
	return b
}

// headerAt is the header at a location, nil where it is not known.
func (r *rule) headerAt(l *location) *header {
	switch l.base {
	case unix.NFT_PAYLOAD_LL_HEADER:
		if l.at >= 14 {
			return vlanHeader
		}
		return etherHeader
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		switch r.network {
		case unix.NFPROTO_IPV4:
			return ipHeader
		case unix.NFPROTO_IPV6:
			return ip6Header
		case unix.NFPROTO_ARP:
			return arpHeader
		}
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		if h := transportHeaders[r.proto]; h != nil {
			return h
		}
		return thHeader
	}
	return nil
}

// part is a field of a comparison.
type part struct {
	v    *value
	data []byte
}

// parts are the fields of which each is compared with a part of the data: nft compares
// neighbours in one go.
func (r *rule) parts(v *value, op uint32, data []byte) []part {
	whole := []part{{v, data}}
	if v.header == nil || v.mask != nil || op != opEQ || len(data) != v.header.n {
		return whole
	}
	fields := r.headerAt(v.header).split(v.header.at, v.header.n)
	if len(fields) < 2 {
		return whole
	}
	whole = nil
	for _, f := range fields {
		whole = append(whole, part{&value{header: &location{v.header.base, f.at, f.n}, size: f.n}, data[:f.n]})
		data = data[f.n:]
	}
	return whole
}

// resolve gives a part of the packet the name of its field. A statement before that has
// the field's protocol is left out.
func (r *rule) resolve(v *value) *value {
	if v.header == nil {
		return v
	}
	l, h := v.header, r.headerAt(v.header)
	n := *v
	n.header = nil
	var f *field
	if v.mask != nil && l.n <= 8 {
		if f = h.bits(l.at, l.n, number(v.mask, bigOrder)); f != nil && zero(v.xor) {
			n.shift = bits.TrailingZeros64(f.mask)
			n.mask, n.xor = nil, nil
		}
	}
	if f == nil {
		f = h.find(l.at, l.n)
	}
	if f == nil {
		n.text = rawText(l)
		n.types = []*datatype{hexType}
		return &n
	}
	if f.mask == 0 && l.n < f.n && n.mask == nil {
		n.size = f.n
		n.mask = append(bytes.Repeat([]byte{0xff}, l.n), make([]byte, f.n-l.n)...)
		n.xor = make([]byte, f.n)
	}
	n.text, n.types = h.name+" "+f.name, []*datatype{f.typ}
	r.uses(l.base, h)
	return &n
}

func rawText(l *location) string {
	bases := [...]string{"ll", "nh", "th", "ih"}
	base := "unknown"
	if l.base < len(bases) {
		base = bases[l.base]
	}
	return fmt.Sprintf("@%s,%d,%d", base, l.at*8, l.n*8)
}

// uses leaves out the statements that a field of a header implies.
func (r *rule) uses(base int, h *header) {
	switch {
	case base == unix.NFT_PAYLOAD_LL_HEADER:
		r.leaveOut(linkLayer)
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER:
		r.leaveOut(networkLayer)
	case h != thHeader:
		r.leaveOut(transportLayer)
		if h.name == "icmp" || h.name == "icmpv6" || h.name == "igmp" {
			r.leaveOut(networkLayer)
		}
	}
}

func (r *rule) leaveOut(l layer) {
	if at := r.implied[l]; at >= 0 && at < len(r.out) {
		r.out[at] = ""
	}
	r.implied[l] = -1
}

// learn notes which protocol a comparison that was just written asks for.
func (r *rule) learn(v *value, op uint32, data []byte) {
	if op != opEQ || v.mask != nil || len(data) == 0 || len(data) > 2 {
		return
	}
	last := len(r.out) - 1
	switch v.text {
	case "meta nfproto":
		r.network = data[0]
		r.implied[networkLayer] = last
	case "meta protocol", "ether type", "vlan type":
		r.ethertype(number(data, bigOrder), last)
	case "meta iiftype", "meta oiftype":
		if number(data, hostOrder) == unix.ARPHRD_ETHER {
			r.implied[linkLayer] = last
		}
	case "meta l4proto":
		r.proto = data[0]
		r.implied[transportLayer] = last
	case "ip protocol", "ip6 nexthdr":
		r.proto = data[0]
		if r.w.Family == unix.NFPROTO_IPV4 || r.w.Family == unix.NFPROTO_IPV6 {
			r.implied[transportLayer] = last
		}
	}
}

func (r *rule) ethertype(n uint64, at int) {
	l := networkLayer
	switch n {
	case unix.ETH_P_IP:
		r.network = unix.NFPROTO_IPV4
	case unix.ETH_P_IPV6:
		r.network = unix.NFPROTO_IPV6
	case unix.ETH_P_ARP:
		r.network = unix.NFPROTO_ARP
	case unix.ETH_P_8021Q, unix.ETH_P_8021AD:
		l = linkLayer
	default:
		return
	}
	r.implied[l] = at
}
