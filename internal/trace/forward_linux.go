package trace

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nfttext"
	"github.com/boxwire/boxwire/internal/xtables"
	"golang.org/x/sys/unix"
)

// Forward is ports whose connections a rule leads elsewhere, by a translation of the
// destination before the routing.
type Forward struct {
	nft.Place
	Handle uint64 // of the rule

	V6    bool
	Proto uint8        // unix.IPPROTO_TCP, ...; 0 is any
	Addr  netip.Prefix // the destinations; of zero bits: all
	Local bool         // of Addr, the namespace's own addresses only

	// First and Last are the first and the last port: 0 and 65535 where the rule does not ask
	// for one.
	First, Last uint16

	// To is where the connections go. Its address is not valid where that is an address of the
	// namespace itself. Its port is that of the connections to First; 0 where the port stays.
	To netip.AddrPort

	// ToLast is the port of the connections to Last. It is To's port where those to all
	// ports go to one.
	ToLast uint16

	// If are the conditions that the other fields do not say, in nft's words, each rule's by
	// itself. That a packet does not come in by some link is left out.
	If []string

	// Certain is that every packet from outside to Addr and the ports is led there, if it
	// gets as far as the rule's table. It is false where there is an If, where To is one of
	// several, and where a rule before that is no Forward may decide otherwise.
	Certain bool
}

// Unclear is a rule that translates destinations and that was not understood.
type Unclear struct {
	nft.Place
	Handle uint64
	Text   string // in nft's words
}

// Forwards are the ports that the rules of a namespace lead elsewhere.
type Forwards struct {
	All     []Forward // in the order of the rules: the first that is about a packet holds
	Unclear []Unclear
}

// maxVisits bounds how many rules Forwards evaluates, each as often as chains lead to it, and
// how many elements of maps.
const maxVisits = 200_000

// maxLooks bounds how often Forwards looks at what a rule before has decided.
const maxLooks = 50_000_000

// Forwards follows the chains at the prerouting hook that translate destinations, and those
// that they lead to. What a rule before it decides for good hides a rule. Rules of
// iptables-legacy are not seen.
func (r *Ruleset) Forwards(ctx context.Context) (Forwards, error) {
	w := walk{ctx: ctx, rules: r}
	for _, h := range r.chains {
		if h.Type != "nat" || h.Hook != unix.NF_INET_PRE_ROUTING {
			continue
		}
		w.decided = exclusions{}
		if err := w.chain(h.Place, &space{family: familyOf(h.Family)}, 0); err != nil {
			return Forwards{}, err
		}
	}
	if w.tooMany() {
		w.out.Unclear = append(w.out.Unclear, Unclear{Text: "there are too many rules"})
	}
	return w.out, nil
}

// walk is a walk through the chains.
type walk struct {
	ctx     context.Context
	rules   *Ruleset
	decided exclusions // in the chain with the hook
	frames  []*exclusions
	visits  int
	looks   int
	out     Forwards
	unclear map[ruleID]bool
}

// tooMany reports whether the rules are more than are followed.
func (w *walk) tooMany() bool { return w.visits > maxVisits || w.looks > maxLooks }

type ruleID struct {
	nft.Place
	handle uint64
}

