package link

import (
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestSyncNeighboursAllocs(t *testing.T) {
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	list := manyNeighbours(1000)
	sync := func() {
		if _, err := l.SyncNeighbours(ctx, syncOwner, list...); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	if n := allocs.PerRun(t, 10, sync); n > 100 {
		t.Errorf("%v allocations where 1,000 entries are right, want at most 100", n)
	}
}

// 10,000 entries are made and taken away: by one sync, by one AddNeighbours and DeleteNeighbours, and
// by a call for each.
func BenchmarkSyncNeighbours(b *testing.B) {
	ctx := b.Context()
	list := manyNeighbours(10000)
	setup := func(b *testing.B) Link {
		return mustCreate(b, netnstest.New(b), Spec{Name: "br0", Kind: Bridge{}})
	}
	check := func(b *testing.B, err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Sync", func(b *testing.B) {
		l := setup(b)
		for b.Loop() {
			_, err := l.SyncNeighbours(ctx, syncOwner, list...)
			check(b, err)
			_, err = l.SyncNeighbours(ctx, syncOwner)
			check(b, err)
		}
	})
	b.Run("Add in one call", func(b *testing.B) {
		l := setup(b)
		for b.Loop() {
			check(b, l.AddNeighbours(ctx, list...))
			check(b, l.DeleteNeighbours(ctx, list...))
		}
	})
	b.Run("Add one by one", func(b *testing.B) {
		l := setup(b)
		for b.Loop() {
			for i := range list {
				check(b, l.AddNeighbours(ctx, list[i]))
			}
			for i := range list {
				check(b, l.DeleteNeighbours(ctx, list[i]))
			}
		}
	})
	b.Run("Sync of no difference", func(b *testing.B) {
		l := setup(b)
		_, err := l.SyncNeighbours(ctx, syncOwner, list...)
		check(b, err)
		for b.Loop() {
			_, err := l.SyncNeighbours(ctx, syncOwner, list...)
			check(b, err)
		}
	})
	b.Run("Sync of a hundred changed", func(b *testing.B) {
		l := setup(b)
		_, err := l.SyncNeighbours(ctx, syncOwner, list...)
		check(b, err)
		list, n := slices.Clone(list), byte(0)
		for b.Loop() {
			n++
			for i := range 100 {
				list[i*100].MAC = mac(n)
			}
			_, err := l.SyncNeighbours(ctx, syncOwner, list...)
			check(b, err)
		}
	})
}
