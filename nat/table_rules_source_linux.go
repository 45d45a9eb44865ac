package nat

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The source of a packet decides where the replies of its connection go, and replies are accepted
// as established. So the source is checked before conntrack, and for every packet, because a packet
// may also be injected into an existing connection.
//
// A packet with a wrong source that is for the host is dropped. One for another destination may
// only cross a bridge: with br_netfilter, bridged packets pass prerouting, too, and look like
// forwarded ones. Such a packet is not tracked, so it is not translated and opens no way for
// replies. The chain forward drops it if it leaves its network or enters one.

// guard adds the rules of the chain guard and its subchains, which check sources.
func guard(b *nft.Batch) {
	b.AddRule("guard", rule(exprs{meta(expr.MetaKeyIIF, regA), eq(host32(1)...)}, accept())...) // lo is 1 in every namespace
	// Links like lo are odd, and few: only for what would be dropped or left untracked are they looked up.
	ordinary := exprs{
		meta(expr.MetaKeyIIFNAME, regA), &expr.Lookup{SourceRegister: regA, SetName: "lo_ok", Invert: true},
	}
	b.AddRule("guard", rule(ip4(), exprs{network(dst4, 1, regA), eq(127)}, ordinary, drop())...)
	b.AddRule("guard", rule(ip4(), exprs{network(src4, 1, regA), eq(127)}, ordinary, drop())...)
	for _, f := range families {
		b.AddRule("guard", rule(f.covered(), gotoChain("near"))...)
	}
	b.AddRule("guard", rule(iifIn("ifs"), gotoChain("sources"))...)
	// With br_netfilter, the firewall sees packets that the host itself sends through a bridge port
	// whose other end it has. They are tracked and translated already.
	own := rule(iifKind("bridge"), ordinary, addrType(false), exprs{eq(host32(unix.RTN_LOCAL)...)}, notrack())
	b.AddRule("guard", own...)

	// Most packets that come this far are from boxes. One lookup in a hash table takes a third of the
	// time of one among intervals.
	for _, n := range nearSets {
		b.AddRule("near", rule(n.source(), exprs{in(n.set)}, accept())...)
	}
	b.AddRule("near", rule(iifIn("ifs"), gotoChain("sources"))...)
	for _, f := range families {
		b.AddRule("near", rule(f.sourceInNets(), gotoChain("claimed"))...)
	}
	b.AddRule("near", own...)

	oddLink := rule(iifIn("lo_ok"), accept())
	for _, f := range families {
		b.AddRule("sources", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.same)}, accept())...)
	}
	none4, none6 := make([]byte, 4), make([]byte, 16)
	b.AddRule("sources", rule(ip6(), linkLocalSource(), accept())...)
	b.AddRule("sources", rule(ip4(), exprs{network(src4, 4, regA), eq(none4...)}, accept())...) // DHCP
	b.AddRule("sources", rule(ip6(), exprs{network(src6, 16, regA), eq(none6...)}, accept())...)
	for _, f := range families {
		b.AddRule("sources", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.behind)}, accept())...)
	}
	// When a transaction adds a network or rebuilds the table, the rules are active a moment before
	// its intervals can be found (nf_tables_commit, then nft_set_commit_update). Intervals become
	// active in the order of their sets. So sources of the network are not checked until it is in
	// the last set, within. Once it is there, the sets before are looked up again.
	b.AddRule("sources", meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyIIFNAME, regB),
		&expr.Lookup{SourceRegister: regA, SetName: "within", Invert: true}, &expr.Verdict{Kind: expr.VerdictAccept})
	for _, f := range families {
		b.AddRule("sources", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.same)}, accept())...)
	}
	for _, f := range families {
		b.AddRule("sources", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.behind)}, accept())...)
	}
	b.AddRule("sources", oddLink...)
	b.AddRule("sources", rule(toHost(b), gotoChain("strangers"))...)
	b.AddRule("sources", rule(notrack(), accept())...)

	b.AddRule("strangers", iifIn("foreign")...) // the lookup counts in the network's element
	b.AddRule("strangers", drop()...)

	b.AddRule("claimed", oddLink...)
	b.AddRule("claimed", rule(toHost(b), drop())...)
	b.AddRule("claimed", rule(notrack(), accept())...)
}

// untracked adds the rules of untracked and strayed: how forward treats packets that guard excluded
// from tracking. Packets that another program excluded are accepted.
func untracked(b *nft.Batch) {
	b.AddRule("untracked", rule(exprs{meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB), in("within")}, leave())...)
	b.AddRule("untracked", rule(iifIn("ifs"), gotoChain("strayed"))...)
	b.AddRule("untracked", rule(exprs{
		meta(expr.MetaKeyOIFNAME, regA), &expr.Lookup{SourceRegister: regA, SetName: "ifs", Invert: true},
	}, leave())...)
	for _, f := range families {
		b.AddRule("untracked", rule(f.sourceInNets(), drop())...)
	}
	for _, f := range families {
		b.AddRule("strayed", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.same)}, leave())...)
	}
	for _, f := range families {
		b.AddRule("strayed", rule(f.source(expr.MetaKeyIIFNAME), exprs{in(f.behind)}, leave())...)
	}
	b.AddRule("strayed", gotoChain("strangers")...)
}

