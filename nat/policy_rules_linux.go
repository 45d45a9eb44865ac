package nat

import (
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The rules of policies are a part of the table that comes with the first policy. The chains
// new_flow and input lead new connections of networks with policies there. A verdict of return is
// back in new_flow or input, whose other rules then decide: policies only take away.

// deniedGroup is the group of NFLOG that denied packets are sent to.
const deniedGroup = 45100

// addPolicies adds the part of the table that policies need. table is its name.
func addPolicies(b *nft.Batch, table string) {
	for _, name := range []string{
		"egress4", "egress6", "egress_open", "ingress4", "ingress6", "to_host", "to_host4", "to_host6", "deny_out", "deny_in",
	} {
		b.AddChain(nft.Chain{Name: name})
	}
	for _, f := range families {
		for _, s := range f.sets() {
			b.AddSet(s)
		}
	}
	judgeAgain(b)
	four, six := families[0], families[1]
	for _, f := range families {
		b.AddRule("egress", rule(f.match(), gotoChain(f.out.chain))...)
		b.AddRule("ingress", rule(f.match(), gotoChain(f.policySets.in.chain))...)
	}
	b.AddRule("egress_open", rule(iifIn("strict"), gotoChain("deny_out"))...)
	// With br_netfilter, neighbour discovery between boxes of one bridge passes forward.
	inside := exprs{meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB), in("within")}
	for _, d := range six.directions() {
		discovery(b, d.chain, inside)
	}
	// A link-local address does not say which box has sent.
	b.AddRule("egress6", rule(linkLocalSource(), gotoChain("deny_out"))...)
	for _, f := range families {
		f.egress(b, f.out.chain)
		f.ingress(b, f.policySets.in.chain)
	}

	bridgeGroups(b)
	b.AddRule("to_host", rule(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), leave())...)
	b.AddRule("to_host", rule(ip6(), gotoChain("to_host6"))...)
	b.AddRule("to_host", gotoChain("to_host4")...)
	const dhcp4, dhcp6 = 67, 547
	b.AddRule("to_host4", rule(l4(unix.IPPROTO_UDP), exprs{dport(regA), eq(0, dhcp4)}, leave())...)
	discovery(b, "to_host6", nil)
	b.AddRule("to_host6", rule(l4(unix.IPPROTO_UDP), exprs{dport(regA), eq(dhcp6>>8, dhcp6&0xff)}, leave())...)
	b.AddRule("to_host6", rule(linkLocalSource(), gotoChain("deny_out"))...)
	// These addresses do not say which box has sent, either.
	b.AddRule("to_host4", rule(ip4(), exprs{network(src4, 4, regA), eq(0, 0, 0, 0)}, gotoChain("deny_out"))...)
	b.AddRule("to_host6", rule(ip6(), exprs{network(src6, 16, regA), eq(make([]byte, 16)...)}, gotoChain("deny_out"))...)
	four.services(b, "to_host4")
	six.services(b, "to_host6")

	for _, f := range families {
		for _, d := range f.directions() {
			f.account(b, d)
		}
	}
	for _, d := range four.directions() {
		b.AddRule(d.deny, report(table, d.in)...)
	}
	for _, f := range families {
		for _, d := range f.directions() {
			f.reject(b, d)
		}
	}
	for _, d := range four.directions() {
		b.AddRule(d.deny, drop()...)
	}
}

// judgeAgain adds the rules by which each new flow is judged twice, once behind the other. The lookups of
// a packet follow each other: while a transaction is committed, the first ones may find the elements of
// before, and the later ones those of after, and together allow what neither state allows. A commit
// falls into one of two judgements at most; the other one finds the elements of one state alone.
// This holds for sets without intervals, as policies have them; see closing for the others.
func judgeAgain(b *nft.Batch) {
	b.AddChain(nft.Chain{Name: "forward_again", Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: 1})
	b.AddChain(nft.Chain{Name: "input_again", Type: "filter", Hook: unix.NF_INET_LOCAL_IN, Priority: 1})
	b.AddRule("forward_again", rule(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())...)
	b.AddRule("forward_again", gotoChain("new_flow")...)
	for _, chain := range []string{"input", "input_again"} {
		b.AddRule(chain, rule(iifIn("strict"), jumpChain("to_host"))...)
		b.AddRule(chain, rule(iifIn("policed"), jumpChain("to_host"))...)
	}
}

