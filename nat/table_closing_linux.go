package nat

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/nft"
)

// A packet is translated by one hook and judged by a later one, and since Linux 6.17 the elements of
// interval sets go when the rest of their transaction is in force already. So a transaction that
// closes a port or a pinhole, and makes a policy wider, would let through what was denied before and
// is closed after. Such a change is two transactions: the first one closes what goes, and no more.

// A closing is what the first of two transactions closes.
type closing struct {
	items []item // what it deletes
	more  bool   // its batch is the one that is being committed
	done  bool   // it was committed
}

// closeAhead returns the batch that closes what goes from the table, if a policy goes with it. It
// returns nil if there is nothing to close, or it is closed already.
func (tx *tableTx) closeAhead(have, want []item) *nft.Batch {
	c := &tx.closing
	if c.done {
		return nil
	}
	*c = closing{}
	wanted := byKey(want)
	wider := false
	for _, it := range have {
		e, stays := wanted[it.setKey()]
		switch {
		case stays && e.Equal(&it.elem):
		case opens(it.set) && !(stays && string(e.Data) == string(it.elem.Data)):
			c.items = append(c.items, it)
		case kindOf(it.set) == kindPolicy, it.set == "strict", it.set == "internal":
			wider = true
		}
	}
	if !wider || len(c.items) == 0 {
		*c = closing{}
		return nil
	}
	c.more = true
	b := nft.NewBatch(tx.n.table)
	deleteItems(b, c.items)
	return b
}

// opens reports whether an element of a set lets packets reach a box, or belongs to one that does.
func opens(set string) bool {
	for _, f := range families {
		switch set {
		case f.pub, f.any, f.rng, f.own, f.owns, f.route, f.echo, f.trusted:
			return true
		}
	}
	return false
}

// next reports whether the batch that was committed is the first of two.
func (tx *tableTx) next() bool {
	first := tx.closing.more
	tx.closing.more = false
	tx.closing.done = tx.closing.done || first
	return first
}

// closedAhead reports whether what the first batch closes is gone. ask is false for another batch.
func (tx *tableTx) closedAhead(ctx context.Context) (gone, ask bool, err error) {
	if !tx.closing.more {
		return false, false, nil
	}
	var queries []nft.Query
	for _, it := range tx.closing.items {
		queries = append(queries, nft.Query{Set: it.set, Key: it.elem.Key})
	}
	found, err := tx.c.Lookup(ctx, tx.n.table, queries...)
	for _, e := range found {
		if e != nil {
			return false, true, err
		}
	}
	return err == nil, true, err
}

// reopen puts back what was closed ahead, because the transaction that follows was refused. If
// it is unknown whether it was, what is closed stays closed.
func (tx *tableTx) reopen(ctx context.Context, cause error) error {
	if !tx.closing.done || errors.Is(cause, nft.ErrUnknown) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	var ports []item
	for _, it := range tx.closing.items {
		if isPortSet(it.set) {
			ports = append(ports, it)
		}
	}
	err := tx.c.Commit(ctx, tx.n.table, nft.BuildFunc(func(context.Context) (*nft.Batch, error) {
		b := nft.NewBatch(tx.n.table)
		addItems(b, tx.closing.items)
		return b, nil
	}))
	if err == nil {
		var again []Port
		if again, err = decodeItems(ports); err == nil {
			err = tx.n.flush(ctx, nil, again) // what began meanwhile is not translated
		}
	}
	if err != nil {
		// Not wrapped: it says nothing about why the call failed.
		err = fmt.Errorf("what was closed ahead of it could not be put back whole: %v", err)
	}
	return err
}
