package nat

import (
	"bytes"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets of addresses in the IP headers.
const (
	src4, dst4 = 12, 16
	src6, dst6 = 8, 24
)

// incoming adds the rules of the chains prerouting, output and publish, which translate published
// ports.
func incoming(b *nft.Batch) {
	local := append(addrType(true), eq(host32(unix.RTN_LOCAL)...))
	// The chains of a table that is added do not come into force at the same moment
	// (nf_tables_commit): a packet may pass guard before it has rules, and this chain after. So
	// what would be translated is looked at again.
	elsewhere := exprs{
		meta(expr.MetaKeyIIFNAME, regA), &expr.Lookup{SourceRegister: regA, SetName: "lo_ok", Invert: true},
	}
	b.AddRule("prerouting", rule(ip4(), exprs{network(dst4, 1, regA), eq(127)}, elsewhere, drop())...)
	b.AddRule("prerouting", rule(ip4(), exprs{network(src4, 1, regA), eq(127)}, elsewhere, drop())...)
	b.AddRule("prerouting", rule(ip6(), linkLocalSource(), leave())...)
	b.AddRule("prerouting", rule(local, gotoChain("publish"))...)

	one := netip.IPv6Loopback().As16()
	b.AddRule("output", rule(exprs{meta(expr.MetaKeyOIFNAME, regA), neq(ifname("lo")...)}, leave())...)
	b.AddRule("output", rule(ip6(), exprs{network(dst6, 16, regA), eq(one[:]...)}, leave())...)
	b.AddRule("output", rule(local, gotoChain("publish"))...)

	for _, f := range families {
		b.AddRule("publish", rule(f.match(), f.destination(), f.dnat(f.pub, true))...)
		b.AddRule("publish", rule(f.match(), exprs{meta(expr.MetaKeyL4PROTO, regA), dport(regAfter4)}, f.dnat(f.any, true))...)
		b.AddRule("publish", rule(f.match(), f.destination(), f.dnat(f.rng, false))...)
	}
}

// destination loads address, protocol and port of the destination: the key of pub and rng.
func (f *family46) destination() exprs {
	if f.v6 {
		return exprs{network(dst6, 16, regA), meta(expr.MetaKeyL4PROTO, regB), dport(regAfter20)}
	}
	return exprs{network(dst4, 4, regA), meta(expr.MetaKeyL4PROTO, regAfter4), dport(regAfter8)}
}

// dnat looks the key up in a map and translates the destination to the address found, with port to
// the port as well.
func (f *family46) dnat(m string, port bool) exprs {
	to := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: regA}
	switch {
	case port && f.v6:
		to.RegProtoMin = regB
	case port:
		to.RegProtoMin = regAfter4
	}
	return exprs{lookup(m), to}
}

func lookup(m string) expr.Any {
	return &expr.Lookup{SourceRegister: regA, DestRegister: regA, IsDestRegSet: true, SetName: m}
}

func (f *family46) match() exprs { return family(f.nfproto) }

