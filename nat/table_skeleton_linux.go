package nat

import (
	"encoding/binary"
	"fmt"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The table's comment says that the table is ours, and the version of its skeleton. The version
// changes with every change of a set, chain or rule.
const (
	commentPrefix   = "boxwire skeleton"
	skeletonVersion = 13
)

var skeletonComment = fmt.Sprint(commentPrefix, " ", skeletonVersion)

// Types of keys and data, with nft's numbers for them.
var (
	typeAddr4  = nft.Field{Type: 7, Len: 4, Order: 2}
	typeAddr6  = nft.Field{Type: 8, Len: 16, Order: 2}
	typeEther  = nft.Field{Type: 10, Len: 2, Order: 2}
	typeProto  = nft.Field{Type: 12, Len: 1, Order: 2}
	typePort   = nft.Field{Type: 13, Len: 2, Order: 2}
	typeMark   = nft.Field{Type: 19, Len: 4, Order: 1}
	typeICMP6  = nft.Field{Type: 29, Len: 1, Order: 2}
	typeFib    = nft.Field{Type: 38, Len: 4, Order: 1}
	typeMSS    = nft.Field{Type: 4, Len: 2, Order: 2} // an integer: see typeofMSS
	typeIfname = nft.Field{Type: 41, Len: unix.IFNAMSIZ, Order: 1}
)

// typeofMSS has nft list mss_size as "typeof iifname : tcp option maxseg size", in
// libnftnl's numbers (NFTNL_UDATA_SET_KEY_TYPEOF and _DATA_TYPEOF) and nft's own.
var typeofMSS = []byte{
	3, 14, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 6, 0, 0, 0, // the key is a meta expression (9), iifname (6)
	// The data is one of an extension header (8): description 2, operation 1, type 2.
	4, 26, 0, 4, 8, 0, 0, 0, 1, 18, 1, 4, 2, 0, 0, 0, 2, 4, 1, 0, 0, 0, 0, 4, 2, 0, 0, 0,
	6, 4, 0, 0, 0, 0, // and no interval
}

// skeletonSets returns the sets and maps that hold the state.
func skeletonSets() []nft.Set {
	f := func(fields ...nft.Field) []nft.Field { return fields }
	return []nft.Set{
		{Name: "pub4", Key: f(typeAddr4, typeProto, typePort), Data: f(typeAddr4, typePort), Counter: true},
		{Name: "pub6", Key: f(typeAddr6, typeProto, typePort), Data: f(typeAddr6, typePort), Counter: true},
		{Name: "any4", Key: f(typeProto, typePort), Data: f(typeAddr4, typePort), Counter: true},
		{Name: "any6", Key: f(typeProto, typePort), Data: f(typeAddr6, typePort), Counter: true},
		{Name: "rng4", Key: f(typeAddr4, typeProto, typePort), Data: f(typeAddr4), Interval: true, Counter: true},
		{Name: "rng6", Key: f(typeAddr6, typeProto, typePort), Data: f(typeAddr6), Interval: true, Counter: true},
		{Name: "uses4", Key: f(typeProto, typePort), Data: f(typeMark)},
		{Name: "uses6", Key: f(typeProto, typePort), Data: f(typeMark)},
		{Name: "own4", Key: f(typeAddr4, typeProto, typePort)},
		{Name: "own6", Key: f(typeAddr6, typeProto, typePort)},
		{Name: "owns4", Key: f(typeAddr4, typeProto, typePort), Interval: true},
		{Name: "owns6", Key: f(typeAddr6, typeProto, typePort), Interval: true},
		{Name: "spans", Key: f(typeProto, typePort), Interval: true},
		{Name: "route4", Key: f(typeAddr4, typeProto, typePort), Interval: true},
		{Name: "route6", Key: f(typeAddr6, typeProto, typePort), Interval: true},
		{Name: "echo4", Key: f(typeAddr4)},
		{Name: "echo6", Key: f(typeAddr6)},
		{Name: "ifs", Key: f(typeIfname)},
		{Name: "pair", Key: f(typeIfname, typeIfname), Verdicts: true},
		{Name: "closed", Key: f(typeIfname), Counter: true},
		{Name: "internal", Key: f(typeIfname), Counter: true},
		{Name: "isolated", Key: f(typeIfname), Counter: true},
		{Name: "foreign", Key: f(typeIfname), Counter: true},
		{Name: "translated4", Key: f(typeIfname), Counter: true},
		{Name: "translated6", Key: f(typeIfname), Counter: true},
		{Name: "masq4", Key: f(typeIfname)},
		{Name: "masq6", Key: f(typeIfname)},
		{Name: "snat4", Key: f(typeIfname), Data: f(typeAddr4)},
		{Name: "snat6", Key: f(typeIfname), Data: f(typeAddr6)},
		{Name: "random_ports", Key: f(typeIfname)},
		{Name: "same4", Key: f(typeAddr4, typeIfname), Interval: true},
		{Name: "same6", Key: f(typeAddr6, typeIfname), Interval: true},
		{Name: "wide4", Key: f(typeAddr4, typeIfname)},
		{Name: "near4", Key: f(typeAddr4, typeIfname)},
		{Name: "near6", Key: f(typeAddr6, typeIfname)},
		{Name: "cover4", Key: f(typeAddr4)},
		{Name: "cover6", Key: f(typeAddr6)},
		{Name: "nets4", Key: f(typeAddr4, typeEther), Interval: true},
		{Name: "nets6", Key: f(typeAddr6, typeEther), Interval: true},
		{Name: "behind4", Key: f(typeAddr4, typeIfname), Interval: true},
		{Name: "behind6", Key: f(typeAddr6, typeIfname), Interval: true},
		{Name: "mss", Key: f(typeIfname)},
		{Name: "mss_size", Key: f(typeIfname), Data: f(typeMSS), Typeof: typeofMSS},
		{Name: setPortGroup, Key: f(typeIfname), Data: f(typeGroup)},
		{Name: setFlowtable, Key: f(typeIfname)},
		{Name: "lo_ok", Key: f(typeIfname)},
		{Name: "localnet", Key: f(typeIfname)},
		{Name: "listed", Key: f(typeProto, typePort), Interval: true},
		{Name: "flipped4", Key: f(typeIfname)},
		{Name: "flipped6", Key: f(typeIfname)},
		{Name: "bridged", Key: f(typeIfname, typeIfname)},
		{Name: "trusted4", Key: f(typeAddr4, typeIfname), Interval: true},
		{Name: "trusted6", Key: f(typeAddr6, typeIfname), Interval: true},
		{Name: "far4", Key: f(typeAddr4, typeEther), Data: f(typeAddr4), Interval: true},
		{Name: "far6", Key: f(typeAddr6, typeEther), Data: f(typeAddr6), Interval: true},
		{Name: "strict", Key: f(typeIfname)},
		{Name: "policed", Key: f(typeIfname)},
		{Name: "policed_addrs", Key: f(typeIfname), Data: f(typeMark)},
		// The last: see sources.
		{Name: "within", Key: f(typeIfname, typeIfname), Interval: true},
	}
}

// skeletonChains returns the chains, in the order of testdata/skeleton.nft.
func skeletonChains() []nft.Chain {
	return []nft.Chain{
		{Name: "guard", Type: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300},
		{Name: "near"},
		{Name: "sources"},
		{Name: "strangers"},
		{Name: "claimed"},
		{Name: "prerouting", Type: "nat", Hook: unix.NF_INET_PRE_ROUTING, Priority: -100},
		{Name: "output", Type: "nat", Hook: unix.NF_INET_LOCAL_OUT, Priority: -100},
		{Name: "publish"},
		{Name: "input", Type: "filter", Hook: unix.NF_INET_LOCAL_IN, Priority: 0},
		{Name: "resets", Type: "filter", Hook: unix.NF_INET_LOCAL_OUT, Priority: 0},
		{Name: "forward", Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: 0},
		{Name: "connects"},
		{Name: "new_flow"},
		{Name: "errors"},
		{Name: "untracked"},
		{Name: "strayed"},
		{Name: "from_box"},
		{Name: "stateless"},
		{Name: "to_box"},
		{Name: "egress"},
		{Name: "ingress"},
		{Name: "icc_off"},
		{Name: "postrouting", Type: "nat", Hook: unix.NF_INET_POST_ROUTING, Priority: 100},
		{Name: "into_net"},
		{Name: "box_out"},
		{Name: "host_out"},
		{Name: "port_kept"},
		{Name: "port_moved"},
		{Name: "port_random"},
		{Name: "far_out"},
		{Name: "far_moved"},
		{Name: "shadows", Type: "filter", Hook: unix.NF_INET_POST_ROUTING, Priority: 101},
		{Name: "hidden"},
		{Name: "shadow"},
	}
}

// skeleton returns the transaction that installs testdata/skeleton.nft: the table, its chains, its
// empty sets and its rules, with the parts for policies and guards or without. They never change later,
// except that a part is added; all state is elements.
func skeleton(table string, policies, guards bool) *nft.Batch {
	b := nft.NewBatch(table)
	addSkeleton(b, table)
	if policies {
		addPolicies(b, table)
	}
	if guards {
		addGuardPart(b)
	}
	return b
}

func addSkeleton(b *nft.Batch, table string) {
	b.AddTable(skeletonComment)
	for _, c := range skeletonChains() {
		b.AddChain(c)
	}
	for _, s := range skeletonSets() {
		b.AddSet(s)
	}
	guard(b)
	incoming(b)
	hosting(b)
	untracked(b)
	forwardRules(b)
	outgoing(b)
	refusing(b, portlock.MarkOf(table))
}

// Registers: 1 to 4 have 16 bytes; from 8 on, the same space in steps of 4
// (enum nft_registers). A concatenated key begins in register 1.
const (
	regA       = 1
	regB       = 2  // 16 bytes after regA
	regAfter4  = 9  // 4 bytes after regA
	regAfter8  = 10 // 8 bytes after regA
	regAfter20 = 13 // 20 bytes after regA
)

type exprs = []expr.Any

// rule joins matches and statements.
func rule(parts ...exprs) (all exprs) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func meta(key expr.MetaKey, reg uint32) expr.Any { return &expr.Meta{Key: key, Register: reg} }

func eq(data ...byte) expr.Any  { return &expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: data} }
func neq(data ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: regA, Data: data} }

