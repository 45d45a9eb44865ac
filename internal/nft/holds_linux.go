package nft

import (
	"bytes"
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Holds reports whether the batch's table is active and has exactly the chains and rules
// that the batch adds: whether they are unchanged since the commit. It ignores sets and
// their elements. All that the batch adds is of the Conn's family.
func (c Conn) Holds(ctx context.Context, b *Batch) (bool, error) {
	var wantChains []HookedChain
	var wantRules []Rule
	for _, r := range b.reqs {
		switch r.Type {
		case msgType(unix.NFT_MSG_NEWCHAIN):
			ch, err := decodeChain(r.Body)
			if err != nil {
				return false, err
			}
			wantChains = append(wantChains, ch)
		case msgType(unix.NFT_MSG_NEWRULE):
			rule, err := decodeRule(r.Body)
			if err != nil {
				return false, err
			}
			wantRules = append(wantRules, rule)
		}
	}
	_, flags, err := c.table(ctx, b.table)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || flags&tableDormant != 0 {
		return false, err
	}
	chains, err := c.Chains(ctx)
	if err != nil {
		return false, err
	}
	rules, err := c.RulesOf(ctx, b.table)
	if err != nil {
		return false, err
	}
	return sameChains(chains, wantChains, c.family, b.table) && sameRules(rules, wantRules), nil
}

func sameChains(have, want []HookedChain, family byte, table string) bool {
	there := make(map[HookedChain]bool, len(want))
	for _, ch := range have {
		if ch.Family == family && ch.Table == table {
			there[ch] = true
		}
	}
	for _, ch := range want {
		if !there[ch] {
			return false
		}
	}
	return len(there) == len(want)
}

// sameRules compares chain by chain: a dump lists the chains in an order of its
// own.
func sameRules(have, want []Rule) bool {
	byChain := make(map[string][]Rule)
	for _, r := range have {
		byChain[r.Chain] = append(byChain[r.Chain], r)
	}
	for _, w := range want {
		list := byChain[w.Chain]
		if len(list) == 0 || !list[0].does(w) {
			return false
		}
		byChain[w.Chain] = list[1:]
	}
	return len(have) == len(want)
}

// does reports whether the rule has the expressions of w.
func (r Rule) does(w Rule) bool {
	if len(r.Exprs) != len(w.Exprs) {
		return false
	}
	for i, e := range r.Exprs {
		want := w.Exprs[i]
		if e.Name != want.Name || e.Name != "counter" && !covers(e.Data, want.Data, e.Name == "lookup") {
			return false
		}
	}
	return true
}

// covers reports whether each attribute of want is among those of have, to which the kernel
// may have added some. It ignores the number and the pattern by which the batch names an
// anonymous set.
func covers(have, want []byte, lookup bool) bool {
	w := nl.Walk(want)
	for w.Next() {
		if lookup && (w.Type() == unix.NFTA_LOOKUP_SET_ID || bytes.Contains(w.Data(), []byte("%d"))) {
			continue
		}
		found := false
		for h := nl.Walk(have); !found && h.Next(); {
			if h.Type() == w.Type() {
				found = bytes.Equal(h.Data(), w.Data()) || w.IsNested() && covers(h.Data(), w.Data(), false)
			}
		}
		if !found {
			return false
		}
	}
	return w.Err() == nil
}