// forwardRules adds the rules of the chains forward and connects, and of those that forward goes to: new_flow
// judges the packets that belong to no flow yet.
func forwardRules(b *nft.Batch) {
	const flagSYN, flagRST, flagACK = 0x02, 0x04, 0x10
	flags := func(mask, want byte) exprs {
		return exprs{payload(expr.PayloadBaseTransportHeader, 13, 1, regA), masked([]byte{mask}), eq(want)}
	}
	syn := rule(l4(unix.IPPROTO_TCP), flags(flagSYN|flagRST, flagSYN))
	clamp := exprs{
		&expr.Rt{Register: regA, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: regA, DestRegister: regA, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: regA, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}, // option 2: maximum segment size
	}
	b.AddRule("forward", rule(syn, jumpChain("connects"))...) // one rule for all other packets
	tcp := l4(unix.IPPROTO_TCP)                               // nft wants it in each rule about an option
	b.AddRule("connects", rule(tcp, oifIn("mss"), clamp)...)
	b.AddRule("connects", rule(tcp, iifIn("mss"), clamp)...)
	size := exprs{lookup("mss_size"), &expr.Exthdr{SourceRegister: regA, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}}
	b.AddRule("connects", rule(tcp, exprs{meta(expr.MetaKeyOIFNAME, regA)}, size)...)
	b.AddRule("connects", rule(tcp, exprs{meta(expr.MetaKeyIIFNAME, regA)}, size)...)
	// A connection that is over stays in connection tracking for a while. One with the same addresses and
	// ports is of its flow for the kernel, and for the rules a new one.
	b.AddRule("connects", rule(tcp, flags(flagACK, 0), ctState(expr.CtStateBitESTABLISHED), ctOriginal(), gotoChain("new_flow"))...)

	// These are rules and no verdict map. While a transaction deletes a map together with the
	// table, packets in the chain do not find its elements any more (nft_map_deactivate), and the
	// next rules would drop established connections.
	b.AddRule("forward", rule(ctState(expr.CtStateBitESTABLISHED), accept())...)
	b.AddRule("forward", rule(ctState(expr.CtStateBitRELATED), gotoChain("errors"))...)
	b.AddRule("forward", gotoChain("new_flow")...)

	b.AddRule("new_flow", rule(ctState(stateUntracked), jumpChain("untracked"))...)
	b.AddRule("new_flow", rule(iifIn("strict"), jumpChain("egress"))...)
	b.AddRule("new_flow", rule(iifIn("policed"), jumpChain("egress"))...)
	b.AddRule("new_flow", rule(oifIn("policed"), jumpChain("ingress"))...)
	b.AddRule("new_flow", meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB),
		&expr.Lookup{SourceRegister: regA, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: "pair"})
	b.AddRule("new_flow", rule(iifIn("internal"), drop())...)
	b.AddRule("new_flow", rule(oifIn("ifs"), gotoChain("to_box"))...)
	b.AddRule("new_flow", rule(iifIn("ifs"), gotoChain("from_box"))...)
	b.AddRule("new_flow", rule(ctDNAT(true), accept())...) // another program publishes, on purpose
	// With br_netfilter on, bridged packets pass here, too: from the bridge to the bridge.
	b.AddRule("new_flow", rule(exprs{meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB), in("bridged")}, accept())...)
	b.AddRule("new_flow", rule(ip4(), iifIn("flipped4"), drop())...)
	b.AddRule("new_flow", rule(ip6(), iifIn("flipped6"), drop())...)

	// Conntrack takes a redirect (RFC 792) for an error of the connection that it quotes.
	b.AddRule("errors", rule(ip4(), icmp(unix.IPPROTO_ICMP, icmpRedirect), iifIn("isolated"), drop())...)
	b.AddRule("errors", accept()...)

	// An untracked packet is not translated.
	b.AddRule("from_box", rule(ctState(expr.CtStateBitINVALID|stateUntracked), gotoChain("stateless"))...)
	b.AddRule("from_box", accept()...)
	for _, f := range families {
		b.AddRule("stateless", rule(f.match(), iifIn(f.translated), drop())...)
	}
	b.AddRule("stateless", accept()...)

	b.AddRule("to_box", rule(ctDNAT(true), accept())...)
	for _, f := range families {
		b.AddRule("to_box", rule(f.match(), f.destination(), exprs{in(f.route)}, accept())...)
	}
	// A packet from a box is not trusted, whatever its source is.
	for _, f := range families {
		b.AddRule("to_box", rule(exprs{
			meta(expr.MetaKeyIIFNAME, regA), &expr.Lookup{SourceRegister: regA, SetName: "ifs", Invert: true},
		}, f.source(expr.MetaKeyOIFNAME), exprs{in(f.trusted)}, accept())...)
	}
	const echo4, echo6 = 8, 128 // requests (RFC 792, RFC 4443)
	icmpType := payload(expr.PayloadBaseTransportHeader, 0, 1, regA)
	b.AddRule("to_box", rule(ip4(), l4(unix.IPPROTO_ICMP), exprs{icmpType, eq(echo4), network(dst4, 4, regA), in("echo4")}, accept())...)
	b.AddRule("to_box", rule(ip6(), l4(unix.IPPROTO_ICMPV6), exprs{icmpType, eq(echo6), network(dst6, 16, regA), in("echo6")}, accept())...)
	b.AddRule("to_box", oifIn("closed")...) // the lookup counts in the network's element
	b.AddRule("to_box", drop()...)

	var types []nft.Element
	for _, t := range discoveryTypes {
		types = append(types, nft.Element{Key: []byte{t}})
	}
	discovery, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeICMP6}}, types...)
	b.AddRule("icc_off", rule(ip6(), l4(unix.IPPROTO_ICMPV6), exprs{
		payload(expr.PayloadBaseTransportHeader, 0, 1, regA),
		&expr.Lookup{SourceRegister: regA, SetName: discovery, SetID: id},
	}, accept())...)
	b.AddRule("icc_off", rule(ctDNAT(true), accept())...)
	b.AddRule("icc_off", iifIn("isolated")...)
	b.AddRule("icc_off", drop()...)
}

// discoveryTypes are the ICMPv6 types that siblings of an isolated network need:
// neighbour discovery, but for that of routers, and multicast listener discovery
// (RFC 4861, 2710, 3810).
var discoveryTypes = []byte{130, 131, 135, 136, 143}

// family46 has the names and offsets of one family.
type family46 struct {
	v6                                                    bool
	nfproto                                               byte
	pub, any, rng, refs, route, masq, snat, same, enabled string
	own, owns, echo                                       string
	trusted, far                                          string
	policySets

	cover, nets, behind, translated string
}

var families = [2]*family46{
	{nfproto: unix.NFPROTO_IPV4, pub: "pub4", any: "any4", rng: "rng4", refs: "uses4", route: "route4", masq: "masq4", snat: "snat4", same: "same4", enabled: "flipped4",
		cover: "cover4", nets: "nets4", behind: "behind4", translated: "translated4", own: "own4", owns: "owns4", echo: "echo4", trusted: "trusted4", far: "far4", policySets: newPolicySets("4")},
	{nfproto: unix.NFPROTO_IPV6, v6: true, pub: "pub6", any: "any6", rng: "rng6", refs: "uses6", route: "route6", masq: "masq6", snat: "snat6", same: "same6", enabled: "flipped6",
		cover: "cover6", nets: "nets6", behind: "behind6", translated: "translated6", own: "own6", owns: "owns6", echo: "echo6", trusted: "trusted6", far: "far6", policySets: newPolicySets("6")},
}

// familyOf returns the family of an address.
func familyOf(a netip.Addr) *family46 {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

// has reports whether a port is of the family.
func (f *family46) has(p Port) bool { return familyOf(p.Host.Addr()) == f }

// ifname is an interface name as a key: 16 bytes, NUL-padded.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// nameOf is the interface name in a key.
func nameOf(key []byte) string {
	s, _, _ := bytes.Cut(key, []byte{0})
	return string(s)
}
