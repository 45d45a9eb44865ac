package nat

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/trace"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// AcceptForward adds rules to the forward chain of iptables-nft, which Docker and ufw set to drop.
// They accept what comes from and goes to the boxes of this table's networks. It is the only call
// that changes a table of another program, because a packet that one table drops cannot be accepted
// by another. The rules are in the tables ip filter and ip6 filter, and are added in one
// transaction. What this table's own forward chain drops stays dropped.
//
// Where the chain FORWARD jumps to DOCKER-USER for every packet, the rules for replies and for
// connections from outside to boxes are at the head of DOCKER-USER. The rules for connections that
// boxes begin, and for those to boxes from other links, are at the end of FORWARD, behind those that
// separate Docker's networks: a container of an internal network reaches no published port of a
// box. Where Docker has no DOCKER-USER, as version 20.10 for IPv6, the head of FORWARD takes its
// place. Without Docker, all rules are at the head of FORWARD. A chain DOCKER-USER that nothing jumps
// to, as `iptables -F` leaves it, is not used.
//
// Outside are links with a default route, and other links with a subnet that are no bridges.
// Connections that boxes begin are not accepted into bridges of other programs. A link that comes
// later needs another call.
//
// AcceptForward may be repeated. Call it again after networks were added, and after the other
// firewall was reloaded. Where there is no such chain it does nothing. `iptables-nft -S` shows the
// rules with the comment "table inet boxwire". [NAT.RevokeForward] and [NAT.Delete] remove the
// rules, and [NAT.DeleteNetwork] those of its network. The kernel needs nft_compat and
// xt_conntrack, as iptables-nft does.
//
// Rules of iptables-legacy cannot be changed.
func (n *NAT) AcceptForward(ctx context.Context) error {
	return n.transact(ctx, "nat.AcceptForward", new(acceptTx))
}

// RevokeForward removes the rules that [NAT.AcceptForward] added to chains of iptables-nft. Without
// such rules it does nothing.
func (n *NAT) RevokeForward(ctx context.Context) error {
	return n.transact(ctx, "nat.RevokeForward", new(revokeTx))
}

// foreignChains are those that AcceptForward may write to.
var foreignChains = []string{"DOCKER-USER", "FORWARD"}

// dockerChains are those that Docker's FORWARD leads to, one of them at least: ip6tables of Docker 20.10 has
// no DOCKER-USER, newer versions have the separation of networks in DOCKER-FORWARD.
var dockerChains = []string{"DOCKER-USER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-FORWARD"}

// acceptRule is an accept of packets from the interface in to the interface out. "" is any
// interface. With answers, it accepts replies only.
type acceptRule struct {
	in, out string
	answers bool
}

// acceptPlace is an acceptRule with its chain and position.
type acceptPlace struct {
	acceptRule
	at  nft.Place
	end bool // behind what the chain has, not before
}

