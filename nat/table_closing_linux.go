package nat

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/nft"
)

// A packet is translated by one hook and judged by a later one, and since Linux 6.17 the elements of
// interval sets go when the rest of their transaction is in force already. So a transaction that closes a
// port or a pinhole, and makes a policy wider, would let through what was denied before and is closed
// after. Such a change is two transactions: the first one closes what goes, and no more.

// closing returns the batch that closes what goes from the table, if a policy goes with it. It returns nil
// if there is nothing to close, or it is closed already.
func (tx *tableTx) closing(have, want []item) *nft.Batch {
	if len(tx.closed) > 0 {
		return nil
	}
	wanted := byKey(want)
	wider := false
	for _, it := range have {
		if e, ok := wanted[it.setKey()]; ok && e.Equal(&it.elem) {
			continue
		}
		switch {
		case opens(it.set):
			tx.closed = append(tx.closed, it)
		case kindOf(it.set) == kindPolicy:
			wider = true
		}
	}
	if !wider || len(tx.closed) == 0 {
		tx.closed = nil
		return nil
	}
	tx.more = true
	b := nft.NewBatch(tx.n.table)
	deleteItems(b, tx.closed)
	return b
}

// opens reports whether an element of a set lets packets reach a box.
func opens(set string) bool {
	for _, f := range families {
		switch set {
		case f.pub, f.any, f.rng, f.route, f.echo, f.trusted:
			return true
		}
	}
	return false
}

// next reports whether another transaction has to follow the one that was committed.
func (tx *tableTx) next() bool {
	more := tx.more
	tx.more = false
	return more
}

// reopen puts back what closing has taken away, because of an error of the transaction that follows.
func (tx *tableTx) reopen(ctx context.Context, cause error) error {
	if len(tx.closed) == 0 || tx.more {
		return cause
	}
	err := tx.c.Commit(ctx, tx.n.table, nft.BuildFunc(func(context.Context) (*nft.Batch, error) {
		b := nft.NewBatch(tx.n.table)
		addItems(b, tx.closed)
		return b, nil
	}))
	if err != nil {
		cause = errors.Join(cause, fmt.Errorf("putting back what was closed ahead of it: %w", err))
	}
	return cause
}
