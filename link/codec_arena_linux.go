package link

import "strings"

// maxArena is the size that the blocks of an arena grow to, in bytes: one thing that
// is kept keeps its block.
const maxArena = 4096

// arena keeps the hardware addresses of a list in few allocations.
type arena []byte

// keep copies b; what it returns cannot grow into its neighbour.
func (a *arena) clone(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(*a)+len(b) > cap(*a) {
		*a = make([]byte, 0, max(min(2*cap(*a), maxArena), len(b)))
	}
	n := len(*a)
	*a = append(*a, b...)
	return (*a)[n:len(*a):len(*a)]
}

// names keeps the names of a list likewise.
type names struct{ b strings.Builder }

func (n *names) clone(b []byte) string {
	if n.b.Len()+len(b) > n.b.Cap() {
		size := max(min(2*n.b.Cap(), maxArena), len(b))
		n.b.Reset() // the names that were returned keep what they lie in
		n.b.Grow(size)
	}
	at := n.b.Len()
	n.b.Write(b)
	return n.b.String()[at:]
}
