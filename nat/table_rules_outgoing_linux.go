package nat

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Packets to the outside keep their source port where they can. Replies to a flow are not looked up
// in the published ports. If a flow used a port that is published for another box, it would get
// what visitors send to the port (port shadowing). So flows from a published port number get
// another port at random. If that is a single published port, the packet is dropped, and the next
// one gets another port. It may be one of a published range, because a range may be all ports that
// there are.

// The ports that flows are moved to. They are above those that Linux gives to programs (32768 to
// 60999), and are rarely published.
const (
	movedFirst = 61000
	movedLast  = 65535
)

// outgoing adds the rules of the chain postrouting and of those that it goes to.
func outgoing(b *nft.Batch) {
	b.AddRule("postrouting", rule(oifIn("ifs"), gotoChain("into_net"))...)
	b.AddRule("postrouting", rule(ip4(), exprs{network(dst4, 4, regA), masked([]byte{0xf0, 0, 0, 0}), eq(224, 0, 0, 0)}, leave())...)
	b.AddRule("postrouting", rule(ip6(), exprs{network(dst6, 1, regA), eq(0xff)}, leave())...)
	for _, f := range families {
		b.AddRule("postrouting", rule(f.receiver(), exprs{in(f.trusted)}, leave())...)
	}
	for _, f := range families {
		b.AddRule("postrouting", rule(ctDNAT(true), f.farDestination(), exprs{inMap(f.far)}, gotoChain("far_out"))...)
	}
	b.AddRule("postrouting", rule(iifIn("ifs"), gotoChain("box_out"))...)
	b.AddRule("postrouting", rule(exprs{meta(expr.MetaKeyOIFNAME, regA), eq(ifname("lo")...)}, leave())...)
	b.AddRule("postrouting", rule(fromHost(), gotoChain("host_out"))...)

	b.AddRule("into_net", rule(ctDNAT(false), leave())...)
	b.AddRule("into_net", rule(ip4(), exprs{network(src4, 1, regA), eq(127)}, masquerade(false))...)
	for _, f := range families {
		b.AddRule("into_net", rule(f.source(expr.MetaKeyOIFNAME), exprs{in(f.same)}, masquerade(false))...)
	}

	for _, f := range families {
		b.AddRule("box_out", rule(f.match(), f.sender(), exprs{in(f.own)}, gotoChain("port_kept"))...)
		b.AddRule("box_out", rule(f.match(), f.sender(), exprs{in(f.owns)}, gotoChain("port_kept"))...)
	}
	b.AddRule("box_out", rule(iifIn("random_ports"), gotoChain("port_random"))...)
	publishedNumbers(b, "box_out", gotoChain("port_moved"))
	b.AddRule("box_out", gotoChain("port_kept")...)

	for _, f := range families {
		f.published(b, "host_out", gotoChain("port_moved"), true)
	}
	for _, f := range families {
		b.AddRule("port_kept", rule(f.match(), f.translate(false))...)
		b.AddRule("port_random", rule(f.match(), f.translate(true))...)
	}
	for _, f := range families {
		b.AddRule("port_kept", rule(f.match(), iifIn(f.masq), masquerade(false))...)
		b.AddRule("port_random", rule(f.match(), iifIn(f.masq), masquerade(true))...)
	}
	movePorts(b)
	visitors(b)

	b.AddRule("shadows", rule(ctFlag(expr.CtKeySTATE, expr.CtStateBitNEW, true), ctFlag(expr.CtKeySTATUS, statusSNAT, true), gotoChain("hidden"))...)
	b.AddRule("hidden", rule(oifIn("ifs"), accept())...)
	b.AddRule("hidden", rule(iifIn("ifs"), gotoChain("shadow"))...)
	for _, f := range families {
		b.AddRule("hidden", rule(ctDNAT(true), f.farDestination(), exprs{inMap(f.far)}, gotoChain("shadow"))...)
	}
	for _, f := range families {
		b.AddRule("shadow", rule(f.original(), exprs{in(f.own)}, accept())...)
	}
	for _, f := range families {
		f.published(b, "shadow", drop(), false)
	}
}

// movePorts adds the rules of port_moved.
func movePorts(b *nft.Batch) {
	// The expr package has no flags for a masquerade with ports.
	masq := nl.AppendBE32(nil, unix.NFTA_MASQ_FLAGS, expr.NF_NAT_RANGE_PROTO_RANDOM_FULLY|expr.NF_NAT_RANGE_PROTO_SPECIFIED)
	masq = nl.AppendBE32(masq, unix.NFTA_MASQ_REG_PROTO_MIN, regFirst)
	masq = nl.AppendBE32(masq, unix.NFTA_MASQ_REG_PROTO_MAX, regLast)
	for _, f := range families {
		b.AddRule("port_moved", rule(f.match(), havePorts(b), exprs{meta(expr.MetaKeyIIFNAME, regA), lookup(f.snat)}, f.moved())...)
	}
	for _, f := range families {
		b.AddRule("port_moved", rule(f.match(), havePorts(b), iifIn(f.masq), movedPorts(), exprs{nft.Raw{Name: "masq", Data: masq}})...)
	}
	for _, f := range families {
		b.AddRule("port_moved", rule(f.match(), havePorts(b), fromHost(), exprs{f.saddr()}, f.moved())...)
	}
}

