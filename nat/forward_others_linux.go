package nat

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// otherTables returns the tables of this library but this one.
func (n *NAT) otherTables(ctx context.Context) ([]Table, error) {
	tables, err := listTables(ctx, n.ns)
	return slices.DeleteFunc(tables, func(t Table) bool { return t.Name == n.table }), err
}

// handOver moves the records of links that networks of another table of this library need to that
// table, and returns the others: the program whose networks go last restores the links. A table
// records what it has changed itself, so the one that came second knows nothing of the links that
// the first has made to forward.
//
// The caller deletes the records here afterwards. If it is killed in between, both tables have them.
func (n *NAT) handOver(ctx context.Context, c nft.Conn, r records) (records, error) {
	if len(r.items) == 0 {
		return r, nil
	}
	tables, err := n.otherTables(ctx)
	if err != nil {
		return r, err
	}
	for _, t := range tables {
		o := &other{table: t.Name, c: c, offered: r.items}
		err := c.Commit(ctx, t.Name, nft.BuildFunc(o.build))
		switch {
		case errors.Is(err, os.ErrNotExist): // gone meanwhile, or of a version without such a set
		case err != nil:
			return r, err
		default:
			r.items = slices.DeleteFunc(slices.Clone(r.items), o.needs)
		}
	}
	return r, nil
}

// other is a table of another program that may need records.
type other struct {
	table   string
	c       nft.Conn
	offered []item

	four, six bool // it has networks of the family
}

// needs reports whether the table's networks need what a record is about: route_localnet is of a
// network's own link.
func (o *other) needs(it item) bool {
	switch it.set {
	case families[0].enabled:
		return o.four
	case families[1].enabled:
		return o.six
	}
	return it.set == "bridged" && (o.four || o.six)
}

// build returns the batch that adds the records that the table needs and does not have.
func (o *other) build(ctx context.Context) (*nft.Batch, error) {
	reader := &NAT{table: o.table}
	b := nft.NewBatch(o.table)
	nets, err := reader.readItems(ctx, o.c, families[0].nets, families[1].nets)
	if err != nil {
		return nil, err
	}
	o.four = slices.ContainsFunc(nets, func(it item) bool { return it.set == families[0].nets })
	o.six = slices.ContainsFunc(nets, func(it item) bool { return it.set == families[1].nets })
	if !o.four && !o.six {
		return b, nil
	}
	have, err := reader.readItems(ctx, o.c, recordSets...)
	if err != nil {
		return nil, err
	}
	for _, it := range o.offered {
		same := func(h item) bool { return h.setKey() == it.setKey() }
		if o.needs(it) && !slices.ContainsFunc(have, same) {
			addItems(b, []item{it})
		}
	}
	return b, nil
}

// takeOver moves the records of the links of this table's networks from other tables to this one. A
// table drops what comes in by a link that it has made to forward and goes past its own boxes. So a
// table that has made the links of all bridges forward would keep in the boxes of every other table.
// This table checks what comes in by them, and hands the records over when its networks go.
func (n *NAT) takeOver(ctx context.Context, c nft.Conn) error {
	tables, err := n.otherTables(ctx)
	if err != nil || len(tables) == 0 {
		return err
	}
	return n.run(ctx, c, &takeOverTx{tables: tables})
}

// takeOverTx moves the records in one transaction.
type takeOverTx struct {
	tableTx
	tables []Table
	added  []item
}

// finish remembers the records.
func (tx *takeOverTx) finish(context.Context) error {
	tx.n.learn(nil, tx.added)
	return nil
}

// Build returns the batch that deletes the records in the other tables, and adds those that this table
// lacks.
func (tx *takeOverTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	own, err := tx.n.readRecords(ctx, tx.c)
	if err != nil {
		return nil, err
	}
	have := byKey(own.items)
	tx.added = nil
	b := nft.NewBatch(tx.n.table)
	for _, t := range tx.tables {
		o := &NAT{table: t.Name}
		theirs, err := o.readSomeItems(ctx, tx.c, families[0].enabled, families[1].enabled)
		if err != nil {
			return nil, err
		}
		theirs = slices.DeleteFunc(theirs, func(it item) bool { return !own.nets[it.network()] })
		b.Of(t.Name)
		deleteItems(b, theirs)
		b.Of(tx.n.table)
		for _, it := range theirs {
			// Theirs is the older record: it says what the link was at first.
			e, there := have[it.setKey()]
			if there && !e.Equal(&it.elem) {
				deleteItems(b, []item{it})
				there = false
			}
			if !there {
				tx.added = append(tx.added, it)
				have[it.setKey()] = it.elem
			}
		}
	}
	addItems(b, tx.added)
	return b, nil
}

// Committed reports whether the other tables have no such records.
func (tx *takeOverTx) Committed(ctx context.Context) (bool, error) {
	now := &takeOverTx{tableTx: tx.tableTx, tables: tx.tables}
	b, err := now.Build(ctx, nil)
	return err == nil && b.Len() == 0, err
}

// explain ignores that a table is gone.
func (tx *takeOverTx) explain(_ context.Context, err error) error {
	return netns.IgnoreNotExist(err)
}

// othersSwitch reports whether another table of this library has set the global switch of IPv6.
func (n *NAT) othersSwitch(ctx context.Context, c nft.Conn) (bool, error) {
	tables, err := n.otherTables(ctx)
	for _, t := range tables {
		o := &NAT{table: t.Name}
		items, err := o.readSomeItems(ctx, c, families[1].enabled)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(items, isSwitch) {
			return true, nil
		}
	}
	return false, err
}

// isSwitch reports whether an item is the record of that switch.
func isSwitch(it item) bool {
	return it.set == families[1].enabled && it.network() == forwarding.All
}

// linksOfOthers returns the links that networks of other tables of this library have.
func (n *NAT) linksOfOthers(ctx context.Context, c nft.Conn) (map[string]bool, error) {
	tables, err := listTables(ctx, n.ns)
	if err != nil {
		return nil, err
	}
	links := make(map[string]bool)
	for _, t := range tables {
		if t.Name == n.table {
			continue
		}
		elems, err := c.Elements(ctx, t.Name, "ifs")
		if netns.IgnoreNotExist(err) != nil {
			return nil, err
		}
		for _, e := range elems {
			links[nameOf(e.Key)] = true
		}
	}
	return links, nil
}