// bridgeGroups adds a rule that drops IP in frames to the groups of bridges (IEEE 802.1D, table 7-10). A
// port of a bridge hands such frames to the host itself, past the prerouting hook of the bridge, and
// the packets arrive from the port, which is no network's interface.
func bridgeGroups(b *nft.Batch) {
	const packetMulticast = 2 // linux/if_packet.h
	b.AddRule("input", rule(exprs{meta(expr.MetaKeyPKTTYPE, regA), eq(packetMulticast)}, exprs{
		payload(expr.PayloadBaseLLHeader, 0, 6, regA), masked([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}), eq(0x01, 0x80, 0xc2, 0, 0, 0),
	}, drop())...)
}

// discovery adds a rule that lets the ICMPv6 pass that an interface needs, if where matches.
func discovery(b *nft.Batch, chain string, where exprs) {
	const routerSolicit, listenerDone = 133, 132
	var types []nft.Element
	for _, t := range append([]byte{routerSolicit, listenerDone}, discoveryTypes...) {
		types = append(types, nft.Element{Key: []byte{t}})
	}
	set, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeICMP6}}, types...)
	b.AddRule(chain, rule(where, l4(unix.IPPROTO_ICMPV6), exprs{
		payload(expr.PayloadBaseTransportHeader, 0, 1, regA), &expr.Lookup{SourceRegister: regA, SetName: set, SetID: id},
	}, leave())...)
}

// egress adds the rules of a family's chain of what boxes reach.
func (f *family46) egress(b *nft.Batch, chain string) {
	b.AddRule(chain, rule(f.unlessIn(&f.out), gotoChain("egress_open"))...)
	f.lookups(b, chain, &f.out)
	for _, c := range []class{onePort, eachPort, eachProto} {
		b.AddRule(chain, rule(f.key(&f.out, c, f.bits()), exprs{in(f.grant)}, leave())...)
	}
	b.AddRule(chain, gotoChain(f.out.deny)...)
}

// ingress adds the rules of a family's chain of who reaches boxes.
func (f *family46) ingress(b *nft.Batch, chain string) {
	b.AddRule(chain, rule(f.unlessIn(&f.policySets.in), leave())...)
	f.lookups(b, chain, &f.policySets.in)
	b.AddRule(chain, gotoChain(f.policySets.in.deny)...)
}

// services adds the rules of a family's chain of what boxes reach on the host.
func (f *family46) services(b *nft.Batch, chain string) {
	b.AddRule(chain, rule(f.unlessIn(&f.out), gotoChain("egress_open"))...)
	for c := range classes {
		key := f.portKey(&f.out, c)
		key = append(key, constant(f.after(2), portKey{class: c}.form(0))...)
		b.AddRule(chain, rule(key, exprs{in(f.hostRules)}, leave())...)
	}
	b.AddRule(chain, gotoChain(f.out.deny)...)
}

// lookups adds the rules that look a new connection up. An element of an allowed prefix returns.
// One of an exception continues its rule, which denies. The verdicts of elements lead to no chain,
// because the kernel checks all elements that do at each change of a rule (nft_table_validate).
func (f *family46) lookups(b *nft.Batch, chain string, d *policyDirection) {
	for c := range classes {
		for _, bits := range lengths(f.v6) {
			look := &expr.Lookup{SourceRegister: regA, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: d.rules}
			b.AddRule(chain, rule(f.key(d, c, bits), exprs{look}, gotoChain(d.deny))...)
		}
	}
}

// bits is the length of an address in bits, size in bytes.
func (f *family46) bits() int { return int(f.size()) * 8 }

func (f *family46) size() uint32 {
	if f.v6 {
		return 16
	}
	return 4
}

// after returns the register so many words of 4 bytes behind an address in the first one, with the
// number that the kernel returns: registers of 16 bytes have numbers of their own.
func (f *family46) after(words uint32) uint32 {
	words += f.size() / 4
	if words%4 == 0 {
		return regA + words/4
	}
	return unix.NFT_REG32_00 + words
}

// ends are the offsets of the box's and the peer's address in the IP header.
func (f *family46) ends(d *policyDirection) (box, peer uint32) {
	src, dst := uint32(src4), uint32(dst4)
	if f.v6 {
		src, dst = src6, dst6
	}
	if d.in {
		return dst, src
	}
	return src, dst
}

// boxIn matches a box that is in a set.
func (f *family46) boxIn(d *policyDirection, set string) exprs {
	box, _ := f.ends(d)
	return append(f.match(), network(box, f.size(), regA), in(set))
}

// unlessIn matches a box whose direction no policy limits.
func (f *family46) unlessIn(d *policyDirection) exprs {
	box, _ := f.ends(d)
	return append(f.match(), network(box, f.size(), regA), &expr.Lookup{SourceRegister: regA, SetName: d.limited, Invert: true})
}