// visitors adds the rules of far_out and far_moved, for visitors of boxes of other hosts. A box there
// sees one address for them all and for the host itself: no visitor has the port of a service of the
// host, or one that is published, because it would get what the box sends there.
func visitors(b *nft.Batch) {
	const reserved = 1024 // below are the ports of services (ip_unprivileged_port_start)
	b.AddRule("far_out", rule(havePorts(b), exprs{
		sport(regA), &expr.Cmp{Op: expr.CmpOpLt, Register: regA, Data: []byte{reserved >> 8, reserved & 0xff}},
	}, gotoChain("far_moved"))...)
	publishedNumbers(b, "far_out", gotoChain("far_moved"))
	for _, f := range families {
		b.AddRule("far_out", rule(f.farDestination(), exprs{
			lookup(f.far), &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: regA},
		})...)
	}
	for _, f := range families {
		b.AddRule("far_moved", rule(havePorts(b), f.farDestination(), exprs{lookup(f.far)}, f.moved())...)
	}
}

// publishedNumbers adds rules that match a source port which is published on any address, and then do
// what do says. They are for packets whose address after translation is not known yet.
func publishedNumbers(b *nft.Batch, chain string, do exprs) {
	for _, f := range families {
		b.AddRule(chain, rule(f.match(), sourcePort(), exprs{inMap(f.any)}, do)...)
		b.AddRule(chain, rule(f.match(), sourcePort(), exprs{inMap(f.refs)}, do)...)
		b.AddRule(chain, rule(f.match(), f.sender(), exprs{inMap(f.rng)}, do)...) // any address is in one for all
	}
	b.AddRule(chain, rule(sourcePort(), exprs{in("spans")}, do)...)
}

// havePorts matches the protocols that have ports. nft accepts a range of ports only with it.
func havePorts(b *nft.Batch) exprs {
	protos, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeProto}},
		nft.Element{Key: []byte{byte(TCP)}}, nft.Element{Key: []byte{byte(UDP)}}, nft.Element{Key: []byte{byte(SCTP)}})
	return exprs{meta(expr.MetaKeyL4PROTO, regA), &expr.Lookup{SourceRegister: regA, SetName: protos, SetID: id}}
}

// Registers for the first and the last of the ports that flows are moved to. The keys of maps of
// addresses leave them free.
const regFirst, regLast = 3, 4

// movedPorts loads these ports.
func movedPorts() exprs {
	return exprs{
		&expr.Immediate{Register: regFirst, Data: []byte{movedFirst >> 8, movedFirst & 0xff}},
		&expr.Immediate{Register: regLast, Data: []byte{movedLast >> 8, movedLast & 0xff}},
	}
}

// moved translates the source to the address in the first register and one of the ports.
func (f *family46) moved() exprs {
	return rule(movedPorts(), exprs{f.snatTo(expr.NF_NAT_RANGE_PROTO_RANDOM_FULLY|expr.NF_NAT_RANGE_PROTO_SPECIFIED, regFirst, regLast)})
}

// refusing adds the rules of input that refuse visitors at the socket of a reserved port, by its
// mark. Prerouting and output leave those visitors untranslated. Without the rules they would wait,
// because the socket drops everything silently.
func refusing(b *nft.Batch, mark uint32) {
	const tcpReset, unreach, portUnreachable = 1, 0, 4 // NFT_REJECT_TCP_RST, NFT_REJECT_ICMP_UNREACH, ICMPV6_PORT_UNREACH
	// The expr package writes attributes that the kernel does not return.
	socketMark := nl.AppendBE32(nil, expr.NFTA_SOCKET_KEY, expr.NFT_SOCKET_MARK)
	socketMark = nl.AppendBE32(socketMark, expr.NFTA_SOCKET_DREG, regA)
	reset := nl.AppendBE32(nil, unix.NFTA_REJECT_TYPE, tcpReset)
	one := netip.IPv6Loopback().As16()
	reserved := exprs{nft.Raw{Name: "socket", Data: socketMark}, eq(host32(mark)...)}
	toLoopback := rule(ip6(), exprs{network(dst6, 16, regA), eq(one[:]...)})
	unreachable := exprs{&expr.Reject{Type: unreach, Code: portUnreachable}}
	b.AddRule("input", rule(toLoopback, reserved, l4(unix.IPPROTO_TCP), exprs{nft.Raw{Name: "reject", Data: reset}})...)
	b.AddRule("input", rule(toLoopback, reserved, unreachable)...)
	// The kernel has no route for a reset to a link-local address.
	b.AddRule("input", rule(ip6(), linkLocalSource(), reserved, unreachable)...)
}

