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

// Rules reads the rules of all tables, in the order in which each chain has them.
func (c Conn) Rules(ctx context.Context) ([]Rule, error) {
	return c.rules(ctx, anyFamily())
}

// RulesOf reads the rules of one table.
func (c Conn) RulesOf(ctx context.Context, table string) ([]Rule, error) {
	return c.rules(ctx, nl.AppendString(header(c.family), unix.NFTA_RULE_TABLE, table))
}

// RulesIn reads the rules of one chain of any table; of a chain that is not there,
// none.
func (c Conn) RulesIn(ctx context.Context, at Place) ([]Rule, error) {
	m := nl.AppendString([]byte{at.Family, unix.NFNETLINK_V0, 0, 0}, unix.NFTA_RULE_TABLE, at.Table)
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

func decodeChain(b []byte) (c HookedChain, err error) {
	if len(b) < 4 {
		return c, errShort
	}
	c.Family = b[0]
	w := nl.Walk(b[4:])
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = w.String()
		case unix.NFTA_CHAIN_NAME:
			c.Chain = w.String()
		case unix.NFTA_CHAIN_TYPE:
			c.Type = w.String()
		case unix.NFTA_CHAIN_POLICY:
			c.Drop = w.BE32() == 0 // NF_DROP
		case unix.NFTA_CHAIN_HOOK:
			h := w.Nested()
			for h.Next() {
				switch h.Type() {
				case unix.NFTA_HOOK_HOOKNUM:
					c.Hook = h.BE32()
				case unix.NFTA_HOOK_PRIORITY:
					c.Priority = int32(h.BE32())
				}
			}
			if err := h.Err(); err != nil {
				return c, err
			}
		}
	}
	return c, w.Err()
}

// decodeRule reads the body of a NEWRULE message; what it returns is a copy.
func decodeRule(b []byte) (Rule, error) {
	family, r, err := nfttext.DecodeRule(b)
	return Rule{Place: Place{family, r.Table, r.Chain}, Handle: r.Handle, Exprs: r.Exprs, Comment: r.Comment}, err
}
