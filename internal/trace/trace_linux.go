package trace

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// Ruleset is the rules of a namespace.
type Ruleset struct {
	conn   nft.Conn
	chains []nft.HookedChain
	rules  map[nft.Place][]nft.Rule
	sets   map[setID]*set
}

// Read reads the rules of the namespace, without those of the tables that except
// says true of.
func Read(ctx context.Context, c nft.Conn, except func(family byte, table string) bool) (*Ruleset, error) {
	r := &Ruleset{conn: c, rules: make(map[nft.Place][]nft.Rule), sets: make(map[setID]*set)}
	chains, err := c.Chains(ctx)
	if err != nil {
		return nil, err
	}
	r.chains = slices.DeleteFunc(chains, func(h nft.HookedChain) bool {
		return h.Type == "" || !slices.Contains(ipFamilies, h.Family) || except(h.Family, h.Table)
	})
	slices.SortStableFunc(r.chains, func(a, b nft.HookedChain) int { return cmp.Compare(a.Priority, b.Priority) })
	read := make(map[nft.Place]bool)
	for _, h := range r.chains {
		table := nft.Place{Family: h.Family, Table: h.Table}
		if read[table] {
			continue
		}
		read[table] = true
		rules, err := c.RulesIn(ctx, table)
		if err != nil {
			return nil, err
		}
		for _, rule := range rules {
			r.rules[rule.Place] = append(r.rules[rule.Place], rule)
		}
	}
	return r, nil
}

// ipFamilies are the families whose chains IP packets pass.
var ipFamilies = []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET}

// Empty reports whether no chain has a hook.
func (r *Ruleset) Empty() bool { return len(r.chains) == 0 }

// LeadsAllTo says whether the rules of a chain lead every packet to another chain:
// by a jump without a condition, with nothing before it that decides.
func LeadsAllTo(rules []nft.Rule, chain string) bool {
	t := tracing{packet: &Packet{}, rules: &Ruleset{}}
	for i := range rules {
		if slices.ContainsFunc(rules[i].Exprs, func(e nft.Expr) bool { return e.Name == "lookup" }) {
			continue // a condition
		}
		switch m, s, _ := t.rule(&rules[i]); {
		case m != yes || t.conditional(&rules[i]):
		case s.kind == stopJump || s.kind == stopGoto:
			if s.chain == chain || s.kind == stopGoto {
				return s.chain == chain
			}
		case s.kind != stopNone:
			return false
		}
	}
	return false
}

// conditional says whether the rule compares anything.
func (t *tracing) conditional(rule *nft.Rule) bool {
	return slices.ContainsFunc(rule.Exprs, func(e nft.Expr) bool {
		a := parse(e.Data)
		return e.Name == "cmp" || e.Name == "range" || e.Name == "match" && a.name() != "comment"
	})
}

// Outcome is what becomes of a packet.
type Outcome struct {
	nft.Place
	Handle   uint64 // of the rule; 0 is the chain's policy
	Priority int32  // of the chain with the hook that leads there
	DNAT     bool   // its destination is translated; otherwise it is dropped
	Certain  bool
}

// String names the rule, "rule # handle 7 of chain ip filter FORWARD",
// as `nft -a list chain ip filter FORWARD` shows it.
func (o Outcome) String() string {
	s := fmt.Sprintf("chain %s %s %s", familyName(o.Family), o.Table, o.Chain)
	if o.Handle == 0 {
		return "the policy of " + s
	}
	return fmt.Sprintf("rule # handle %d of %s", o.Handle, s)
}

func familyName(family byte) string {
	switch family {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_INET:
		return "inet"
	}
	return fmt.Sprintf("family %d", family)
}

// Trace lets the packet go through the chains at a hook that have a priority from
// lo to hi, up to the first outcome that is certain.
func (r *Ruleset) Trace(ctx context.Context, hook uint32, lo, hi int32, p Packet) ([]Outcome, error) {
	var all []Outcome
	for _, h := range r.chains {
		family := byte(unix.NFPROTO_IPV4)
		if p.V6 {
			family = unix.NFPROTO_IPV6
		}
		if h.Hook != hook || h.Priority < lo || h.Priority > hi || h.Family != unix.NFPROTO_INET && h.Family != family {
			continue
		}
		t := tracing{ctx: ctx, rules: r, packet: &p, priority: h.Priority}
		v, err := t.chain(h.Place, 0)
		if err != nil {
			return nil, err
		}
		if v == goOn && h.Drop {
			t.found = append(t.found, Outcome{Place: h.Place, Priority: h.Priority, Certain: !t.doubt})
		}
		all = append(all, t.found...)
		if n := len(all); n > 0 && all[n-1].Certain {
			break
		}
	}
	return all, nil
}

// tracing is one packet in one hooked chain.
type tracing struct {
	ctx      context.Context
	rules    *Ruleset
	packet   *Packet
	priority int32
	doubt    bool // it may have been accepted before
	found    []Outcome
}

type verdict int

const (
	goOn verdict = iota // also: return
	accepted
	ended // dropped or translated; it is in found
)

// maxDepth is how deep chains may jump (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

func (t *tracing) chain(place nft.Place, depth int) (verdict, error) {
	if depth > maxDepth {
		return goOn, nil
	}
	for i := range t.rules.rules[place] {
		rule := &t.rules.rules[place][i]
		m, s, err := t.rule(rule)
		if err != nil {
			return goOn, err
		}
		if m == no {
			continue
		}
		sure := m == yes
		switch s.kind {
		case stopAccept:
			if sure {
				return accepted, nil
			}
			t.doubt = true
		case stopReturn:
			if sure {
				return goOn, nil
			}
			t.doubt = true
		case stopDrop, stopDNAT:
			t.found = append(t.found, Outcome{
				Place: rule.Place, Handle: rule.Handle, Priority: t.priority,
				DNAT: s.kind == stopDNAT, Certain: sure && !t.doubt,
			})
			if sure {
				return ended, nil
			}
		case stopJump, stopGoto:
			before := t.doubt
			t.doubt = t.doubt || !sure
			v, err := t.chain(nft.Place{Family: place.Family, Table: place.Table, Chain: s.chain}, depth+1)
			switch {
			case err != nil:
				return goOn, err
			case sure && (v != goOn || s.kind == stopGoto):
				return v, nil
			case !sure:
				// What was found inside is uncertain; it may also go on here.
				t.doubt = before || v == accepted || s.kind == stopGoto
			}
		}
	}
	return goOn, nil
}
