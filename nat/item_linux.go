package nat

import "github.com/boxwire/boxwire/internal/nft"

// An item is an element with the set that it belongs in: a piece of the table's
// state.
type item struct {
	set  string
	elem nft.Element
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