func host32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func payload(base expr.PayloadBase, offset, n, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: n}
}

func network(offset, n, reg uint32) expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, offset, n, reg)
}

func dport(reg uint32) expr.Any { return payload(expr.PayloadBaseTransportHeader, 2, 2, reg) }

// Matches.

func family(nfproto byte) exprs { return exprs{meta(expr.MetaKeyNFPROTO, regA), eq(nfproto)} }
func ip4() exprs                { return family(unix.NFPROTO_IPV4) }
func ip6() exprs                { return family(unix.NFPROTO_IPV6) }
func l4(proto byte) exprs       { return exprs{meta(expr.MetaKeyL4PROTO, regA), eq(proto)} }

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: regA, SetName: set} }

func iifIn(set string) exprs { return exprs{meta(expr.MetaKeyIIFNAME, regA), in(set)} }
func oifIn(set string) exprs { return exprs{meta(expr.MetaKeyOIFNAME, regA), in(set)} }

func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: regA, DestRegister: regA, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// ctFlag matches a bit of the connection's state or status that is set (want) or not.
func ctFlag(key expr.CtKey, bit uint32, want bool) exprs {
	op := eq(host32(0)...)
	if want {
		op = neq(host32(0)...)
	}
	return exprs{&expr.Ct{Key: key, Register: regA}, masked(host32(bit)), op}
}

// stateUntracked is the bit of what conntrack leaves alone (NF_CT_STATE_UNTRACKED_BIT
// of linux/netfilter/nf_conntrack_common.h).
const stateUntracked = 1 << 6

// ctState matches connections in any of the states.
func ctState(bits uint32) exprs { return ctFlag(expr.CtKeySTATE, bits, true) }

// ctOriginal matches the packets of the flow's original direction (IP_CT_DIR_ORIGINAL).
func ctOriginal() exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: regA}, eq(0)}
}

// statusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
func ctDNAT(want bool) exprs {
	const statusDNAT = 1 << 5
	return ctFlag(expr.CtKeySTATUS, statusDNAT, want)
}

// Statements.

func verdict(kind expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: kind}} }
func accept() exprs                       { return verdict(expr.VerdictAccept) }
func leave() exprs                        { return verdict(expr.VerdictReturn) }

func drop() exprs { return exprs{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }

func notrack() exprs { return exprs{&expr.Notrack{}} }

func jumpChain(name string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: name}}
}

func gotoChain(name string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: name}}
}
