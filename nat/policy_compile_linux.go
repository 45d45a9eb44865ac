package nat

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// A policy becomes elements of hash tables. The rules of the table look a new connection up by box,
// protocol, port and peer, in the classes of ports from the narrowest to the widest, and in each
// with the peer masked to a fixed list of lengths from the longest to the shortest. The first
// element that is found decides.

// class is how an element names the ports that it is for.
type class uint8

const (
	onePort   class = iota // a protocol and port
	block64                // a protocol, and 64 ports from a multiple of 64 on
	eachPort               // a protocol
	eachProto              // everything
	classes
)

// portKey is what elements of one class are looked up by, beside addresses.
type portKey struct {
	class class
	proto uint8
	port  uint16 // as it is loaded: the port, or the block's first one; otherwise 0
}

// ports are the first and the last port of a key.
func (k portKey) ports() (first, last uint16) {
	switch k.class {
	case onePort:
		return k.port, k.port
	case block64:
		return k.port, k.port + 63
	}
	return 0, 1<<16 - 1
}

// keys returns the keys that together are the protocol and ports of a rule, for a family.
func (r Rule) keys(v6 bool) iter.Seq[portKey] {
	return func(yield func(portKey) bool) {
		proto := r.protoOf(v6)
		switch {
		case r.Proto == 0:
			yield(portKey{class: eachProto})
			return
		case r.Port <= 1 && (r.Port == 0 || r.last() == 1<<16-1):
			yield(portKey{class: eachPort, proto: proto})
			return
		}
		for port := uint32(r.Port); port <= uint32(r.last()); {
			k, next := portKey{onePort, proto, uint16(port)}, port+1
			if port%64 == 0 && port+63 <= uint32(r.last()) {
				k.class, next = block64, port+64
			}
			if !yield(k) {
				return
			}
			port = next
		}
	}
}

// covers reports whether the rule is about all that a key is, but for addresses.
func (r Rule) covers(k portKey, v6 bool) bool {
	if !r.of(v6) || r.Proto != 0 && (k.class == eachProto || r.protoOf(v6) != k.proto) {
		return false
	}
	if r.Port == 0 {
		return true
	}
	if k.class == eachPort {
		return r.Port == 1 && r.PortLast == 1<<16-1
	}
	first, last := k.ports()
	return k.class != eachProto && r.Port <= first && last <= r.last()
}

// lengths4 and lengths6 are the lengths of prefixes that peers are looked up with.
var lengths4, lengths6 = func() (four, six []int) {
	for bits := 32; bits >= 8; bits -= 4 {
		four = append(four, bits)
	}
	for bits := 128; bits >= 0; bits -= 8 {
		six = append(six, bits)
	}
	return append(four, 0), six
}()

// lengths returns the lengths of a family, the longest first.
func lengths(v6 bool) []int {
	if v6 {
		return lengths6
	}
	return lengths4
}

// pieces returns the prefixes of lengths that are looked up, which together are p.
func pieces(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		bits := p.Bits()
		for _, n := range lengths(p.Addr().Is6()) { // ends with the shortest that is long enough
			if n < p.Bits() {
				break
			}
			bits = n
		}
		at := p.Addr()
		for range 1 << (bits - p.Bits()) {
			piece := netip.PrefixFrom(at, bits)
			if !yield(piece) {
				return
			}
			at = lastAddr(piece).Next()
		}
	}
}

// decision is what an element says about a prefix: allowed, or denied in place of a wider prefix.
type decision struct {
	prefix netip.Prefix
	allow  bool
}

// decide returns the decisions of rules about the same ports: those of the longest prefix that
// holds an address decides. A prefix in none of them is not decided.
func decide(rules []Rule, v6 bool) []decision {
	said := make(map[netip.Prefix]bool) // by each prefix at which the rules may change what they say
	for _, r := range rules {
		for p := range pieces(r.peer(v6)) {
			said[p] = false
		}
		for _, e := range r.Except {
			for p := range pieces(e) {
				said[p] = false
			}
		}
	}
	for p := range said {
		said[p] = slices.ContainsFunc(rules, func(r Rule) bool { return r.allows(p, v6) })
	}
	var all []decision
	for p, allow := range said {
		wider := false // what the next wider one says
		for _, bits := range lengths(v6) {
			if bits >= p.Bits() {
				continue
			}
			w, _ := p.Addr().Prefix(bits)
			if says, ok := said[w]; ok {
				wider = says
				break
			}
		}
		if allow != wider {
			all = append(all, decision{p, allow})
		}
	}
	slices.SortFunc(all, func(a, b decision) int {
		return cmp.Or(-cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), a.prefix.Addr().Compare(b.prefix.Addr()))
	})
	return all
}

