package nft

import (
	"context"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// After thousands were added, the kernel makes its hash table larger in the
// background: what is read meanwhile is each element once, all the same.
func TestAGrowingSetIsReadWhole(t *testing.T) {
	t.Parallel()
	c := conn(t, netnstest.New(t))
	err := c.Commit(t.Context(), func(context.Context) (*Batch, error) {
		b := table("ours")
		b.AddSet(Set{Name: "s", Key: []Field{{Type: 7, Len: 4, Order: 2}}})
		return b, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const step = 400 // several replies
	for n := step; n <= 20*step; n += step {
		err := c.Commit(t.Context(), func(context.Context) (*Batch, error) {
			b := NewBatch("ours")
			for i := n - step; i < n; i++ {
				b.AddElements("s", Element{Key: []byte{10, 0, byte(i >> 8), byte(i)}, Comment: strings.Repeat("x", 100)})
			}
			return b, nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			all, err := c.Elements(t.Context(), "ours", "s")
			seen := make(map[string]bool)
			for _, e := range all {
				seen[string(e.Key)] = true
			}
			if err != nil || len(all) != n || len(seen) != n {
				t.Fatalf("%d elements, %d of them different, %v; want %d", len(all), len(seen), err, n)
			}
		}
	}
}

func TestDistinctElements(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		all  []Element
		want bool
	}{
		{nil, true},
		{[]Element{{Key: []byte{1}}, {Key: []byte{2}}}, true},
		{[]Element{{Key: []byte{1}, Comment: "a"}, {Key: []byte{2}}, {Key: []byte{1}, Comment: "b"}}, false},
		{[]Element{{Key: []byte{5}, End: true}, {Key: []byte{5}}}, true},
		{[]Element{{Key: []byte{1}, KeyEnd: []byte{3}}, {Key: []byte{1}, KeyEnd: []byte{4}}}, true},
	} {
		if got := distinct(x.all); got != x.want {
			t.Errorf("%v: %v", x.all, got)
		}
	}
}
