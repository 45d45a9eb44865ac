package nat

import (
	"sync"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Guards have a table of their own, of the family bridge, and a part of the inet table. Both come with
// the first guard. A frame is judged before the bridge learns from it, and before br_netfilter sees
// it. What the rules do not name is dropped.
//
// To lift a frame is to give it the MAC address of the host's end of the guarded port. The bridge takes
// that as its own, and the host routes the packet. The bridge's own MAC address may change with each
// port that comes or goes.

// Sets of guards. All but setArrived are in the bridge table.
const (
	setGuards  = "guards"  // the records, in pieces
	setPorts   = "ports"   // the guarded ports
	setForgers = "forgers" // the same, with a counter of what was dropped
	setMACs    = "mac"     // port and MAC of the box
	setSource4 = "src4"    // port and address of the box
	setSource6 = "src6"
	setLift    = "lift"  // port: MAC of its own, where frames of the box are lifted to
	setBoxes   = "boxes" // MAC of the box: the same, for frames from other ports
	setNear    = "near"  // port and the same MAC, by which a lifted frame is known
	setArrived = "guarded"
)

// guardSets returns the sets of the bridge table.
func guardSets() []nft.Set {
	f := func(fields ...nft.Field) []nft.Field { return fields }
	return []nft.Set{
		{Name: setGuards, Key: f(typeIfname, typeMark)},
		{Name: setPorts, Key: f(typeIfname)},
		{Name: setForgers, Key: f(typeIfname), Counter: true},
		{Name: setMACs, Key: f(typeIfname, typeLLAddr)},
		{Name: setSource4, Key: f(typeIfname, typeAddr4)},
		{Name: setSource6, Key: f(typeIfname, typeAddr6)},
		{Name: setLift, Key: f(typeIfname), Data: f(typeLLAddr)},
		{Name: setBoxes, Key: f(typeLLAddr), Data: f(typeLLAddr)},
		{Name: setNear, Key: f(typeIfname, typeLLAddr)},
	}
}

// typeLLAddr is a hardware address, as nft numbers types.
var typeLLAddr = nft.Field{Type: 9, Len: 6, Order: 2}

// guardSetNames are the names of the sets that guards have elements in.
var guardSetNames = sync.OnceValue(func() []string {
	names := []string{setArrived}
	for _, s := range guardSets() {
		names = append(names, s.Name)
	}
	return names
})

// addGuardPart adds the part of the inet table that guards need: packets that arrive on a guarded
// port, and not on its bridge, are dropped. With br_netfilter, bridged packets have the bridge here.
func addGuardPart(b *nft.Batch) {
	const chain = "arrived"
	b.AddSet(nft.Set{Name: setArrived, Key: []nft.Field{typeIfname}})
	b.AddChain(nft.Chain{Name: chain, Type: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300})
	b.AddRule(chain, rule(iifIn(setArrived), drop())...)
}

// addGuardTable adds the bridge table, of which the batch's next messages are.
func addGuardTable(b *nft.Batch) {
	b.AddTable(skeletonComment)
	// The hooks of the bridge family have the numbers of the inet family (linux/netfilter_bridge.h).
	for _, c := range []nft.Chain{
		{Name: "from_port", Type: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300},
		{Name: "guarded"}, {Name: "is_arp"},
		{Name: "is_ip4"}, {Name: "own4"}, {Name: "group4"},
		{Name: "is_ip6"}, {Name: "is_icmp6"}, {Name: "own6"}, {Name: "group6"},
		{Name: "forged"},
		{Name: "bridged", Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: -200},
		{Name: "between"}, {Name: "translated"},
		{Name: "to_port", Type: "filter", Hook: unix.NF_INET_LOCAL_OUT, Priority: -200},
		{Name: "delivered"},
	} {
		b.AddChain(c)
	}
	for _, s := range guardSets() {
		b.AddSet(s)
	}
	guardFrames(b)
	guardIPv4(b)
	guardIPv6(b)
	guardBridged(b)
}

// guardFrames adds the rules of from_port, guarded, is_arp and forged.
func guardFrames(b *nft.Batch) {
	b.AddRule("from_port", rule(iifIn(setPorts), gotoChain("guarded"))...)
	// To a guarded box from a port without a guard. Frames of other types are lifted, too: the host
	// has no use for them.
	b.AddRule("from_port", rule(etherType(etherARP), accept())...)
	b.AddRule("from_port", rule(etherType(etherIPv6), icmp6(neighbours...).in(b), accept())...)
	b.AddRule("from_port", rule(exprs{etherHeader(0, 6, regA), lookup(setBoxes), setDestination()}, setForHost(), accept())...)

	b.AddRule("guarded", rule(unlessPortHas(setMACs, etherHeader(6, 6, regB)), gotoChain("forged"))...)
	// With a VLAN tag this is the type of the tag, and meta protocol the type behind it.
	b.AddRule("guarded", rule(etherType(etherARP), gotoChain("is_arp"))...)
	b.AddRule("guarded", rule(etherType(etherIPv4), gotoChain("is_ip4"))...)
	b.AddRule("guarded", rule(etherType(etherIPv6), gotoChain("is_ip6"))...)
	b.AddRule("guarded", gotoChain("forged")...)

	const request, reply = 1, 2
	b.AddRule("is_arp", rule(exprs{network(0, 6, regA), neq(0, 1, etherIPv4>>8, etherIPv4&0xff, 6, 4)}, gotoChain("forged"))...)
	b.AddRule("is_arp", rule(unlessPortHas(setMACs, network(8, 6, regB)), gotoChain("forged"))...)
	operation := network(6, 2, regA)
	// A probe has no sender's address (RFC 5227).
	b.AddRule("is_arp", rule(exprs{operation, eq(0, request), network(14, 4, regA), eq(0, 0, 0, 0)}, portHas(setSource4, network(24, 4, regB)), accept())...)
	for _, op := range []byte{request, reply} {
		b.AddRule("is_arp", rule(exprs{operation, eq(0, op)}, portHas(setSource4, network(14, 4, regB)), accept())...)
	}
	b.AddRule("is_arp", gotoChain("forged")...)

	b.AddRule("forged", iifIn(setForgers)...) // the lookup counts
	b.AddRule("forged", drop()...)
}

// guardIPv4 adds the rules of is_ip4, own4 and group4.
func guardIPv4(b *nft.Batch) {
	const server, client = 67, 68
	b.AddRule("is_ip4", rule(portHas(setSource4, network(src4, 4, regB)), gotoChain("own4"))...)
	b.AddRule("is_ip4", rule(
		exprs{network(src4, 4, regA), eq(0, 0, 0, 0), network(dst4, 4, regA), eq(255, 255, 255, 255)},
		l4(unix.IPPROTO_UDP), exprs{sport(regA), eq(0, client), dport(regA), eq(0, server)}, accept())...)
	b.AddRule("is_ip4", gotoChain("forged")...)

	b.AddRule("own4", rule(l4(unix.IPPROTO_UDP), exprs{dport(regA), eq(0, client)}, gotoChain("forged"))...)
	b.AddRule("own4", rule(toGroup(), gotoChain("group4"))...)
	lift(b, "own4")

	// Reports and leaves of groups (RFC 1112, 2236, 3376). Other types make a port that of a router.
	const igmp = 2
	kind := network(9, 1, regA)
	b.AddRule("group4", rule(exprs{kind, among(b, typeProto, unix.IPPROTO_ICMP, unix.IPPROTO_UDP)}, accept())...)
	b.AddRule("group4", rule(l4(igmp), exprs{payload(expr.PayloadBaseTransportHeader, 0, 1, regA), among(b, typeIGMP, 0x12, 0x16, 0x17, 0x22)}, accept())...)
	b.AddRule("group4", gotoChain("forged")...)
}

// Types of ICMPv6 (RFC 4861, 2710, 3810, 4286).
const (
	icmp6ListenerQuery     = 130
	icmp6ListenerReport    = 131
	icmp6ListenerDone      = 132
	icmp6RouterSolicit     = 133
	icmp6NeighbourSolicit  = 135
	icmp6NeighbourAdvert   = 136
	icmp6ListenerReport2   = 143
	icmp6MulticastRouterAd = 151
)

var neighbours = []byte{icmp6NeighbourSolicit, icmp6NeighbourAdvert}

// guardIPv6 adds the rules of is_ip6, is_icmp6, own6 and group6.
func guardIPv6(b *nft.Batch) {
	const client, hopByHop = 546, 0
	own := portHas(setSource6, network(src6, 16, regB))
	target := portHas(setSource6, payload(expr.PayloadBaseTransportHeader, 8, 16, regB))
	nowhere := exprs{network(src6, 16, regA), eq(make([]byte, 16)...)}
	reports := []byte{icmp6ListenerReport, icmp6ListenerDone, icmp6ListenerReport2}
	behindHeader := exprs{network(6, 1, regA), eq(hopByHop)}

	b.AddRule("is_ip6", rule(exprs{network(6, 1, regA), eq(unix.IPPROTO_ICMPV6)}, gotoChain("is_icmp6"))...)
	b.AddRule("is_ip6", rule(icmp6(append([]byte{icmp6RouterSolicit, icmp6RouterAdvert, icmp6Redirect, icmp6ListenerQuery, icmp6MulticastRouterAd}, neighbours...)...).any(b), gotoChain("forged"))...)
	b.AddRule("is_ip6", rule(own, gotoChain("own6"))...)
	b.AddRule("is_ip6", rule(behindHeader, nowhere, icmp6(reports...).any(b), accept())...)
	b.AddRule("is_ip6", gotoChain("forged")...)

	b.AddRule("is_icmp6", rule(icmp6(icmp6NeighbourSolicit).any(b), own, accept())...)
	b.AddRule("is_icmp6", rule(icmp6(icmp6NeighbourSolicit).any(b), nowhere, target, accept())...)
	b.AddRule("is_icmp6", rule(icmp6(icmp6NeighbourAdvert).any(b), own, target, accept())...)
	b.AddRule("is_icmp6", rule(icmp6(icmp6RouterSolicit).any(b), nowhere, accept())...)
	b.AddRule("is_icmp6", rule(icmp6(append([]byte{icmp6RouterAdvert, icmp6Redirect, icmp6ListenerQuery, icmp6MulticastRouterAd}, neighbours...)...).any(b), gotoChain("forged"))...)
	b.AddRule("is_icmp6", rule(own, gotoChain("own6"))...)
	b.AddRule("is_icmp6", gotoChain("forged")...)

	b.AddRule("own6", rule(l4(unix.IPPROTO_UDP), exprs{dport(regA), eq(client>>8, client&0xff)}, gotoChain("forged"))...)
	b.AddRule("own6", rule(toGroup(), gotoChain("group6"))...)
	lift(b, "own6")

	// br_netfilter puts fragments together after this chain, and the whole would pass unseen.
	b.AddRule("group6", rule(exprs{network(6, 1, regA), among(b, typeProto, unix.IPPROTO_ICMPV6, unix.IPPROTO_UDP)}, accept())...)
	b.AddRule("group6", rule(behindHeader, icmp6(reports...).any(b), accept())...)
	b.AddRule("group6", gotoChain("forged")...)
}

// guardBridged adds the rules of what the bridge forwards from a guarded port or to one, and of what
// the host sends to one.
func guardBridged(b *nft.Batch) {
	b.AddRule("bridged", rule(iifIn(setPorts), gotoChain("between"))...)
	b.AddRule("bridged", rule(oifIn(setPorts), gotoChain("between"))...)
	// A bridge with VLAN filtering tags its frames on the way, so that only meta protocol says the type.
	b.AddRule("between", rule(protocol(etherARP), accept())...)
	b.AddRule("between", rule(protocol(etherIPv6), icmp6(neighbours...).in(b), accept())...)
	// Frames that should have been lifted: the host's end has another MAC meanwhile.
	b.AddRule("between", rule(portHas(setNear, etherHeader(0, 6, regB)), drop())...)
	b.AddRule("between", rule(toGroup(), drop())...)
	b.AddRule("between", rule(protocol(etherIPv4), gotoChain("translated"))...)
	b.AddRule("between", rule(protocol(etherIPv6), gotoChain("translated"))...)
	b.AddRule("between", drop()...)
	// br_netfilter sends a packet that was translated to a published port of a sibling straight back.
	// The chain forward of the inet table judges it next.
	b.AddRule("translated", rule(exprs{meta(expr.MetaKeyOIFNAME, regA), &expr.Lookup{SourceRegister: regA, SetName: setPorts, Invert: true}}, accept())...)
	b.AddRule("translated", rule(outHas(setMACs, etherHeader(0, 6, regB)), accept())...)
	b.AddRule("translated", drop()...)

	b.AddRule("to_port", rule(oifIn(setPorts), gotoChain("delivered"))...)
	b.AddRule("delivered", rule(toGroup(), accept())...)
	b.AddRule("delivered", rule(protocol(etherIPv4), exprs{network(9, 1, regA), eq(unix.IPPROTO_ICMP)}, exprs{payload(expr.PayloadBaseTransportHeader, 0, 1, regA), eq(icmpRedirect)}, drop())...)
	b.AddRule("delivered", rule(protocol(etherIPv6), icmp6(icmp6Redirect).in(b), drop())...)
	b.AddRule("delivered", rule(outHas(setMACs, etherHeader(0, 6, regB)), accept())...)
	b.AddRule("delivered", drop()...) // another's: flooded, or sent where the box has pretended to be
}

// lift adds the rules that hand a unicast frame of a guarded port to the host.
func lift(b *nft.Batch, chain string) {
	b.AddRule(chain, rule(exprs{meta(expr.MetaKeyIIFNAME, regA), lookup(setLift), setDestination()}, setForHost(), accept())...)
	b.AddRule(chain, drop()...)
}

// Types of Ethernet frames (linux/if_ether.h).
const (
	etherIPv4 = unix.ETH_P_IP
	etherARP  = unix.ETH_P_ARP
	etherIPv6 = unix.ETH_P_IPV6
)

// etherHeader loads bytes of the Ethernet header.
func etherHeader(offset, n, reg uint32) expr.Any {
	return payload(expr.PayloadBaseLLHeader, offset, n, reg)
}

// etherType matches the type of the frame, which is that of the tag where it has one.
func etherType(t uint16) exprs { return exprs{etherHeader(12, 2, regA), eq(byte(t>>8), byte(t))} }

// protocol matches the type of what the frame holds.
func protocol(t uint16) exprs {
	return exprs{meta(expr.MetaKeyPROTOCOL, regA), eq(byte(t>>8), byte(t))}
}

// toGroup matches frames to a multicast or the broadcast address.
func toGroup() exprs { return exprs{etherHeader(0, 1, regA), masked([]byte{1}), eq(1)} }

// portHas matches if a set has the ingress port with what load puts into regB.
func portHas(set string, load expr.Any) exprs {
	return exprs{meta(expr.MetaKeyIIFNAME, regA), load, in(set)}
}

// outHas is portHas for the egress port.
func outHas(set string, load expr.Any) exprs {
	return exprs{meta(expr.MetaKeyOIFNAME, regA), load, in(set)}
}

func unlessPortHas(set string, load expr.Any) exprs {
	return exprs{meta(expr.MetaKeyIIFNAME, regA), load, &expr.Lookup{SourceRegister: regA, SetName: set, Invert: true}}
}

// among matches one of some values of one byte.
func among(b *nft.Batch, typ nft.Field, values ...byte) expr.Any {
	var elems []nft.Element
	for _, v := range values {
		elems = append(elems, nft.Element{Key: []byte{v}})
	}
	set, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typ}}, elems...)
	return &expr.Lookup{SourceRegister: regA, SetName: set, SetID: id}
}

// typeIGMP is a type of IGMP, as nft numbers types.
var typeIGMP = nft.Field{Type: 42, Len: 1, Order: 2}

// icmp6Types are types of ICMPv6.
type icmp6Types []byte

func icmp6(types ...byte) icmp6Types { return types }

// any matches them behind any extension headers.
func (t icmp6Types) any(b *nft.Batch) exprs {
	e := append(l4(unix.IPPROTO_ICMPV6), payload(expr.PayloadBaseTransportHeader, 0, 1, regA))
	if len(t) == 1 {
		return append(e, eq(t[0]))
	}
	return append(e, among(b, typeICMP6, t...))
}

// in matches them without extension headers.
func (t icmp6Types) in(b *nft.Batch) exprs {
	return append(exprs{network(6, 1, regA), eq(unix.IPPROTO_ICMPV6)}, t.any(b)...)
}

// setDestination writes the MAC in regA into the frame.
func setDestination() expr.Any {
	return &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: regA, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 6}
}

// setForHost makes the packet one for the host (PACKET_HOST). The kernel has decided that by the MAC
// before.
func setForHost() exprs {
	const packetHost = 0
	return exprs{&expr.Immediate{Register: regA, Data: []byte{packetHost}}, &expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: regA}}
}
