package nat

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

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
	tables, err := listTables(ctx, n.ns)
	if err != nil {
		return r, err
	}
	for _, t := range tables {
		if t.Name == n.table {
			continue
		}
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