// exprs encodes the rule as iptables-nft does: names with their NUL, the match of -m conntrack
// --ctstate RELATED,ESTABLISHED, a counter, the verdict.
func (p acceptRule) exprs() (all []expr.Any) {
	for _, side := range []struct {
		key  expr.MetaKey
		name string
	}{{expr.MetaKeyIIFNAME, p.in}, {expr.MetaKeyOIFNAME, p.out}} {
		if side.name != "" {
			all = append(all, &expr.Meta{Key: side.key, Register: regA},
				&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: append([]byte(side.name), 0)})
		}
	}
	if p.answers {
		all = append(all, &expr.Match{Name: "conntrack", Rev: 3, Info: answers()})
	}
	return append(all, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

// answers is a struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h).
func answers() *xt.Unknown {
	const (
		size                 = 168 // with XT_ALIGN
		flagsAt, statesAt    = 146, 150
		state                = 1    // XT_CONNTRACK_STATE
		established, related = 2, 4 // XT_CONNTRACK_STATE_BIT
	)
	info := make(xt.Unknown, size)
	binary.NativeEndian.PutUint16(info[flagsAt:], state)
	binary.NativeEndian.PutUint16(info[statesAt:], established|related)
	return &info
}

// acceptTx adds the rules of AcceptForward.
type acceptTx struct{ tableTx }

// Build returns the batch that adds the missing rules.
func (tx *acceptTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	elems, err := tx.c.Elements(ctx, tx.n.table, "ifs")
	if err != nil {
		return nil, err
	}
	var ifs []string
	for _, e := range elems {
		ifs = append(ifs, nameOf(e.Key))
	}
	b := nft.NewBatch(tx.n.table)
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		if err := tx.n.acceptIn(ctx, tx.c, b, family, ifs); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// finish lets neighbours pass where the other firewall's program has made the host a router. Docker
// does.
func (tx *acceptTx) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	return tx.n.yieldLinks(ctx, tx.c)
}

// revokeTx deletes the rules of AcceptForward.
type revokeTx struct{ tableTx }

// Build returns the batch that deletes the rules.
func (tx *revokeTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	b := nft.NewBatch(tx.n.table)
	return b, tx.n.revoke(ctx, tx.c, b, "")
}

// acceptIn adds the missing rules to a family's chains, and deletes those in the wrong place.
func (n *NAT) acceptIn(ctx context.Context, c nft.Conn, b *nft.Batch, family byte, ifs []string) error {
	want, err := n.acceptPlaces(ctx, c, family, ifs)
	if err != nil {
		return err
	}
	there, err := n.accepts(ctx, c, family)
	if err != nil {
		return err
	}
	for _, r := range there {
		if i := slices.IndexFunc(want, r.is); i >= 0 {
			want = slices.Delete(want, i, i+1)
		} else {
			b.DeleteRule(r.rule)
		}
	}
	for _, p := range slices.Backward(want) {
		if !p.end {
			b.InsertRule(p.at, n.String(), p.exprs()...)
		}
	}
	for _, p := range want {
		if p.end {
			b.AppendRule(p.at, n.String(), p.exprs()...)
		}
	}
	return nil
}

// acceptPlaces returns the rules for the interfaces, in order. There are none where iptables-nft
// has no forward chain.
func (n *NAT) acceptPlaces(ctx context.Context, c nft.Conn, family byte, ifs []string) (all []acceptPlace, err error) {
	forward := nft.Place{Family: family, Table: "filter", Chain: "FORWARD"}
	chains, err := c.Chains(ctx)
	if err != nil || !slices.ContainsFunc(chains, func(h nft.HookedChain) bool { return h.Place == forward }) {
		return nil, err
	}
	rules, err := c.RulesIn(ctx, forward)
	if err != nil {
		return nil, err
	}
	outs, err := n.waysOut(ctx, family, ifs)
	if err != nil {
		return nil, err
	}
	head := forward
	if trace.LeadsAllTo(rules, "DOCKER-USER") {
		head.Chain = "DOCKER-USER"
	}
	docker := leadToDocker(rules)
	for _, name := range ifs {
		all = append(all, acceptPlace{acceptRule{out: name, answers: docker}, head, false}, acceptPlace{acceptRule{in: name, answers: true}, head, false})
		if docker {
			all = append(all, acceptPlace{acceptRule{out: name}, forward, true})
		}
		for _, out := range outs {
			if docker {
				all = append(all, acceptPlace{acceptRule{in: out, out: name}, head, false})
			}
			all = append(all, acceptPlace{acceptRule{in: name, out: out}, forward, docker})
		}
	}
	return all, nil
}

// leadToDocker reports whether rules of FORWARD lead every packet to one of Docker's chains.
func leadToDocker(rules []nft.Rule) bool {
	return slices.ContainsFunc(dockerChains, func(chain string) bool { return trace.LeadsAllTo(rules, chain) })
}

// lacksAccepts reports whether AcceptForward would add rules for an interface to a family's chains.
func (n *NAT) lacksAccepts(ctx context.Context, c nft.Conn, family byte, iface string) (bool, error) {
	want, err := n.acceptPlaces(ctx, c, family, []string{iface})
	if err != nil {
		return false, err
	}
	there, err := n.accepts(ctx, c, family)
	for _, r := range there {
		want = slices.DeleteFunc(want, r.is)
	}
	return len(want) > 0, err
}

// revoke deletes the rules for an interface; "" means all.
func (n *NAT) revoke(ctx context.Context, c nft.Conn, b *nft.Batch, iface string) error {
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		there, err := n.accepts(ctx, c, family)
		if err != nil {
			return err
		}
		for _, r := range there {
			if iface == "" || r.in == iface || r.out == iface {
				b.DeleteRule(r.rule)
			}
		}
	}
	return nil
}

// foundAccept is an acceptRule that a chain has.
type foundAccept struct {
	acceptRule
	rule  nft.Rule
	early bool // before a rule that leads to Docker's chains
}

// is reports whether the rule is the wanted one, in its chain, and behind Docker's if it has to be.
func (r foundAccept) is(want acceptPlace) bool {
	return r.acceptRule == want.acceptRule && r.rule.Place == want.at && !(want.end && r.early)
}

// accepts finds our rules in the chains of others.
func (n *NAT) accepts(ctx context.Context, c nft.Conn, family byte) (all []foundAccept, err error) {
	for _, name := range foreignChains {
		rules, err := c.RulesIn(ctx, nft.Place{Family: family, Table: "filter", Chain: name})
		if err != nil {
			return nil, err
		}
		for i, r := range rules {
			if p, own := acceptOf(r, n.String()); own {
				all = append(all, foundAccept{p, r, leadToDocker(rules[i+1:])})
			}
		}
	}
	return all, nil
}

// acceptOf decodes a rule. It is ours if it has our comment: in its userdata, as this package
// writes it, or as a match, as iptables-nft-restore does.
func acceptOf(r nft.Rule, comment string) (p acceptRule, own bool) {
	const matchName, matchInfo = 1, 3 // NFTA_MATCH_*
	own = r.Comment == comment
	var key uint32
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
			own = own || name == "comment" && info == comment
			p.answers = p.answers || name == "conntrack"
		case "meta":
			for w := nl.Walk(e.Data); w.Next(); {
				if w.Type() == unix.NFTA_META_KEY {
					key = w.BE32()
				}
			}
		case "cmp":
			switch name := comparedName(e.Data); key {
			case unix.NFT_META_IIFNAME:
				p.in = name
			case unix.NFT_META_OIFNAME:
				p.out = name
			}
		case "ct": // what iptables-nft may write for the match
			p.answers = true
			key = 0
		}
	}
	return p, own
}

// comparedName is the name that a cmp expression compares with.
func comparedName(data []byte) (name string) {
	for w := nl.Walk(data); w.Next(); {
		if w.Type() != unix.NFTA_CMP_DATA {
			continue
		}
		for v := w.Nested(); v.Next(); {
			if v.Type() == unix.NFTA_DATA_VALUE {
				name = strings.TrimRight(string(v.Data()), "\x00")
			}
		}
	}
	return name
}
