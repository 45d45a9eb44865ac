package nat

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
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

// compare orders keys, those of narrower classes first.
func (k portKey) compare(o portKey) int {
	return cmp.Or(cmp.Compare(k.class, o.class), cmp.Compare(k.proto, o.proto), cmp.Compare(k.port, o.port))
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

// pieceBits returns the shortest length that is looked up and is not shorter than the prefix.
func pieceBits(p netip.Prefix) int {
	bits := p.Addr().BitLen()
	for _, n := range lengths(p.Addr().Is6()) {
		if n < p.Bits() {
			break
		}
		bits = n
	}
	return bits
}

// pieces returns the prefixes of lengths that are looked up, which together are p.
func pieces(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		bits, at := pieceBits(p), p.Addr()
		for range 1 << (bits - p.Bits()) {
			piece := netip.PrefixFrom(at, bits)
			if !yield(piece) {
				return
			}
			at = lastAddr(piece).Next()
		}
	}
}

// elements returns how many elements the rule takes for a family if it is alone. It stops counting
// above maxPolicyElements.
func (r Rule) elements(v6 bool) int {
	each := 1 << (pieceBits(r.peer(v6)) - r.peer(v6).Bits())
	for _, e := range r.Except {
		each += 1 << (pieceBits(e) - e.Bits())
	}
	sum := 0
	for range r.keys(v6) {
		if sum += each; sum > maxPolicyElements {
			break
		}
	}
	return sum
}

// decision is what an element says about a prefix: allowed, or denied in place of a wider prefix.
type decision struct {
	prefix netip.Prefix
	allow  bool
}

// decide returns the decisions of rules about the same ports: those of the longest prefix that
// holds an address decides. A prefix in none of them is not decided.
//
// A prefix is allowed if more peers than exceptions hold it, because the exceptions of a rule are
// inside its peer and do not overlap. Whatever holds a piece holds it by one of its own pieces,
// because a piece is of the shortest length that is long enough.
func decide(rules []*Rule, v6 bool) []decision {
	var all []decision
	if len(rules) == 1 && len(rules[0].Except) == 0 {
		for p := range pieces(rules[0].peer(v6)) {
			all = append(all, decision{p, true})
		}
		return all
	}
	more := make(map[netip.Prefix]int, len(rules)) // peers less exceptions that end at a prefix
	var occurs [129]bool                           // lengths
	add := func(p netip.Prefix, n int) {
		for p := range pieces(p) {
			more[p] += n
			occurs[p.Bits()] = true
		}
	}
	for _, r := range rules {
		add(r.peer(v6), 1)
		for _, e := range r.Except {
			add(e, -1)
		}
	}
	for p, n := range more {
		wider := 0 // peers less exceptions that hold more than p
		for _, bits := range lengths(v6) {
			if bits < p.Bits() && occurs[bits] {
				w, _ := p.Addr().Prefix(bits)
				wider += more[w]
			}
		}
		if allow := wider+n > 0; allow != (wider > 0) {
			all = append(all, decision{p, allow})
		}
	}
	slices.SortFunc(all, func(a, b decision) int {
		return cmp.Or(-cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), a.prefix.Addr().Compare(b.prefix.Addr()))
	})
	return all
}

// keyed is a rule at one of its keys.
type keyed struct {
	key  portKey
	rule *Rule
}

// compile returns the decisions of rules, by key, for a box's address of a family.
//
// A key at which a rule has exceptions gets the decisions of all rules that cover it, because what
// is found there is final: an exception of one rule must not deny what a rule of a wider class
// allows. At any other key only its own rules have elements, and what they do not allow is looked
// up in the wider classes.
func (rs Rules) compile(v6 bool) iter.Seq2[portKey, []decision] {
	var all []keyed
	for i := range rs.Allow {
		if r := &rs.Allow[i]; !r.Host && r.of(v6) {
			for k := range r.keys(v6) {
				all = append(all, keyed{k, r})
			}
		}
	}
	slices.SortFunc(all, func(a, b keyed) int { return a.key.compare(b.key) })
	return func(yield func(portKey, []decision) bool) {
		var rules []*Rule
		for i := 0; i < len(all); {
			key, excepts := all[i].key, false
			for rules = rules[:0]; i < len(all) && all[i].key == key; i++ {
				rules = append(rules, all[i].rule)
				excepts = excepts || len(all[i].rule.Except) > 0
			}
			if excepts {
				rules = rs.covering(rules[:0], key, v6)
			}
			if !yield(key, decide(rules, v6)) {
				return
			}
		}
	}
}

// covering appends the rules that are about all that a key is.
func (rs Rules) covering(rules []*Rule, k portKey, v6 bool) []*Rule {
	for i := range rs.Allow {
		if r := &rs.Allow[i]; !r.Host && r.covers(k, v6) {
			rules = append(rules, r)
		}
	}
	return rules
}

// form is the class and the length as a number. Without it, lookups of different classes and lengths
// could have the same key.
func (k portKey) form(bits int) uint32 { return uint32(k.class)<<8 | uint32(bits) }