// published adds rules that match a published address and port as the source, and then do what do
// says. With ranges, they match ports of ranges, too.
func (f *family46) published(b *nft.Batch, chain string, do exprs, ranges bool) {
	b.AddRule(chain, rule(f.match(), f.sender(), exprs{inMap(f.pub)}, do)...)
	b.AddRule(chain, rule(f.match(), sourcePort(), exprs{inMap(f.any)}, do)...)
	if ranges {
		b.AddRule(chain, rule(f.match(), f.sender(), exprs{inMap(f.rng)}, do)...)
	}
}

// translate translates the source to the address that the network has outside.
func (f *family46) translate(random bool) exprs {
	to := exprs{meta(expr.MetaKeyIIFNAME, regA), lookup(f.snat)}
	if random {
		return append(to, f.snatTo(expr.NF_NAT_RANGE_PROTO_RANDOM_FULLY, 0, 0))
	}
	return append(to, &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto), RegAddrMin: regA})
}

// snatTo translates the source to the address in the first register, and to ports between those in
// the other two. The kernel adds a flag for the address, which the expr package cannot encode.
func (f *family46) snatTo(flags, first, last uint32) expr.Any {
	const mapIPs = 1 // NF_NAT_RANGE_MAP_IPS
	data := nl.AppendBE32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
	data = nl.AppendBE32(data, unix.NFTA_NAT_FAMILY, uint32(f.nfproto))
	data = nl.AppendBE32(data, unix.NFTA_NAT_REG_ADDR_MIN, regA)
	if first != 0 {
		data = nl.AppendBE32(data, unix.NFTA_NAT_REG_PROTO_MIN, first)
		data = nl.AppendBE32(data, unix.NFTA_NAT_REG_PROTO_MAX, last)
	}
	return nft.Raw{Name: "nat", Data: nl.AppendBE32(data, unix.NFTA_NAT_FLAGS, flags|mapIPs)}
}

func masquerade(random bool) exprs { return exprs{&expr.Masq{FullyRandom: random}} }

// fromHost matches packets whose source is an address of the host.
func fromHost() exprs {
	return exprs{&expr.Fib{Register: regA, FlagSADDR: true, ResultADDRTYPE: true}, eq(host32(unix.RTN_LOCAL)...)}
}

func sport(reg uint32) expr.Any { return payload(expr.PayloadBaseTransportHeader, 0, 2, reg) }

// saddr loads the source address.
func (f *family46) saddr() expr.Any {
	if f.v6 {
		return network(src6, 16, regA)
	}
	return network(src4, 4, regA)
}

// receiver matches the family, and loads the destination address and the name of the ingress link.
func (f *family46) receiver() exprs {
	if f.v6 {
		return rule(f.match(), exprs{network(dst6, 16, regA), meta(expr.MetaKeyIIFNAME, regB)})
	}
	return rule(f.match(), exprs{network(dst4, 4, regA), meta(expr.MetaKeyIIFNAME, regAfter4)})
}

// sender loads address, protocol and port of the source.
func (f *family46) sender() exprs {
	if f.v6 {
		return exprs{f.saddr(), meta(expr.MetaKeyL4PROTO, regB), sport(regAfter20)}
	}
	return exprs{f.saddr(), meta(expr.MetaKeyL4PROTO, regAfter4), sport(regAfter8)}
}

// sourcePort loads protocol and port of the source.
func sourcePort() exprs { return exprs{meta(expr.MetaKeyL4PROTO, regA), sport(regAfter4)} }

// original is sender with the address before translation. It matches flows of the family only.
func (f *family46) original() exprs {
	const srcIP, srcIP6 = 19, 21 // NFT_CT_SRC_IP, NFT_CT_SRC_IP6: the expr package has no direction for them
	e := f.sender()
	key := uint32(srcIP)
	if f.v6 {
		key = srcIP6
	}
	data := nl.AppendBE32(nil, unix.NFTA_CT_KEY, key)
	data = nl.AppendBE32(data, unix.NFTA_CT_DREG, regA)
	data = nl.AppendAttr(data, unix.NFTA_CT_DIRECTION, []byte{0}) // original
	e[0] = nft.Raw{Name: "ct", Data: data}
	return e
}

// statusSNAT is IPS_SRC_NAT (linux/netfilter/nf_conntrack_common.h).
const statusSNAT = 1 << 4

// inMap matches keys of a map. Before Linux 6.3, a map can only be looked up for its data, and nft
// does not show a lookup whose data no expression uses.
func inMap(m string) expr.Any {
	if kernel.AtLeast(6, 3) {
		return in(m)
	}
	return lookup(m)
}
