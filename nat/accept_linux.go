package nat

import (
	"context"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// AcceptForward makes the forward chain of iptables-nft, which Docker and ufw set
// to drop, accept what comes from and goes to the boxes of this table's networks,
// in one transaction. What one table drops no other can let through, so that this
// is the one case in which another program's table is changed, and only by this
// call: it puts two rules for each network at the head of the chain DOCKER-USER, or
// FORWARD where that is missing, of the tables ip filter and ip6 filter. The chain
// of this table decides all the same: what it drops stays dropped.
//
// The rules are written as iptables-nft reads them; `iptables-nft -S` shows them
// with the comment "table inet boxwire". Where there is no such chain nothing is
// done. It may be repeated, and has to be after networks were added, and after
// that firewall was reloaded. [NAT.RevokeForward] removes the rules, as do
// [NAT.RemoveNetwork] those of its network and [NAT.Delete] all.
//
// Rules of iptables-legacy are out of reach.
func (n *NAT) AcceptForward(ctx context.Context) error {
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		return n.explain(ctx, c, n.acceptForward(ctx, c))
	})
	return n.fail("nat.AcceptForward", n.String(), err)
}

// RevokeForward removes the rules that [NAT.AcceptForward] has put into the chains
// of iptables-nft. Without any, it does nothing.
func (n *NAT) RevokeForward(ctx context.Context) error {
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		return c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
			b := nft.NewBatch(n.table)
			return b, n.revoke(ctx, c, b, nil)
		}, nil)
	})
	return n.fail("nat.RevokeForward", n.String(), err)
}

// foreignChains are those that AcceptForward may write to, the better one first.
var foreignChains = []string{"DOCKER-USER", "FORWARD"}

// pass is an accept: of what comes in, or goes out, by an interface.
type pass struct {
	key   uint32 // unix.NFT_META_IIFNAME or NFT_META_OIFNAME
	iface string
}

// exprs are the pass in the encoding of iptables-nft: the name with its NUL, a
// counter, the verdict.
func (p pass) exprs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKey(p.key), Register: regA},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: append([]byte(p.iface), 0)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func (n *NAT) acceptForward(ctx context.Context, c nft.Conn) error {
	return c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		ifs, err := c.Elements(ctx, n.table, "ifs")
		if err != nil {
			return nil, err
		}
		chains, err := c.Chains(ctx)
		if err != nil {
			return nil, err
		}
		var want []pass
		for _, e := range ifs {
			want = append(want, pass{unix.NFT_META_IIFNAME, nameOf(e.Key)}, pass{unix.NFT_META_OIFNAME, nameOf(e.Key)})
		}
		b := nft.NewBatch(n.table)
		for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
			if err := n.acceptIn(ctx, c, b, family, chains, want); err != nil {
				return nil, err
			}
		}
		return b, nil
	}, nil)
}

// acceptIn adds to the batch what is missing in a family's chain, and deletes what
// is in the wrong one.
func (n *NAT) acceptIn(ctx context.Context, c nft.Conn, b *nft.Batch, family byte, chains []nft.HookedChain, want []pass) error {
	at := nft.Place{}
	for _, name := range slices.Backward(foreignChains) {
		p := nft.Place{Family: family, Table: "filter", Chain: name}
		if slices.ContainsFunc(chains, func(h nft.HookedChain) bool { return h.Place == p }) {
			at = p
		}
	}
	have := make(map[pass]bool)
	err := n.eachPass(ctx, c, family, func(r nft.Rule, p pass) {
		if r.Place == at && slices.Contains(want, p) && !have[p] {
			have[p] = true
		} else {
			b.DeleteRule(r)
		}
	})
	if err != nil || at.Chain == "" {
		return err
	}
	for _, p := range slices.Backward(want) {
		if !have[p] {
			b.InsertRule(at, n.String(), p.exprs()...)
		}
	}
	return nil
}

// revoke adds to the batch the removal of the rules for the interfaces that of
// says true of; a nil of is all.
func (n *NAT) revoke(ctx context.Context, c nft.Conn, b *nft.Batch, of func(iface string) bool) error {
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		err := n.eachPass(ctx, c, family, func(r nft.Rule, p pass) {
			if of == nil || of(p.iface) {
				b.DeleteRule(r)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachPass finds our rules in the chains of others.
func (n *NAT) eachPass(ctx context.Context, c nft.Conn, family byte, each func(nft.Rule, pass)) error {
	for _, name := range foreignChains {
		rules, err := c.RulesIn(ctx, nft.Place{Family: family, Table: "filter", Chain: name})
		if err != nil {
			return err
		}
		for _, r := range rules {
			if p, ours := passOf(r, n.String()); ours {
				each(r, p)
			}
		}
	}
	return nil
}

// passOf returns what a rule lets pass, if it has our comment: in its userdata,
// as we write it, or as a match, as iptables-nft-restore does.
func passOf(r nft.Rule, comment string) (p pass, ours bool) {
	const matchName, matchInfo = 1, 3 // NFTA_MATCH_*
	ours = r.Comment == comment
	for _, e := range r.Exprs {
		switch e.Name {
		case "match":
			var name, info string
			for w := nl.Walk(e.Data); w.Next(); {
				switch w.Type() {
				case matchName:
					name = w.String()
				case matchInfo:
					info = w.String()
				}
			}
			ours = ours || name == "comment" && info == comment
		case "meta":
			for w := nl.Walk(e.Data); w.Next(); {
				if w.Type() == unix.NFTA_META_KEY {
					p.key = w.BE32()
				}
			}
		case "cmp":
			for w := nl.Walk(e.Data); w.Next(); {
				if w.Type() != unix.NFTA_CMP_DATA {
					continue
				}
				for v := w.Nested(); v.Next(); {
					if v.Type() == unix.NFTA_DATA_VALUE {
						p.iface = strings.TrimRight(string(v.Data()), "\x00")
					}
				}
			}
		}
	}
	return p, ours
}
