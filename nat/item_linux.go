package nat

import (
	"context"

	"github.com/boxwire/boxwire/internal/nft"
)

// An item is an element with the set that it belongs in: a piece of the table's
// state.
type item struct {
	set  string
	elem nft.Element
}

// A place is what an element takes of its set: there is one at most.
type place struct{ set, key, end string }

func (it item) place() place {
	return place{it.set, string(it.elem.Key), string(it.elem.KeyEnd)}
}

// addItems adds the items' elements, in the order of the skeleton's sets.
func addItems(b *nft.Batch, items []item) { eachSet(items, b.AddElements) }

// deleteItems deletes the items' elements by their keys.
func deleteItems(b *nft.Batch, items []item) { eachSet(items, b.DeleteElements) }

func eachSet(items []item, fn func(set string, elems ...nft.Element)) {
	bySet := make(map[string][]nft.Element)
	for _, it := range items {
		bySet[it.set] = append(bySet[it.set], it.elem)
	}
	for _, s := range skeletonSets() {
		if elems := bySet[s.Name]; elems != nil {
			fn(s.Name, elems...)
		}
	}
}

// readItems reads the items of those sets of the table that are wanted.
func (n *NAT) readItems(ctx context.Context, c nft.Conn, want func(set string) bool) (items []item, err error) {
	for _, s := range skeletonSets() {
		if !want(s.Name) {
			continue
		}
		elems, err := c.Elements(ctx, n.table, s.Name)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			items = append(items, item{s.Name, e})
		}
	}
	return items, nil
}
