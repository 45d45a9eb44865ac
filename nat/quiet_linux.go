package nat

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// SetQuietGroup keeps reports of IPv6 multicast listeners (MLD) from being bridged between the boxes
// whose ports are in a link group (Spec.Group in package link). A box that comes up reports the groups
// of its addresses twice, and a bridge without multicast snooping floods that to all other boxes: with a
// thousand of them, that takes longer than to attach the box. The boxes have no use for it.
//
// The table of the family bridge that does it has the NAT's name with "-quiet" behind. Another group
// takes the place of the former one. The call may be repeated; where nothing is to do, it reads only.
// The table is no part of [State]: if another program removes it, reports are flooded again. Delete
// removes it, and nothing else needs it.
//
// Only reports from a port of the group to another one are dropped. Neighbour discovery and multicast
// itself pass as before, and reports reach the host and ports in other groups, such as an uplink. What
// is lost: a multicast router in a box does not hear who listens, and with multicast snooping, so does a
// querier in a box. Do not put its port into the group.
//
// Errors: os.ErrInvalid for the group 0; os.ErrExist where another program, or a NAT of that name for
// its guards, has a bridge table of that name; os.ErrNotExist if the NAT's table is gone;
// errors.ErrUnsupported where the kernel lacks the family bridge of nftables; os.ErrPermission without
// CAP_NET_ADMIN over the namespace.
func (n *NAT) SetQuietGroup(ctx context.Context, group uint32) error {
	const op = "nat.SetQuietGroup"
	if err := checkQuietGroup(group); err != nil {
		return n.fail(op, quietSubject(group), err)
	}
	return n.transact(ctx, op, &quietTx{group: group})
}

// quietTx sets the group whose ports are quiet.
type quietTx struct {
	tableTx
	group uint32
}

func (tx *quietTx) subject() string { return quietSubject(tx.group) }

// table returns the batch that adds the bridge table, in place of the present one with replace set.
func (tx *quietTx) table(replace bool) *nft.Batch {
	b := nft.NewBatch(tx.n.table + quietSuffix)
	b.In(unix.NFPROTO_BRIDGE)
	if replace {
		b.DeleteTable()
	}
	b.AddTable(quietComment)
	const chain = "reports"
	b.AddChain(nft.Chain{Name: chain, Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: -300})
	group := eq(host32(tx.group)...)
	b.AddRule(chain, rule(protocol(etherIPv6), exprs{meta(expr.MetaKeyIIFGROUP, regA), group, meta(expr.MetaKeyOIFGROUP, regA), group},
		icmp6(icmp6ListenerReport, icmp6ListenerDone, icmp6ListenerReport2).any(b), drop())...)
	return b
}

// Build returns the batch that replaces the table, and none where it is there already.
func (tx *quietTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	if err := tx.n.checkOwned(ctx, tx.c); err != nil {
		return nil, err
	}
	there, err := tx.n.ownsQuietTable(ctx, tx.c)
	if err != nil {
		return nil, err
	}
	if there {
		if held, err := tx.Committed(ctx); held || err != nil {
			return nil, err
		}
	}
	return tx.table(there), nil
}

// Committed reports whether the table is there and as wanted.
func (tx *quietTx) Committed(ctx context.Context) (bool, error) {
	return tx.c.In(unix.NFPROTO_BRIDGE).Holds(ctx, tx.table(false))
}

func (tx *quietTx) explain(ctx context.Context, err error) error {
	var refused *nft.Error
	if errors.As(err, &refused) {
		switch refused.Err.Errno {
		case unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
			return refuse.As(errors.ErrUnsupported, "the kernel refuses %v: this needs the family bridge of nftables (CONFIG_NF_TABLES_BRIDGE)", refused)
		}
	}
	return tx.n.explain(ctx, tx.c, err)
}

// ownsQuietTable reports whether the table is there. One that is not ours is an error.
func (n *NAT) ownsQuietTable(ctx context.Context, c nft.Conn) (bool, error) {
	comment, err := c.In(unix.NFPROTO_BRIDGE).TableComment(ctx, n.table+quietSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil && comment != quietComment {
		err = refuse.As(os.ErrExist, "a table of that name is there and is of no quiet group (its comment is %q)", comment)
	}
	if err != nil {
		return false, fmt.Errorf("table bridge %s%s: %w", n.table, quietSuffix, err)
	}
	return true, nil
}

// deleteQuietTable deletes the table, if it is there and ours.
func (n *NAT) deleteQuietTable(ctx context.Context, c nft.Conn, b *nft.Batch) error {
	there, err := n.ownsQuietTable(ctx, c)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if there {
		b.Of(n.table + quietSuffix)
		b.In(unix.NFPROTO_BRIDGE)
		b.DeleteTable()
		b.In(unix.NFPROTO_INET)
		b.Of(n.table)
	}
	return err
}