// portKey loads what hostKey makes, but for its last field.
func (f *family46) portKey(d *policyDirection, c class) exprs {
	box, _ := f.ends(d)
	proto, port := f.after(0), f.after(1)
	key := append(f.match(), network(box, f.size(), regA), meta(expr.MetaKeyL4PROTO, proto))
	if c == eachProto {
		key = append(key, and(proto, 0))
	}
	key = append(key, dport(port))
	switch c {
	case onePort:
	case block64:
		key = append(key, and(port, 0xff, 0xc0))
	default:
		key = append(key, and(port, 0, 0))
	}
	return key
}

// and keeps the bits of a register that the mask has.
func and(reg uint32, mask ...byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// constant loads a number of 4 bytes. It does so by the packet's mark, because nft has no way to
// write a constant in a key, and could not read back what it lists.
func constant(reg, n uint32) exprs {
	return exprs{meta(expr.MetaKeyMARK, reg), &expr.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: 4, Mask: make([]byte, 4), Xor: host32(n),
	}}
}

// key loads what ruleKey makes.
func (f *family46) key(d *policyDirection, c class, bits int) exprs {
	key := f.portKey(d, c)
	_, at := f.ends(d)
	peer, form := f.after(2), f.after(2+f.size()/4)
	key = append(key, network(at, f.size(), peer))
	if bits < f.bits() {
		mask := make([]byte, f.size())
		for i := range bits {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		key = append(key, and(peer, mask...))
	}
	return append(key, constant(form, portKey{class: c}.form(bits))...)
}

// account adds the rules that count a denied packet for its box, and record it.
func (f *family46) account(b *nft.Batch, d *policyDirection) {
	b.AddRule(d.deny, f.boxIn(d, d.denied)...) // the lookup counts
	src, dst := uint32(src4), uint32(dst4)
	if f.v6 {
		src, dst = src6, dst6
	}
	proto, port := f.after(f.size()/4), f.after(f.size()/4+1)
	for _, ported := range []bool{true, false} {
		var protos []nft.Element
		for _, p := range []Proto{TCP, UDP, SCTP} {
			protos = append(protos, nft.Element{Key: []byte{byte(p)}})
		}
		set, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeProto}}, protos...)
		which := exprs{meta(expr.MetaKeyL4PROTO, regA), &expr.Lookup{SourceRegister: regA, SetName: set, SetID: id, Invert: !ported}}
		key := exprs{network(src, f.size(), regA), network(dst, f.size(), f.after(0)), meta(expr.MetaKeyL4PROTO, proto), dport(port)}
		if !ported {
			key = append(key, and(port, 0, 0))
		}
		b.AddRule(d.deny, rule(f.match(), which, key, exprs{updateSet(d.tried)})...)
	}
}

// updateSet adds the key to a set, or counts it there. The expr package writes attributes that the
// kernel does not return.
func updateSet(set string) expr.Any {
	data := nl.AppendString(nil, unix.NFTA_DYNSET_SET_NAME, set)
	data = nl.AppendBE32(data, unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
	data = nl.AppendBE32(data, unix.NFTA_DYNSET_SREG_KEY, regA)
	data, at := nl.Begin(data, unix.NFTA_DYNSET_EXPR)
	data = nl.AppendString(data, unix.NFTA_EXPR_NAME, "counter")
	nl.End(data, at)
	return nft.Raw{Name: "dynset", Data: data}
}

// report sends a denied packet to those who watch, at a limited rate.
func report(table string, ingress bool) exprs {
	const perSecond, header = 200, 128
	prefix := table + " out"
	if ingress {
		prefix = table + " in"
	}
	data := nl.AppendString(nil, unix.NFTA_LOG_PREFIX, prefix)
	data = nl.AppendBE16(data, unix.NFTA_LOG_GROUP, deniedGroup)
	data = nl.AppendBE32(data, unix.NFTA_LOG_SNAPLEN, header)
	return exprs{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: perSecond, Unit: expr.LimitTimeSecond, Burst: perSecond},
		nft.Raw{Name: "log", Data: data},
	}
}

// reject adds the rules that answer what a policy with Refuse denies.
func (f *family46) reject(b *nft.Batch, d *policyDirection) {
	const tcpReset, icmpx, prohibited = 1, 2, 3 // NFT_REJECT_TCP_RST, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
	reset := nl.AppendBE32(nil, unix.NFTA_REJECT_TYPE, tcpReset)
	b.AddRule(d.deny, rule(f.boxIn(d, f.refuse), l4(unix.IPPROTO_TCP), exprs{nft.Raw{Name: "reject", Data: reset}})...)
	b.AddRule(d.deny, rule(f.boxIn(d, f.refuse), exprs{&expr.Reject{Type: icmpx, Code: prohibited}})...)
}
