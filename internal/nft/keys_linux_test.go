package nft

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// numbered are the keys from i on, up to j, that manyElements gives to elements.
func numbered(i, j int) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		key := make([]byte, 4) // one for all
		for ; i < j; i++ {
			copy(key, []byte{10, 0, byte(i >> 8), byte(i)})
			if !yield(i, key) {
				return
			}
		}
	}
}

// countedElements makes a namespace with n elements as manyElements does. It skips the test where the kernel
// does not say how many elements a set has.
func countedElements(t testing.TB, n int) (*netns.NS, Conn) {
	t.Helper()
	ns := netnstest.New(t)
	c := conn(t, ns)
	manyElements(t, c, n)
	count, err := c.count(t.Context(), "ours", "s")
	if err != nil {
		t.Fatal(err)
	}
	if count < 0 {
		testutil.NeedKernel(t, 6, 16, "the number of a set's elements", errors.ErrUnsupported)
	}
	return ns, c
}

func TestEachOfReadsWhatElementsDoes(t *testing.T) {
	t.Parallel()
	const n = 1000
	_, c := countedElements(t, n)
	want, err := c.Elements(t.Context(), "ours", "s")
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []int{n, n + 1, 2 * n} { // the set may lack some
		got := make([]Element, n)
		all, err := c.EachOf(t.Context(), "ours", "s", keys, numbered(0, keys), func(i int, e *Element) error {
			got[i] = e.Clone()
			if e.Comment != fmt.Sprint(i) {
				t.Errorf("element %d is %v", i, e)
			}
			return nil
		})
		slices.SortFunc(got, func(a, b Element) int { return slices.Compare(a.Key, b.Key) })
		slices.SortFunc(want, func(a, b Element) int { return slices.Compare(a.Key, b.Key) })
		if !all || err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("with %d keys: %t, %v, with the same elements: %t", keys, all, err, reflect.DeepEqual(got, want))
		}
	}
}

// Whatever else a set has, EachOf does not claim to have read it all.
func TestEachOfTellsThatThereAreOthers(t *testing.T) {
	t.Parallel()
	const n = 300
	ns, c := countedElements(t, n)
	ignore := func(int, *Element) error { return nil }
	for _, x := range []struct {
		what     string
		from, to int
		before   string
		each     func(int, *Element) error
		all      bool
	}{
		{"all keys", 0, n, "", ignore, true},
		{"all but the first", 1, n, "", ignore, false},
		{"one too many at the end, and the first missing", 1, n + 1, "", ignore, false},
		{"many more", 1, 2 * n, "", ignore, false},
		{"the others of one too few", 0, n - 1, "", ignore, false},
		{"a change meanwhile", 0, n, "", func(i int, _ *Element) error {
			if i == n/2 {
				testutil.Run(t, ns, "nft", "add table another")
			}
			return nil
		}, false},
		{"one for all keys", 0, n, "add element inet ours s { * }", ignore, false},
		{"that is gone", 0, n, "delete element inet ours s { * }", ignore, true},
	} {
		if x.before != "" {
			testutil.Run(t, ns, "nft", x.before)
		}
		all, err := c.EachOf(t.Context(), "ours", "s", x.to-x.from, numbered(x.from, x.to), x.each)
		if all != x.all || err != nil {
			t.Errorf("%s: %t, %v", x.what, all, err)
		}
	}
	called := false
	all, err := c.EachOf(t.Context(), "ours", "s", 3*n, numbered(0, 3*n), func(int, *Element) error { called = true; return nil })
	if all || called || err != nil {
		t.Errorf("of three times as many keys: %t, %v, an element came: %t", all, err, called)
	}
}

// While another program has one of the keys give way to another key, and the other way round, EachOf
// claims to have read all only where it has.
func TestEachOfAmongChanges(t *testing.T) {
	t.Parallel()
	const n = 300
	ns, c := countedElements(t, n)
	own, err := nsconn.Own(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	generation := func(c Conn) uint32 {
		gen, err := c.Generation(t.Context())
		if err != nil {
			t.Error(err)
		}
		return gen
	}
	exact := map[uint32]bool{generation(c): true}
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		other := New(own)
		for i := range 400 {
			gone, fresh := []byte{10, 0, 0, byte(i / 2)}, []byte{11, 0, 0, 1}
			if i%2 == 1 {
				gone, fresh = fresh, gone
			}
			err := other.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
				b := NewBatch("ours")
				b.DeleteElements("s", Element{Key: gone})
				b.AddElements("s", Element{Key: fresh})
				return b, nil
			}))
			if err != nil {
				t.Error(err)
				return
			}
			exact[generation(other)] = i%2 == 1
		}
	}()
	var claimed []uint32
	for going, tries := true, 0; going || tries < 10; tries++ {
		select {
		case <-changed:
			going = false
		default:
		}
		before := generation(c)
		all, err := c.EachOf(t.Context(), "ours", "s", n, numbered(0, n), func(int, *Element) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if all && generation(c) == before {
			claimed = append(claimed, before)
		}
	}
	<-changed
	for _, gen := range claimed {
		if !exact[gen] {
			t.Errorf("in generation %d, EachOf claims to have read all", gen)
		}
	}
	if len(claimed) == 0 {
		t.Error("EachOf never read all")
	}
}

func TestEachOfFails(t *testing.T) {
	t.Parallel()
	const n = 300
	_, c := countedElements(t, n)
	ignore := func(int, *Element) error { return nil }
	if all, err := c.EachOf(t.Context(), "ours", "no such set", n, numbered(0, n), ignore); all || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a missing set: %t, %v", all, err)
	}
	full := errors.New("full")
	if all, err := c.EachOf(t.Context(), "ours", "s", n, numbered(0, n), func(int, *Element) error { return full }); all || !errors.Is(err, full) {
		t.Errorf("with an error from each: %t, %v", all, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(int, *Element) error { cancel(); return nil }
	if all, err := c.EachOf(ctx, "ours", "s", n, numbered(0, n), stop); all || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ends: %t, %v", all, err)
	}
}
