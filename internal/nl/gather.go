package nl

// Gather collects the items of a table whose length nobody knows beforehand. It
// keeps them in pieces that are never moved, so that a long list costs one copy
// at the end and not one at every growth. The zero Gather is ready for use.
type Gather[T any] struct {
	full [][]T
	last []T
}

// Limits of a piece, in items: a short list takes little, a long one few pieces.
const (
	firstPiece = 16
	lastPiece  = 1024
)

// Next returns the place for one more item, which is zero.
func (g *Gather[T]) Next() *T {
	if len(g.last) == cap(g.last) {
		size := firstPiece
		if g.last != nil {
			g.full = append(g.full, g.last)
			size = min(2*cap(g.last), lastPiece)
		}
		g.last = make([]T, 0, size)
	}
	g.last = g.last[:len(g.last)+1]
	return &g.last[len(g.last)-1]
}

// Drop takes back the last place that Next returned.
func (g *Gather[T]) Drop() {
	var zero T
	g.last[len(g.last)-1] = zero
	g.last = g.last[:len(g.last)-1]
}

// Reset forgets all items.
func (g *Gather[T]) Reset() { *g = Gather[T]{} }

// All returns the items in their order; nil if there are none. The Gather is of
// no use afterwards.
func (g *Gather[T]) All() []T {
	if len(g.full) == 0 {
		return g.last
	}
	n := len(g.last)
	for _, p := range g.full {
		n += len(p)
	}
	all := make([]T, 0, n)
	for _, p := range g.full {
		all = append(all, p...)
	}
	return append(all, g.last...)
}
