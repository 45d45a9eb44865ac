package nat

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// An item is an element with the name of its set.
type item struct {
	set  string
	elem nft.Element
}

// A setKey identifies an element in the table: its set and key.
type setKey struct{ set, key, end string }

func (it item) setKey() setKey {
	return setKey{it.set, string(it.elem.Key), string(it.elem.KeyEnd)}
}

// byKey returns the elements of the items by their keys.
func byKey(items []item) map[setKey]nft.Element {
	m := make(map[setKey]nft.Element, len(items))
	for _, it := range items {
		m[it.setKey()] = it.elem
	}
	return m
}

// addItems adds the items' elements, in the order of the skeleton's sets.
func addItems(b *nft.Batch, items []item) {
	for _, set := range setsOf(items) {
		b.AddEach(set, elementsIn(set, items))
	}
}

// deleteItems deletes the items' elements by their keys.
func deleteItems(b *nft.Batch, items []item) {
	for _, set := range setsOf(items) {
		b.DeleteEach(set, elementsIn(set, items))
	}
}

// elementsIn are the elements of the items of a set.
func elementsIn(set string, items []item) iter.Seq[*nft.Element] {
	return func(yield func(*nft.Element) bool) {
		for i := range items {
			if items[i].set == set && !yield(&items[i].elem) {
				return
			}
		}
	}
}

// setsOf returns the sets of the items, in the order of the skeleton.
func setsOf(lists ...[]item) []string {
	var sets []string
	for _, items := range lists {
		for i := range items {
			if set := items[i].set; !slices.Contains(sets, set) {
				sets = append(sets, set)
			}
		}
	}
	sortSets(sets)
	return sets
}

// sortSets sorts sets in the order of the skeleton.
func sortSets(sets []string) {
	slices.SortFunc(sets, func(a, b string) int { return setOrder()[a] - setOrder()[b] })
}

// setOrder is the place of each set in that order, with those of policies and guards at the end.
var setOrder = sync.OnceValue(func() map[string]int {
	order := make(map[string]int)
	for i, name := range slices.Concat(setNames(), policySetNames(), guardSetNames()) {
		order[name] = i
	}
	return order
})

// readSomeItems is readItems where sets may be missing.
func (n *NAT) readSomeItems(ctx context.Context, c nft.Conn, sets ...string) (items []item, err error) {
	for _, set := range sets {
		elems, err := n.readItems(ctx, c, set)
		if err = netns.IgnoreNotExist(err); err != nil {
			return nil, err
		}
		items = append(items, elems...)
	}
	return items, nil
}

// setNames are the names of the skeleton's sets, in their order.
var setNames = sync.OnceValue(func() (names []string) {
	for _, s := range skeletonSets() {
		names = append(names, s.Name)
	}
	return names
})

// readItems reads the items of the given sets.
func (n *NAT) readItems(ctx context.Context, c nft.Conn, sets ...string) (items []item, err error) {
	for _, set := range sets {
		elems, err := c.Elements(ctx, n.table, set)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			items = append(items, item{set, e})
		}
	}
	return items, nil
}
