package nft

import (
	"context"

	"github.com/boxwire/boxwire/internal/nfttext"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// A Place is a chain of any table: Family is unix.NFPROTO_IPV4, ...
type Place struct {
	Family byte
	Table  string
	Chain  string
}

// HookedChain is a chain of the ruleset.
type HookedChain struct {
	Place
	Type     string // "filter", "nat" or "route"; "" for a chain without a hook
	Hook     uint32
	Priority int32
	Drop     bool // the policy is to drop
}

// Rule is a rule of the ruleset, with its expressions in order.
type Rule struct {
	Place
	Handle  uint64
	Exprs   []Expr
	Comment string
}

// Expr is one expression of a rule: its name and its attributes (NFTA_EXPR_DATA).
type Expr = nfttext.Expr

// Chains reads the chains of all tables.
func (c Conn) Chains(ctx context.Context) ([]HookedChain, error) {
	var all []HookedChain
	err := c.nl.Dump(ctx, nl.Request{Type: msgType(unix.NFT_MSG_GETCHAIN), Body: anyFamily()}, func() { all = all[:0] }, func(m nl.Message) error {
		h, err := decodeChain(m.Body)
		all = append(all, h)
		return err
	})
	return all, err
}

// RulesOf reads the rules of one table.
func (c Conn) RulesOf(ctx context.Context, table string) ([]Rule, error) {
	return c.rules(ctx, nl.AppendString(header(c.family), unix.NFTA_RULE_TABLE, table))
}

// RulesIn reads the rules of one chain of any table, or without the name of a chain, those of all its
// chains; of what is not there, none.
func (c Conn) RulesIn(ctx context.Context, at Place) ([]Rule, error) {
	m := nl.AppendString([]byte{at.Family, unix.NFNETLINK_V0, 0, 0}, unix.NFTA_RULE_TABLE, at.Table)
	if at.Chain == "" {
		return c.rules(ctx, m)
	}
	return c.rules(ctx, nl.AppendString(m, unix.NFTA_RULE_CHAIN, at.Chain))
}

func (c Conn) rules(ctx context.Context, body []byte) ([]Rule, error) {
	var all []Rule
	err := c.nl.Dump(ctx, nl.Request{Type: msgType(unix.NFT_MSG_GETRULE), Body: body}, func() { all = all[:0] }, func(m nl.Message) error {
		r, err := decodeRule(m.Body)
		all = append(all, r)
		return err
	})
	return all, err
}

func anyFamily() []byte { return []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0} }

// decodeChain reads the body of a NEWCHAIN message.
func decodeChain(b []byte) (HookedChain, error) {
	c, err := nfttext.DecodeChain(b)
	return HookedChain{Place: Place{c.Family, c.Table, c.Name}, Type: c.Type, Hook: c.Hook, Priority: c.Priority, Drop: c.Drop}, err
}

// decodeRule reads the body of a NEWRULE message; what it returns is a copy.
func decodeRule(b []byte) (Rule, error) {
	family, r, err := nfttext.DecodeRule(b)
	return Rule{Place: Place{family, r.Table, r.Chain}, Handle: r.Handle, Exprs: r.Exprs, Comment: r.Comment}, err
}
