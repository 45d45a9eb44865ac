package nat

import (
	"context"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// portsTx has what all transactions about published ports share: elements to delete, ports to add,
// and what follows from both.
type portsTx struct {
	tableTx
	del  []item // elements of published ports to delete
	gone []Port // the ports that they are
	add  []Port // to publish

	refs     refChange      // the counts that change
	reserved *reservedPorts // nil without long ranges
	fault    Port           // the port that an error is about, if it is one port's
}

func (tx *portsTx) subject() string {
	switch {
	case tx.fault != (Port{}):
		return tx.fault.String()
	case len(tx.add) > 0:
		return portsSubject(tx.add)
	}
	return portsSubject(tx.gone)
}

// batch returns the batch that changes the ports. counts are the first reference counts, which were
// read already.
func (tx *portsTx) batch(ctx context.Context, counts []*nft.Element) (*nft.Batch, error) {
	counts, err := tx.refs.read(ctx, tx.c, tx.n.table, counts)
	if err != nil {
		return nil, err
	}
	b := nft.NewBatch(tx.n.table)
	deleteItems(b, tx.del)
	deleteItems(b, ownItems(tx.gone))
	addPorts(b, tx.add)
	tx.refs.write(b, counts)
	if err := tx.changeRanges(ctx, b); err != nil {
		return nil, err
	}
	return b, tx.reserved.shrink(ctx)
}

// Rollback restores the sysctl with reserved ports.
func (tx *portsTx) Rollback(ctx context.Context) error {
	reserved := tx.reserved
	tx.reserved = nil
	return reserved.rollback(ctx)
}

// Committed reports whether the ports to add are published as given or, if there are none, those to
// delete are not.
func (tx *portsTx) Committed(ctx context.Context) (bool, error) {
	items := tx.del
	if len(tx.add) > 0 {
		items = portItems(tx.add)
	}
	found, err := tx.c.Lookup(ctx, tx.n.table, queries(items)...)
	if err != nil {
		return false, netns.IgnoreNotExist(err)
	}
	for i, e := range found {
		if there := e != nil && e.Equal(&items[i].elem); there != (len(tx.add) > 0) {
			return false, nil
		}
	}
	return true, nil
}

// queries returns the lookups of the items' keys. For a range it looks up the first port.
func queries(items []item) []nft.Query {
	q := make([]nft.Query, len(items), 2*len(items)) // with room for their reference counts
	for i, it := range items {
		q[i] = nft.Query{Set: it.set, Key: it.elem.Key}
	}
	return q
}