// chain follows the rules of a chain with the packets of a space.
func (w *walk) chain(place nft.Place, in *space, depth int) error {
	if depth > maxDepth {
		return nil
	}
	var left exclusions // what has left this chain
	w.frames = append(w.frames, &left)
	defer func() { w.frames = w.frames[:len(w.frames)-1] }()
	rules := w.rules.rules[place]
	for i := range rules {
		if w.visits++; w.tooMany() {
			return nil
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		b := branch{walk: w, rule: &rules[i], space: *in, then: func(b *branch, s statement) error {
			perhaps := len(b.space.only) > len(in.only) // not all that are in this chain
			switch s.kind {
			case stopAccept, stopDrop:
				w.decided.add(exclusion{space: b.space, perhaps: len(b.space.only) > 0})
			case stopReturn:
				left.add(exclusion{space: b.space, perhaps: perhaps})
			case stopJump, stopGoto:
				err := w.chain(nft.Place{Family: place.Family, Table: place.Table, Chain: s.chain}, &b.space, depth+1)
				if s.kind == stopGoto {
					left.add(exclusion{space: b.space, perhaps: perhaps})
				}
				return err
			}
			return nil
		}}
		if err := b.run(rules[i].Exprs); err != nil {
			return err
		}
	}
	return nil
}

// target is where a rule leads packets.
type target struct {
	first, last netip.Addr // not valid: an address of the namespace
	port        xtables.Range
	base        uint16 // the port that becomes the first of port; 0 is none
}

// found notes a rule that leads the packets of a space to a target.
func (w *walk) found(b *branch, to target) {
	s := &b.space
	for _, v6 := range []bool{false, true} {
		family := byte(unix.NFPROTO_IPV4)
		if v6 {
			family = unix.NFPROTO_IPV6
		}
		if s.family != 0 && s.family != family || to.first.IsValid() && to.first.Is6() != v6 {
			continue
		}
		one := *s
		one.family = family
		w.emit(b, &one, v6, to)
		w.decided.add(exclusion{space: one, perhaps: len(one.only) > 0, forward: true})
	}
}

// emit appends a Forward for each protocol, prefix and range of ports that is left.
func (w *walk) emit(b *branch, s *space, v6 bool, to target) {
	protos := s.protos
	if protos == nil {
		protos = []byte{0}
	}
	conditions := w.conditions(s)
	for i, proto := range protos {
		for _, addr := range s.prefixes(v6) {
			one := *s
			if s.protos != nil {
				one.protos = protos[i : i+1]
			}
			if s.addrs != nil {
				one.addrs = []addrRange{{addr.Addr(), lastOf(addr)}}
			}
			ports, doubt := w.left(&one)
			for _, r := range ports {
				if w.visits++; w.tooMany() {
					return
				}
				f := Forward{
					Place: b.rule.Place, Handle: b.rule.Handle, V6: v6, Proto: proto, Addr: addr, Local: s.local,
					First: r.First, Last: r.Last, If: conditions, Certain: !doubt && conditions == nil && to.first == to.last,
				}
				f.lead(to)
				w.out.All = append(w.out.All, f)
			}
		}
	}
}

// left are the ports of a space about which no rule before has decided.
func (w *walk) left(s *space) (ports []xtables.Range, doubt bool) {
	one := *s
	w.looks += w.decided.size()
	one.ports, doubt = w.decided.left(&one)
	for _, f := range w.frames {
		w.looks += f.size()
		if len(one.ports) == 0 {
			break
		}
		var part bool
		one.ports, part = f.left(&one)
		doubt = doubt || part
	}
	return one.ports, doubt
}

// lead sets where a forward goes.
func (f *Forward) lead(to target) {
	first, last := to.port.First, to.port.Last
	switch {
	case to.base != 0 && f.First >= to.base: // each port to its own
		first += f.First - to.base
		last = first + f.Last - f.First
	case first != last && first == f.First && last == f.Last: // the kernel keeps what is in the range
	case first != last:
		f.Certain = false
	}
	f.To, f.ToLast = netip.AddrPortFrom(to.first, first), last
}

// conditions are the rules' conditions that are not in the space.
func (w *walk) conditions(s *space) (all []string) {
	for _, rule := range s.only {
		if text := cmp.Or(ruleText(rule, false), ruleText(rule, true)); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// ruleText writes a rule, or only its conditions.
func ruleText(rule *nft.Rule, whole bool) string {
	var exprs []nft.Expr
	for _, e := range rule.Exprs {
		if !whole && slices.Contains([]string{"counter", "nat", "redir", "target", "log", "tproxy"}, e.Name) {
			continue
		}
		if !whole && e.Name == "immediate" && parse(parse(e.Data)[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT] != nil {
			continue
		}
		exprs = append(exprs, e)
	}
	w := nfttext.Writer{Family: rule.Family}
	return w.Rule(exprs, "")
}

// unread notes a rule that translates and is not understood, once.
func (w *walk) unread(rule *nft.Rule) {
	id := ruleID{rule.Place, rule.Handle}
	if w.unclear[id] {
		return
	}
	if w.unclear == nil {
		w.unclear = make(map[ruleID]bool)
	}
	w.unclear[id] = true
	w.out.Unclear = append(w.out.Unclear, Unclear{Place: rule.Place, Handle: rule.Handle, Text: ruleText(rule, true)})
}

// String writes the forward for a log: "tcp 0.0.0.0/0 8080 to 172.17.0.2:80".
func (f Forward) String() string {
	var b strings.Builder
	proto := map[uint8]string{0: "any", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[f.Proto]
	fmt.Fprintf(&b, "%s %v %v to ", cmp.Or(proto, fmt.Sprint(f.Proto)), f.Addr, xtables.Range{First: f.First, Last: f.Last})
	if f.To.Addr().IsValid() {
		b.WriteString(f.To.String())
	} else {
		fmt.Fprintf(&b, "itself:%d", f.To.Port())
	}
	if f.ToLast != f.To.Port() {
		fmt.Fprintf(&b, "-%d", f.ToLast)
	}
	if f.Local {
		b.WriteString(", local")
	}
	if !f.Certain {
		b.WriteString(", perhaps")
	}
	for _, s := range f.If {
		fmt.Fprintf(&b, ", if %s", s)
	}
	return b.String()
}
