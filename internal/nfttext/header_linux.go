package nfttext

import "golang.org/x/sys/unix"

// field is a part of a header: n bytes from an offset on, or with a mask some of their bits.
type field struct {
	name string
	at   int
	n    int
	typ  *datatype
	mask uint64 // of sub-byte fields, in network order
}

// header is a packet's header by nft's word for it.
type header struct {
	name   string
	fields []field
}

var ports = []field{{"sport", 0, 2, serviceType, 0}, {"dport", 2, 2, serviceType, 0}}

func transport(name string, fields ...field) *header {
	return &header{name, append(append([]field(nil), ports...), fields...)}
}

var (
	thHeader    = transport("th")
	etherHeader = &header{"ether", []field{{"daddr", 0, 6, etherType, 0}, {"saddr", 6, 6, etherType, 0}, {"type", 12, 2, etherTypeType, 0}}}
	vlanHeader  = &header{"vlan", []field{
		{"pcp", 14, 1, integerType, 0xe0}, {"dei", 14, 1, integerType, 0x10}, {"id", 14, 2, integerType, 0x0fff}, {"type", 16, 2, etherTypeType, 0},
	}}
	ipHeader = &header{"ip", []field{
		{"version", 0, 1, integerType, 0xf0}, {"hdrlength", 0, 1, integerType, 0x0f}, {"dscp", 1, 1, dscpType, 0xfc}, {"ecn", 1, 1, ecnType, 0x03},
		{"length", 2, 2, integerType, 0}, {"id", 4, 2, integerType, 0}, {"frag-off", 6, 2, integerType, 0}, {"ttl", 8, 1, integerType, 0},
		{"protocol", 9, 1, protoType, 0}, {"checksum", 10, 2, integerType, 0}, {"saddr", 12, 4, ipv4Type, 0}, {"daddr", 16, 4, ipv4Type, 0},
	}}
	ip6Header = &header{"ip6", []field{
		{"version", 0, 1, integerType, 0xf0}, {"dscp", 0, 2, dscpType, 0x0fc0}, {"ecn", 1, 1, ecnType, 0x30}, {"flowlabel", 1, 3, integerType, 0x0fffff},
		{"length", 4, 2, integerType, 0}, {"nexthdr", 6, 1, protoType, 0}, {"hoplimit", 7, 1, integerType, 0},
		{"saddr", 8, 16, ipv6Type, 0}, {"daddr", 24, 16, ipv6Type, 0},
	}}
	arpHeader = &header{"arp", []field{
		{"htype", 0, 2, integerType, 0}, {"ptype", 2, 2, etherTypeType, 0}, {"hlen", 4, 1, integerType, 0}, {"plen", 5, 1, integerType, 0},
		{"operation", 6, 2, arpOpType, 0}, {"saddr ether", 8, 6, etherType, 0}, {"saddr ip", 14, 4, ipv4Type, 0},
		{"daddr ether", 18, 6, etherType, 0}, {"daddr ip", 24, 4, ipv4Type, 0},
	}}
	transportHeaders = map[byte]*header{
		unix.IPPROTO_TCP: transport("tcp", field{"sequence", 4, 4, integerType, 0}, field{"ackseq", 8, 4, integerType, 0},
			field{"doff", 12, 1, integerType, 0xf0}, field{"flags", 13, 1, tcpFlagType, 0}, field{"window", 14, 2, integerType, 0},
			field{"checksum", 16, 2, integerType, 0}, field{"urgptr", 18, 2, integerType, 0}),
		unix.IPPROTO_UDP:     transport("udp", field{"length", 4, 2, integerType, 0}, field{"checksum", 6, 2, integerType, 0}),
		unix.IPPROTO_UDPLITE: transport("udplite", field{"csumcov", 4, 2, integerType, 0}, field{"checksum", 6, 2, integerType, 0}),
		unix.IPPROTO_SCTP:    transport("sctp", field{"vtag", 4, 4, integerType, 0}, field{"checksum", 8, 4, integerType, 0}),
		unix.IPPROTO_DCCP:    transport("dccp", field{"type", 8, 1, typesByNumber[16], 0x1e}),
		unix.IPPROTO_ICMP: {"icmp", []field{
			{"type", 0, 1, icmpType, 0}, {"code", 1, 1, icmpCodeType, 0}, {"checksum", 2, 2, integerType, 0},
			{"id", 4, 2, integerType, 0}, {"sequence", 6, 2, integerType, 0}, {"gateway", 4, 4, integerType, 0},
		}},
		unix.IPPROTO_ICMPV6: {"icmpv6", []field{
			{"type", 0, 1, icmp6Type, 0}, {"code", 1, 1, icmp6CodeType, 0}, {"checksum", 2, 2, integerType, 0},
			{"id", 4, 2, integerType, 0}, {"sequence", 6, 2, integerType, 0}, {"parameter-problem", 4, 4, integerType, 0},
		}},
		unix.IPPROTO_IGMP: {"igmp", []field{
			{"type", 0, 1, igmpTypeType, 0}, {"mrt", 1, 1, integerType, 0}, {"checksum", 2, 2, integerType, 0}, {"group", 4, 4, ipv4Type, 0},
		}},
		unix.IPPROTO_ESP: {"esp", []field{{"spi", 0, 4, integerType, 0}, {"sequence", 4, 4, integerType, 0}}},
		unix.IPPROTO_AH: {"ah", []field{
			{"nexthdr", 0, 1, protoType, 0}, {"hdrlength", 1, 1, integerType, 0}, {"reserved", 2, 2, integerType, 0},
			{"spi", 4, 4, integerType, 0}, {"sequence", 8, 4, integerType, 0},
		}},
		unix.IPPROTO_COMP: {"comp", []field{
			{"nexthdr", 0, 1, protoType, 0}, {"flags", 1, 1, integerType, 0}, {"cpi", 2, 2, integerType, 0},
		}},
	}
)

// find returns the field that begins at an offset and has n bytes, or of an address the first n.
func (h *header) find(at, n int) *field {
	if h == nil {
		return nil
	}
	for i := range h.fields {
		f := &h.fields[i]
		if f.mask == 0 && f.at == at && (f.n == n || n < f.n && f.typ.prefix) {
			return f
		}
	}
	return nil
}

// split returns the fields that follow each other from an offset on and have n bytes
// altogether; nil if there are none.
func (h *header) split(at, n int) (all []*field) {
	if f := h.find(at, n); f != nil {
		return []*field{f}
	}
	for n > 0 {
		var next *field
		for i := range h.fields {
			if f := &h.fields[i]; f.mask == 0 && f.at == at && f.n <= n {
				next = f
				break
			}
		}
		if next == nil {
			return nil
		}
		all = append(all, next)
		at, n = at+next.n, n-next.n
	}
	return all
}

// bits returns the field that is some bits of n bytes from an offset on.
func (h *header) bits(at, n int, mask uint64) *field {
	if h == nil || mask == 0 {
		return nil
	}
	for i := range h.fields {
		if f := &h.fields[i]; f.mask == mask && f.at == at && f.n == n {
			return f
		}
	}
	return nil
}
