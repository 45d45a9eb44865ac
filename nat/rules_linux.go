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

// incoming adds the rules of guard, prerouting, output and publish: who may come
// in, and where published ports lead.
func incoming(b *nft.Batch) {
	b.AddRule("guard", rule(exprs{meta(expr.MetaKeyIIF, regA), eq(host32(1)...)}, accept())...) // lo is 1 in every namespace
	b.AddRule("guard", rule(iifIn("lo_ok"), accept())...)
	b.AddRule("guard", rule(ip4(), exprs{network(dst4, 1, regA), eq(127)}, drop())...)
	b.AddRule("guard", rule(ip4(), exprs{network(src4, 1, regA), eq(127)}, drop())...)

	fe80 := netip.MustParseAddr("fe80::").As16()
	mask := append([]byte{0xff, 0xc0}, make([]byte, 14)...)
	local := exprs{&expr.Fib{Register: regA, FlagDADDR: true, ResultADDRTYPE: true}, eq(host32(unix.RTN_LOCAL)...)}
	b.AddRule("prerouting", rule(ip6(), exprs{network(src6, 16, regA), masked(mask), eq(fe80[:]...)}, leave())...)
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

// destination loads address, protocol and port that a packet is for: the key of
// pub and its like.
func (f *family46) destination() exprs {
	if f.v6 {
		return exprs{network(dst6, 16, regA), meta(expr.MetaKeyL4PROTO, regB), dport(regAfter20)}
	}
	return exprs{network(dst4, 4, regA), meta(expr.MetaKeyL4PROTO, regAfter4), dport(regAfter8)}
}

// dnat looks the key up and rewrites to the address found, and to the port if
// there is one in the data.
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

// forwarding adds the rules of mss, forward and the chains that it goes to.
func forwarding(b *nft.Batch) {
	const flagSYN, flagRST = 0x02, 0x04
	syn := rule(l4(unix.IPPROTO_TCP), exprs{
		payload(expr.PayloadBaseTransportHeader, 13, 1, regA), masked([]byte{flagSYN | flagRST}), eq(flagSYN),
	})
	clamp := exprs{
		&expr.Rt{Register: regA, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: regA, DestRegister: regA, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: regA, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}, // option 2: maximum segment size
	}
	b.AddRule("mss", rule(syn, oifIn("mss"), clamp)...)
	b.AddRule("mss", rule(syn, iifIn("mss"), clamp)...)

	states, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeState}, Verdicts: true},
		nft.Element{Key: host32(expr.CtStateBitESTABLISHED), Accept: true},
		nft.Element{Key: host32(expr.CtStateBitRELATED), Accept: true})
	b.AddRule("forward", &expr.Ct{Key: expr.CtKeySTATE, Register: regA},
		&expr.Lookup{SourceRegister: regA, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: states, SetID: id})
	b.AddRule("forward", meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB),
		&expr.Lookup{SourceRegister: regA, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: "pair"})
	b.AddRule("forward", rule(iifIn("internal"), drop())...)
	b.AddRule("forward", rule(oifIn("ifs"), gotoChain("to_box"))...)
	b.AddRule("forward", rule(iifIn("ifs"), gotoChain("from_box"))...)
	b.AddRule("forward", rule(ctDNAT(true), accept())...) // another program publishes, on purpose
	// What is bridged passes here, too, where br_netfilter is on: from the bridge to the bridge.
	b.AddRule("forward", rule(exprs{meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB), in("bridged")}, accept())...)
	b.AddRule("forward", rule(ip4(), iifIn("flipped4"), drop())...)
	b.AddRule("forward", rule(ip6(), iifIn("flipped6"), drop())...)

	b.AddRule("from_box", rule(ctInvalid(), drop())...)
	b.AddRule("from_box", accept()...)

	b.AddRule("to_box", rule(ctInvalid(), drop())...)
	b.AddRule("to_box", rule(ctDNAT(true), accept())...)
	for _, f := range families {
		b.AddRule("to_box", rule(f.match(), f.destination(), exprs{in(f.route)}, accept())...)
	}
	b.AddRule("to_box", oifIn("closed")...) // the lookup counts in the network's element
	b.AddRule("to_box", drop()...)

	// Neighbour discovery and multicast listener discovery (RFC 4861, 2710, 3810).
	var types []nft.Element
	for _, t := range []byte{130, 131, 133, 134, 135, 136, 143} {
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

// outgoing adds the rules of postrouting and into_net: masquerade.
func outgoing(b *nft.Batch) {
	b.AddRule("postrouting", rule(oifIn("ifs"), gotoChain("into_net"))...)
	b.AddRule("postrouting", rule(ip4(), exprs{network(dst4, 4, regA), masked([]byte{0xf0, 0, 0, 0}), eq(224, 0, 0, 0)}, leave())...)
	b.AddRule("postrouting", rule(ip6(), exprs{network(dst6, 1, regA), eq(0xff)}, leave())...)
	for _, f := range families {
		b.AddRule("postrouting", rule(f.match(), exprs{
			meta(expr.MetaKeyIIFNAME, regA), lookup(f.snat),
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: regA},
		})...)
	}
	for _, f := range families {
		b.AddRule("postrouting", rule(f.match(), iifIn(f.masq), masquerade(true))...)
	}

	b.AddRule("into_net", rule(ctDNAT(false), leave())...)
	b.AddRule("into_net", rule(ip4(), exprs{network(src4, 1, regA), eq(127)}, masquerade(false))...)
	b.AddRule("into_net", rule(ip4(), exprs{network(src4, 4, regA), meta(expr.MetaKeyOIFNAME, regAfter4), in("same4")}, masquerade(false))...)
	b.AddRule("into_net", rule(ip6(), exprs{network(src6, 16, regA), meta(expr.MetaKeyOIFNAME, regB), in("same6")}, masquerade(false))...)
}

// family46 names what belongs to one family.
type family46 struct {
	v6                                                    bool
	nfproto                                               byte
	pub, any, rng, uses, route, masq, snat, same, flipped string
}

var families = [2]*family46{
	{nfproto: unix.NFPROTO_IPV4, pub: "pub4", any: "any4", rng: "rng4", uses: "uses4", route: "route4", masq: "masq4", snat: "snat4", same: "same4", flipped: "flipped4"},
	{nfproto: unix.NFPROTO_IPV6, v6: true, pub: "pub6", any: "any6", rng: "rng6", uses: "uses6", route: "route6", masq: "masq6", snat: "snat6", same: "same6", flipped: "flipped6"},
}

// familyOf returns the sets of an address's family.
func familyOf(a netip.Addr) *family46 {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

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
