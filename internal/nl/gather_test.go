package nl

import "testing"

func TestGatherKeepsOrderAndPlaces(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, firstPiece, firstPiece + 1, 3*lastPiece + 5} {
		var g Gather[int]
		g.Next()
		g.Reset()
		var first *int
		for i := range n {
			p := g.Next()
			if *p != 0 {
				t.Fatalf("place %d of %d holds %d", i, n, *p)
			}
			*p = i + 1
			if i == 0 {
				first = p
			}
			*g.Next() = -1 // taken back again
			g.Drop()
		}
		if n > 0 && *first != 1 {
			t.Errorf("the first of %d places has moved", n)
		}
		all := g.All()
		if len(all) != n || n == 0 && all != nil {
			t.Fatalf("All returns %d items, want %d", len(all), n)
		}
		for i, v := range all {
			if v != i+1 {
				t.Fatalf("item %d of %d is %d", i, n, v)
			}
		}
	}
}