// allows reports whether the rule allows all addresses of a prefix.
func (r Rule) allows(p netip.Prefix, v6 bool) bool {
	holds := func(w netip.Prefix) bool { return w.Bits() <= p.Bits() && w.Contains(p.Addr()) }
	return holds(r.peer(v6)) && !slices.ContainsFunc(r.Except, holds)
}

// compile returns the decisions of rules, by key, for a box's address of a family.
//
// A key at which a rule has exceptions gets the decisions of all rules that cover it, because what
// is found there is final: an exception of one rule must not deny what a rule of a wider class
// allows. At any other key only its own rules have elements, and what they do not allow is looked
// up in the wider classes.
func (rs Rules) compile(v6 bool) map[portKey][]decision {
	own := make(map[portKey][]Rule)
	excepts := make(map[portKey]bool)
	for _, r := range rs.Allow {
		if r.Host || !r.of(v6) {
			continue
		}
		for k := range r.keys(v6) {
			own[k] = append(own[k], r)
			excepts[k] = excepts[k] || len(r.Except) > 0
		}
	}
	all := make(map[portKey][]decision, len(own))
	for k, rules := range own {
		if excepts[k] {
			rules = nil
			for _, r := range rs.Allow {
				if !r.Host && r.covers(k, v6) {
					rules = append(rules, r)
				}
			}
		}
		all[k] = decide(rules, v6)
	}
	return all
}

// policyItems returns the elements of a checked policy for one of its addresses. Only this function
// makes elements of a Policy.
func (p Policy) policyItems(a netip.Addr) (items []item, err error) {
	f, box := familyOf(a), a.AsSlice()
	add := func(set string, e nft.Element) { items = append(items, item{set, e}) }
	for i, text := range chunks(p.record()) {
		add(f.policy, nft.Element{Key: slices.Concat(box, host32(uint32(i))), Comment: text})
	}
	if p.Refuse {
		add(f.refuse, nft.Element{Key: box})
	}
	for _, d := range f.directions() {
		rs := p.Egress
		if d.in {
			rs = p.Ingress
		}
		if rs == nil {
			continue
		}
		add(d.limited, nft.Element{Key: box})
		add(d.denied, nft.Element{Key: box})
		for k, decisions := range rs.compile(f.v6) {
			for _, dec := range decisions {
				e := nft.Element{Key: ruleKey(box, k, dec.prefix), Verdict: nft.VerdictContinue}
				if dec.allow {
					e.Verdict = nft.VerdictReturn
				}
				add(d.rules, e)
			}
			if len(items) > maxPolicyElements {
				return nil, refuse.Input("the rules take more than %d elements of the kernel for %v; ranges of ports and odd lengths of prefixes take several each", maxPolicyElements, a)
			}
		}
		for k := range rs.hostKeys(f.v6) {
			add(f.hostRules, nft.Element{Key: hostKey(box, k)})
		}
	}
	if len(items) > maxPolicyElements {
		return nil, refuse.Input("the rules take more than %d elements of the kernel for %v", maxPolicyElements, a)
	}
	return items, nil
}

// hostKeys returns the keys of the rules about the host.
func (rs Rules) hostKeys(v6 bool) map[portKey]bool {
	keys := make(map[portKey]bool)
	for _, r := range rs.Allow {
		if r.Host {
			for k := range r.keys(v6) {
				keys[k] = true
			}
		}
	}
	return keys
}

// ruleKey is the key of an element of a rule: box, protocol, port, peer, and class with length.
func ruleKey(box []byte, k portKey, peer netip.Prefix) []byte {
	key := make([]byte, 0, 2*len(box)+12)
	key = appendPortKey(append(key, box...), k)
	key = append(key, peer.Addr().AsSlice()...)
	return append(key, host32(k.form(peer.Bits()))...)
}

// hostKey is the key of an element of a rule about the host: box, protocol, port and class.
func hostKey(box []byte, k portKey) []byte {
	return append(appendPortKey(slices.Clip(slices.Clone(box)), k), host32(k.form(0))...)
}

// appendPortKey appends protocol and port, each padded to 4 bytes.
func appendPortKey(key []byte, k portKey) []byte {
	key = append(key, k.proto, 0, 0, 0)
	key = binary.BigEndian.AppendUint16(key, k.port)
	return append(key, 0, 0)
}

// form is the class and the length as a number. Without it, lookups of different classes and lengths
// could have the same key.
func (k portKey) form(bits int) uint32 { return uint32(k.class)<<8 | uint32(bits) }

// chunks splits a text into comments of elements.
func chunks(text string) (all []string) {
	for len(text) > nft.MaxComment {
		n := nft.MaxComment
		for n > nft.MaxComment-utf8.UTFMax && !utf8.RuneStart(text[n]) {
			n--
		}
		all, text = append(all, text[:n]), text[n:]
	}
	return append(all, text)
}
