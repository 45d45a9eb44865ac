package nat

import (
	"context"
	"iter"
	"slices"

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
func addItems(b *nft.Batch, items []item) { eachSet(items, b.AddEach) }

// deleteItems deletes the items' elements by their keys.
func deleteItems(b *nft.Batch, items []item) { eachSet(items, b.DeleteEach) }

func eachSet(items []item, fn func(set string, elems iter.Seq[*nft.Element])) {
	for _, set := range setsOf(items, func(it *item) string { return it.set }) {
		fn(set, func(yield func(*nft.Element) bool) {
			for i := range items {
				if items[i].set == set && !yield(&items[i].elem) {
					return
				}
			}
		})
	}
}

// setsOf are the sets that things belong in, of the few that there are, in the order
// of the skeleton's.
func setsOf[T any](all []T, of func(*T) string) []string {
	var sets []string
	for i := range all {
		if set := of(&all[i]); !slices.Contains(sets, set) {
			sets = append(sets, set)
		}
	}
	slices.SortFunc(sets, func(a, b string) int { return slices.Index(setNames, a) - slices.Index(setNames, b) })
	return sets
}

// setNames are the names of the skeleton's sets, in their order.
var setNames = func() (names []string) {
	for _, s := range skeletonSets() {
		names = append(names, s.Name)
	}
	return names
}()

// readItems reads the items of those sets of the table that are wanted.
func (n *NAT) readItems(ctx context.Context, c nft.Conn, want func(set string) bool) (items []item, err error) {
	for _, set := range setNames {
		if !want(set) {
			continue
		}
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
