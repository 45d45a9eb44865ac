package nat

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// The source of each packet that the host receives is looked up among the subnets of all networks, which are
// intervals of a concatenation. That takes several times as long as a lookup in a hash table, and longer
// with each network. So the first 16 bits of the addresses of all subnets are elements, too: a packet whose
// source begins otherwise, as most from outside do, is in no subnet. A source from outside that begins
// alike takes a lookup more than without them. Networks share these elements.
//
// A subnet that has none is not guarded. They are in a hash table, so that they come into force with the
// rules and never after the intervals, and one goes only if no network needs it.

// coverBits is how many bits of an address an element has.
const coverBits = 16

// covered matches sources that begin as addresses of a subnet do.
func (f *family46) covered() exprs {
	return rule(f.match(), exprs{f.saddr(), masked(maskOf(f, coverBits)), in(f.cover)})
}

// coverItems returns the elements for the subnets that the items are of, each once.
func coverItems(items []item) (all []item, err error) {
	known := make(map[setKey]bool)
	for _, it := range items {
		f := familyOfSet(it.set)
		if it.set != f.nets {
			continue
		}
		r, err := decodeRange(it, len(f.etherType()))
		if err != nil {
			return nil, err
		}
		last := binary.BigEndian.Uint16(r.last.AsSlice())
		for v := binary.BigEndian.Uint16(r.first.AsSlice()); ; v++ {
			e := nft.Element{Key: make([]byte, f.unspecified().BitLen()/8)}
			binary.BigEndian.PutUint16(e.Key, v)
			if c := (item{f.cover, e}); !known[c.setKey()] {
				known[c.setKey()] = true
				all = append(all, c)
			}
			if v == last {
				break
			}
		}
	}
	return all, nil
}

// coverNetwork adds to the batch the change of these elements, for a network whose items change. An element
// stays as long as another network needs it.
func (n *NAT) coverNetwork(ctx context.Context, c nft.Conn, b *nft.Batch, iface string, had, want []item) error {
	need, err := coverItems(want)
	if err != nil {
		return err
	}
	gone, err := coverItems(had)
	if err != nil {
		return err
	}
	if gone = replaceItems(gone, need, nil); len(gone) > 0 {
		others, err := n.readItems(ctx, c, families[0].nets, families[1].nets)
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(others, func(it item) bool { return it.network() == iface })
		if others, err = coverItems(others); err != nil {
			return err
		}
		gone = replaceItems(gone, others, nil)
	}
	var ask []nft.Query
	for _, it := range slices.Concat(gone, need) {
		ask = append(ask, nft.Query{Set: it.set, Key: it.elem.Key})
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	if err != nil {
		return err
	}
	var there []item
	for i, e := range found {
		if e != nil {
			there = append(there, item{ask[i].Set, *e})
		}
	}
	changeItems(b, there, need)
	return nil
}
