package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
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

// linksOfOthers returns the links that networks of other tables of this library have, and whether one of these
// tables has the record of the global switch of IPv6.
func (n *NAT) linksOfOthers(ctx context.Context, c nft.Conn) (links map[string]bool, switched bool, err error) {
	tables, err := listTables(ctx, n.ns)
	if err != nil {
		return nil, false, err
	}
	links = make(map[string]bool)
	for _, t := range tables {
		if t.Name == n.table {
			continue
		}
		elems, err := c.Elements(ctx, t.Name, "ifs")
		if netns.IgnoreNotExist(err) != nil {
			return nil, false, err
		}
		for _, e := range elems {
			links[nameOf(e.Key)] = true
		}
		elems, err = c.Elements(ctx, t.Name, families[1].enabled)
		if netns.IgnoreNotExist(err) != nil {
			return nil, false, err
		}
		switched = switched || names(elems)[forwarding.All]
	}
	return links, switched, nil
}

// takeOver is handOver the other way round: it moves the records of this table's own networks' links here from
// other tables of this library. Such a link was there before its network, and was made to forward for
// another one's: that table takes it for a link of strangers, and drops what comes in by it. It
// follows the commit that added the networks. If it is killed in between, both tables have the
// record, and the next change of a network or [NAT.Maintain] goes on.
func (n *NAT) takeOver(ctx context.Context, c nft.Conn) error {
	tables, err := listTables(ctx, n.ns)
	if err != nil {
		return err
	}
	var own map[string]bool
	for _, t := range tables {
		if t.Name == n.table {
			continue
		}
		if own == nil {
			elems, err := c.Elements(ctx, n.table, "ifs")
			if err != nil {
				return err
			}
			own = names(elems)
		}
		if err := n.takeFrom(ctx, c, t.Name, own); err != nil {
			return fmt.Errorf("table inet %s: %w", t.Name, err)
		}
	}
	return nil
}

// takeFrom moves the records of the links from a table here.
func (n *NAT) takeFrom(ctx context.Context, c nft.Conn, table string, own map[string]bool) error {
	read := func(ctx context.Context, of *NAT) ([]item, error) {
		all, err := of.readSomeItems(ctx, c, "bridged", families[0].enabled, families[1].enabled)
		return slices.DeleteFunc(all, func(it item) bool { return !own[it.network()] }), err
	}
	from := &NAT{table: table}
	theirs, err := read(ctx, from)
	if err != nil || len(theirs) == 0 {
		return err
	}
	err = c.Commit(ctx, n.table, nft.BuildFunc(func(ctx context.Context) (*nft.Batch, error) {
		have, err := read(ctx, n)
		b := nft.NewBatch(n.table)
		changeItems(b, have, replaceItems(have, theirs, theirs)) // theirs are the older ones: they say what a link was at first
		return b, err
	}))
	if err != nil {
		return err
	}
	return c.Commit(ctx, table, nft.BuildFunc(func(ctx context.Context) (*nft.Batch, error) {
		all, err := read(ctx, from)
		b := nft.NewBatch(table)
		deleteItems(b, all)
		return b, err
	}))
}