// hosting adds the rules of input and resets: what the host accepts from boxes, and which resets it
// sends.
func hosting(b *nft.Batch) {
	types, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeICMP6}},
		nft.Element{Key: []byte{icmp6RouterAdvert}}, nft.Element{Key: []byte{icmp6Redirect}})
	b.AddRule("input", rule(ip6(), l4(unix.IPPROTO_ICMPV6), exprs{
		payload(expr.PayloadBaseTransportHeader, 0, 1, regA),
		&expr.Lookup{SourceRegister: regA, SetName: types, SetID: id},
	}, iifIn("ifs"), drop())...)
	b.AddRule("input", rule(ip4(), icmp(unix.IPPROTO_ICMP, icmpRedirect), iifIn("ifs"), drop())...)

	// Conntrack does not translate a segment that it finds invalid. The segment reaches the host,
	// which has no such connection and would reset it.
	const flagRST = 0x04
	b.AddRule("resets", rule(l4(unix.IPPROTO_TCP), exprs{
		payload(expr.PayloadBaseTransportHeader, 13, 1, regA), masked([]byte{flagRST}), eq(flagRST),
	}, ctState(expr.CtStateBitINVALID), drop())...)
}

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4861).
const (
	icmpRedirect      = 5
	icmp6RouterAdvert = 134
	icmp6Redirect     = 137
)

// icmp matches a type of ICMP or ICMPv6.
func icmp(proto, typ byte) exprs {
	return rule(l4(proto), exprs{payload(expr.PayloadBaseTransportHeader, 0, 1, regA), eq(typ)})
}

// source matches the family, and loads the source address and the name of an interface: the key of
// same and behind.
func (f *family46) source(iface expr.MetaKey) exprs {
	if f.v6 {
		return rule(f.match(), exprs{network(src6, 16, regA), meta(iface, regB)})
	}
	return rule(f.match(), exprs{network(src4, 4, regA), meta(iface, regAfter4)})
}

// sourceInNets matches a source in any network. The kernel looks up intervals of concatenations
// faster; the protocol makes the key one.
func (f *family46) sourceInNets() exprs {
	if f.v6 {
		return rule(f.match(), exprs{network(src6, 16, regA), meta(expr.MetaKeyPROTOCOL, regB), in(f.nets)})
	}
	return rule(f.match(), exprs{network(src4, 4, regA), meta(expr.MetaKeyPROTOCOL, regAfter4), in(f.nets)})
}

// farDestination matches the family, and loads the destination address and the protocol: the key of
// far.
func (f *family46) farDestination() exprs {
	if f.v6 {
		return rule(f.match(), exprs{network(dst6, 16, regA), meta(expr.MetaKeyPROTOCOL, regB)})
	}
	return rule(f.match(), exprs{network(dst4, 4, regA), meta(expr.MetaKeyPROTOCOL, regAfter4)})
}

// etherType is the second part of a key of nets and far.
func (f *family46) etherType() []byte {
	if f.v6 {
		return []byte{0x86, 0xdd, 0, 0}
	}
	return []byte{0x08, 0x00, 0, 0}
}

func linkLocalSource() exprs {
	fe80 := netip.MustParseAddr("fe80::").As16()
	mask := append([]byte{0xff, 0xc0}, make([]byte, 14)...)
	return exprs{network(src6, 16, regA), masked(mask), eq(fe80[:]...)}
}

// addrType loads the route type of the destination address (dst) or the source address.
func addrType(dst bool) exprs {
	return exprs{&expr.Fib{Register: regA, FlagDADDR: dst, FlagSADDR: !dst, ResultADDRTYPE: true}}
}

// toHost matches packets for the host itself.
func toHost(b *nft.Batch) exprs {
	var types []nft.Element
	for _, t := range []uint32{unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST} {
		types = append(types, nft.Element{Key: host32(t)})
	}
	set, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeFib}}, types...)
	return append(addrType(true), &expr.Lookup{SourceRegister: regA, SetName: set, SetID: id})
}

// iifKind matches the kind of the ingress link.
func iifKind(kind string) exprs {
	const metaIIFKIND = 26 // NFT_META_IIFKIND, which the expressions' package lacks
	return exprs{meta(metaIIFKIND, regA), eq(ifname(kind)...)}
}
