package nat

import (
	"context"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Unpublish removes the ports in one transaction: all of them or none. Connections through them
// end: their conntrack entries are deleted, so their packets do not reach the box any more. A range
// is removed whole, as it was published.
//
// Errors: os.ErrNotExist for a port that is not published, or leads to another box;
// os.ErrPermission for a port of another owner; os.ErrInvalid for bad input.
func (n *NAT) Unpublish(ctx context.Context, ports ...Port) error {
	const op = "nat.Unpublish"
	if p, err := checkPorts(ports); err != nil {
		return n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil
	}
	return n.transact(ctx, op, &unpublishTx{portsTx{gone: ports}})
}

// unpublishTx removes ports.
type unpublishTx struct{ portsTx }

// Queries ask for the elements, because a delete in nftables ignores what the element
// holds. The generation makes reading and deleting one step.
func (tx *unpublishTx) Queries() []nft.Query {
	tx.del = portItems(tx.gone)
	tx.refs.add(tx.gone, -1)
	return tx.refs.queries(queries(tx.del))
}

// Build returns the batch that removes the ports.
func (tx *unpublishTx) Build(ctx context.Context, found []*nft.Element) (*nft.Batch, error) {
	at := 0
	for _, p := range tx.gone {
		for range p.singles() {
			if err := isHeld(tx.del[at], found[at]); err != nil {
				if gone := tx.n.gone(ctx, tx.c); gone != nil {
					return nil, gone
				}
				tx.fault = p
				return nil, err
			}
			at++
		}
	}
	return tx.batch(ctx, found[at:])
}

// finish ends the flows through the ports, and gives the ports back to other programs.
func (tx *unpublishTx) finish(ctx context.Context) error {
	err := tx.n.flush(ctx, tx.gone, nil)
	tx.n.release(expand(tx.gone), nil)
	return err
}

// isHeld checks that the element found is the one wanted.
func isHeld(want item, e *nft.Element) error {
	if e == nil || string(e.Key) != string(want.elem.Key) || string(e.KeyEnd) != string(want.elem.KeyEnd) {
		return refuse.As(os.ErrNotExist, "the port is not published")
	}
	held, err := decodeItem(item{want.set, *e})
	switch {
	case err != nil:
		return err
	case e.Comment != want.elem.Comment:
		return refuse.As(os.ErrPermission, "the port belongs to %q, not to %q", e.Comment, want.elem.Comment)
	case string(e.Data) != string(want.elem.Data):
		return refuse.As(os.ErrNotExist, "the host port leads to %v", held.Box)
	}
	return nil
}

// UnpublishOwner removes all ports of an owner in one transaction. Unlike [NAT.Unpublish], it reads
// all published ports.
//
// Errors: os.ErrNotExist for an owner without ports; os.ErrInvalid for bad input.
func (n *NAT) UnpublishOwner(ctx context.Context, owner string) error {
	const op = "nat.UnpublishOwner"
	tx := &unpublishOwnerTx{owner: owner}
	if err := checkOwner(owner); err != nil {
		return n.fail(op, tx.subject(), err)
	}
	return n.transact(ctx, op, tx)
}

// unpublishOwnerTx removes all ports of an owner.
type unpublishOwnerTx struct {
	unpublishTx
	owner string
}

func (tx *unpublishOwnerTx) subject() string { return fmt.Sprintf("owner %q", tx.owner) }

// Queries are none: which ports there are is not known yet.
func (tx *unpublishOwnerTx) Queries() []nft.Query { return nil }

// Build finds the ports, and returns the batch that removes them.
func (tx *unpublishOwnerTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	tx.del, tx.gone, tx.refs = nil, nil, refChange{}
	items, err := tx.n.readItems(ctx, tx.c, publishedSets...)
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		if it.elem.Comment == tx.owner {
			tx.del = append(tx.del, it)
		}
	}
	if len(tx.del) == 0 {
		return nil, refuse.As(os.ErrNotExist, "the owner has no port published")
	}
	if tx.gone, err = decodeItems(tx.del); err != nil {
		return nil, err
	}
	tx.refs.add(tx.gone, -1)
	return tx.batch(ctx, nil)
}
