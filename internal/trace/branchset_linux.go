package trace

import (
	stdbytes "bytes"
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/xtables"
	"golang.org/x/sys/unix"
)

// keyRange are the keys of an element.
type keyRange struct {
	from, to []byte
	elem     *nft.Element
}

// ranges are the keys of a set's elements; whole is false if it has others, too.
func (s *set) ranges() (all []keyRange, whole bool) {
	whole = true
	for i := range s.elems {
		e := &s.elems[i]
		switch {
		case len(e.Key) == 0: // all that no other element has
			whole = false
		case e.End:
		case e.KeyEnd != nil:
			all = append(all, keyRange{e.Key, e.KeyEnd, e})
		case !s.interval:
			all = append(all, keyRange{e.Key, e.Key, e})
		default:
			to := stdbytes.Repeat([]byte{0xff}, len(e.Key))
			for _, next := range s.elems[i+1:] {
				if stdbytes.Compare(next.Key, e.Key) > 0 {
					to = before(next.Key)
					break
				}
			}
			all = append(all, keyRange{e.Key, to, e})
		}
	}
	return all, whole
}

// before is the key before another one.
func before(key []byte) []byte {
	b := slices.Clone(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// lookup evaluates a lookup. If it has evaluated the expressions behind it, too, for each
// element, or if there is nothing left, done is true.
func (b *branch) lookup(a *attrs, rest []nft.Expr) (done bool, err error) {
	const inverted = 1
	name := string(stdbytes.TrimRight(a[unix.NFTA_LOOKUP_SET], "\x00"))
	tr := tracing{ctx: b.walk.ctx, rules: b.walk.rules}
	set, err := tr.set(setID{b.rule.Family, b.rule.Table, name})
	if err != nil {
		return true, err
	}
	all, whole := set.ranges()
	reg, dreg := a.u32(unix.NFTA_LOOKUP_SREG), a[unix.NFTA_LOOKUP_DREG]
	if len(all) == 0 && whole {
		return a.u32(unix.NFTA_LOOKUP_FLAGS)&inverted == 0, nil // nothing is in it
	}
	if dreg == nil && (!whole || a.u32(unix.NFTA_LOOKUP_FLAGS)&inverted != 0) {
		if whole && b.single(reg, all, true) {
			return b.space.empty(), nil
		}
		b.condition(false)
		return false, nil
	}
	if dreg == nil && b.single(reg, all, false) {
		return b.space.empty(), nil
	}
	for _, r := range all {
		if b.walk.visits++; b.walk.tooMany() {
			return true, nil
		}
		if err := b.element(reg, a, r, rest); err != nil {
			return true, err
		}
	}
	if !whole { // and what the catch-all element says
		c := *b
		c.condition(false)
		c.load(a.u32(unix.NFTA_LOOKUP_DREG), loaded{})
		return true, c.run(rest)
	}
	return true, nil
}

func (s *space) empty() bool {
	return s.ports != nil && len(s.ports) == 0 || s.protos != nil && len(s.protos) == 0 || s.addrs != nil && len(s.addrs) == 0
}

// single takes the packets whose only piece is in one of the ranges, or in none, from the space. It
// reports whether it could.
func (b *branch) single(reg uint32, all []keyRange, not bool) bool {
	f, ok := b.fields(reg, all[0].from)
	if !ok || len(f) != 1 || f[0].mask != nil {
		return false
	}
	p := f[0].piece
	switch {
	case p.kind == pieceDestPort:
		return b.portSet(all, not)
	case p.kind == pieceIn:
		if !not {
			b.condition(true)
		}
		return true
	case not:
	case p.kind == pieceProto:
		var protos []byte
		for _, r := range all {
			if len(r.from) < 1 || r.from[0] != r.to[0] {
				return false
			}
			protos = append(protos, r.from[0])
		}
		if !b.space.setProtos(protos...) {
			b.space.protos = []byte{}
		}
		return true
	case p.kind == pieceDest:
		var addrs []addrRange
		for _, r := range all {
			one, ok := p.addrs(r.from, r.to)
			if !ok {
				return false
			}
			addrs = append(addrs, one)
		}
		if !b.space.setAddrs(addrs) {
			b.space.addrs = []addrRange{}
		}
		return true
	}
	return false
}

func (b *branch) portSet(all []keyRange, not bool) bool {
	var ports []xtables.Range
	for _, r := range all {
		if len(r.from) < 2 || len(r.to) < 2 {
			return false
		}
		ports = append(ports, xtables.Range{First: binary.BigEndian.Uint16(r.from), Last: binary.BigEndian.Uint16(r.to)})
	}
	if not {
		ports = otherPorts(ports)
	}
	if !b.space.setPorts(ports) {
		b.space.ports = []xtables.Range{}
	}
	return true
}

// element goes on with the packets of one element.
func (b *branch) element(reg uint32, a *attrs, r keyRange, rest []nft.Expr) error {
	c := *b
	from, ok := c.fields(reg, r.from)
	to, ok2 := c.fields(reg, r.to)
	if !ok || !ok2 || len(from) != len(to) {
		c.condition(false)
	} else {
		for i := range from {
			if !c.constrain(from[i].piece, from[i].data, to[i].data, false) {
				return nil
			}
		}
	}
	e := r.elem
	switch dreg := a.u32(unix.NFTA_LOOKUP_DREG); {
	case a[unix.NFTA_LOOKUP_DREG] == nil:
	case dreg != unix.NFT_REG_VERDICT:
		c.data(dreg, e.Data)
	default:
		if kind := verdictKind(e.Verdict); kind != stopNone {
			return c.then(&c, statement{kind, e.Chain})
		}
	}
	return c.run(rest)
}

// data loads what a map has for a key, each word by itself, so that a port behind an address is
// found there.
func (b *branch) data(reg uint32, data []byte) {
	at := regWord(reg)
	for i := 0; at >= 0 && i < len(data) && at < len(b.regs); i += 4 {
		b.regs[at] = loaded{data: data[i:], size: len(data) - i}
		at++
	}
}
