package trace

import (
	stdbytes "bytes"
	"errors"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// setID names a set.
type setID struct {
	family      byte
	table, name string
}

// set is the elements of a set, by ascending key.
type set struct {
	elems    []nft.Element
	interval bool // ranges of single fields: elements that begin and End them
}

func (t *tracing) set(id setID) (*set, error) {
	if s := t.rules.sets[id]; s != nil {
		return s, nil
	}
	elems, err := t.rules.conn.ElementsOf(t.ctx, id.family, id.table, id.name)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // else it was removed meanwhile
		return nil, err
	}
	slices.SortStableFunc(elems, func(a, b nft.Element) int { return stdbytes.Compare(a.Key, b.Key) })
	s := &set{elems: elems, interval: slices.ContainsFunc(elems, func(e nft.Element) bool { return e.End })}
	t.rules.sets[id] = s
	return s, nil
}

// lookup looks for the key in a set; of a map it loads what is found, or makes it
// the rule's verdict.
func (t *tracing) lookup(rule *nft.Rule, regs registers, a *attrs, s *statement) (matching, error) {
	const inverted = 1
	name := string(stdbytes.TrimRight(a[unix.NFTA_LOOKUP_SET], "\x00"))
	set, err := t.set(setID{rule.Family, rule.Table, name})
	if err != nil {
		return no, err
	}
	m, e := set.find(regs, a.u32(unix.NFTA_LOOKUP_SREG))
	if a.u32(unix.NFTA_LOOKUP_FLAGS)&inverted != 0 {
		return yes - m, nil
	}
	if m == no || a[unix.NFTA_LOOKUP_DREG] == nil {
		return m, nil
	}
	switch dreg := a.u32(unix.NFTA_LOOKUP_DREG); {
	case e == nil:
		regs.load(dreg, unknown(16))
	case dreg != unix.NFT_REG_VERDICT:
		regs.load(dreg, known(e.Data))
	default:
		*s = statement{verdictKind(e.Verdict), e.Chain}
	}
	return m, nil
}

// verdictKind is what a verdict of a map does. That to drop is 0 (NF_DROP).
func verdictKind(v nft.Verdict) stop {
	switch v {
	case nft.VerdictAccept:
		return stopAccept
	case nft.VerdictReturn:
		return stopReturn
	case nft.VerdictGoto:
		return stopGoto
	case unix.NFT_JUMP:
		return stopJump
	case nft.VerdictContinue:
		return stopNone
	}
	return stopDrop
}

// find returns the element that holds the key in a register. Where that is not
// sure, there is none.
func (s *set) find(regs registers, reg uint32) (matching, *nft.Element) {
	best := no
	var below *nft.Element
	if s.interval && s.holdsNone(regs.strangers[offset(reg)]) {
		return no, nil
	}
	for i := range s.elems {
		e := &s.elems[i]
		if len(e.Key) == 0 {
			best = maybe // a catch-all element
			continue
		}
		key := regs.read(reg, len(e.Key))
		ranged := e.KeyEnd != nil && !stdbytes.Equal(e.Key, e.KeyEnd)
		switch {
		case ranged && misses(key, e.Key, e.KeyEnd):
		case ranged, s.interval && !key.all():
			best = maybe
		case s.interval:
			if stdbytes.Compare(e.Key, key.data) <= 0 && (below == nil || !stdbytes.Equal(below.Key, e.Key) || below.End) {
				below = e
			}
		default:
			switch compare(key, unix.NFT_CMP_EQ, e.Key) {
			case yes:
				return yes, e
			case maybe:
				best = maybe
			}
		}
	}
	if below != nil && !below.End {
		return yes, below
	}
	return best, nil
}

// misses reports whether a key is outside of an element of ranges for sure: it differs in one of the
// first bytes, which are the same in all that the element holds.
func misses(key bytes, from, to []byte) bool {
	for i := range min(len(from), len(to)) {
		if from[i] != to[i] {
			return false
		}
		if key.known[i] && key.data[i] != from[i] {
			return true
		}
	}
	return false
}

// holdsNone reports whether no range of an interval set has addresses of strangers.
func (s *set) holdsNone(who stranger) bool {
	if who.n == 0 {
		return false
	}
	for i, e := range s.elems {
		if e.End || len(e.Key) == 0 && e.KeyEnd == nil {
			if len(e.Key) == 0 {
				return false // a catch-all element
			}
			continue
		}
		last := stdbytes.Repeat([]byte{0xff}, len(e.Key))
		if i+1 < len(s.elems) && s.elems[i+1].End {
			last = before(s.elems[i+1].Key)
		}
		if who.mayBe(e.Key, last) {
			return false
		}
	}
	return true
}
