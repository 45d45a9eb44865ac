package nft

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// manyElements makes the sets s and t with n elements each and returns queries for
// half of those, twice, and for as many that are not there.
func manyElements(t testing.TB, c Conn, n int) []Query {
	t.Helper()
	var elems []Element
	var ask []Query
	for i := range n {
		k := []byte{10, 0, byte(i >> 8), byte(i)}
		elems = append(elems, Element{Key: k, Comment: fmt.Sprint(i)})
		if i%2 == 0 {
			no := []byte{11, 0, byte(i >> 8), byte(i)}
			ask = append(ask, Query{"s", k}, Query{"t", no}, Query{"s", k}, Query{"t", k}, Query{"no such set", k})
		}
	}
	err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := table("ours")
		for _, name := range []string{"s", "t"} {
			b.AddSet(Set{Name: name, Key: []Field{{Type: 7, Len: 4, Order: 2}}})
			b.AddElements(name, elems...)
		}
		return b, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return ask
}

// After thousands were added, the kernel makes its hash table larger in the
// background: what is read meanwhile is each element once, all the same.
func TestAGrowingSetIsReadWhole(t *testing.T) {
	t.Parallel()
	c := conn(t, netnstest.New(t))
	err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := table("ours")
		b.AddSet(Set{Name: "s", Key: []Field{{Type: 7, Len: 4, Order: 2}}})
		return b, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	const step = 400 // several replies
	for n := step; n <= 20*step; n += step {
		err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
			b := NewBatch("ours")
			for i := n - step; i < n; i++ {
				b.AddElements("s", Element{Key: []byte{10, 0, byte(i >> 8), byte(i)}, Comment: strings.Repeat("x", 100)})
			}
			return b, nil
		}))
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
		var seen places
		seen.reset()
		for i := range x.all {
			seen.add(&x.all[i])
		}
		if got := !seen.twice; got != x.want {
			t.Errorf("%v: %v", x.all, got)
		}
	}
}

func TestSelectAnswersAsLookupDoes(t *testing.T) {
	t.Parallel()
	c := conn(t, netnstest.New(t))
	ask := manyElements(t, c, 1000)
	want, err := c.Lookup(t.Context(), "ours", ask...)
	if err != nil || want[0] == nil || want[1] != nil || want[4] != nil || want[0].Comment != "0" {
		t.Fatalf("Lookup: %v, %v", want[:5], err)
	}
	got, read, err := c.Select(t.Context(), "ours", ask...)
	if err != nil || read != 2000 || !reflect.DeepEqual(got, want) {
		t.Errorf("Select differs after %d elements, %v", read, err)
	}
	if got, read, err := c.Select(t.Context(), "no such table", ask[:5]...); err != nil || read != 0 || got[0] != nil {
		t.Errorf("without the table: %v after %d elements, %v", got, read, err)
	}
	if got, read, err := c.Select(t.Context(), "ours"); err != nil || len(got) != 0 || read != 0 {
		t.Errorf("without queries: %v, %v", got, err)
	}
}

// asking is a transaction with queries, which counts its builds and what undoes them.
type asking struct {
	ask           []Query
	build         func(found []*Element) (*Batch, error)
	tries, undone int
}

func (a *asking) Queries() []Query { return a.ask }

func (a *asking) Build(_ context.Context, found []*Element) (*Batch, error) {
	a.tries++
	return a.build(found)
}

func (a *asking) Committed(context.Context) (bool, error) { return false, errors.New("not asked") }

func (a *asking) Rollback(context.Context) error { a.undone++; return nil }

// What a build has found is from behind the generation that its batch names, whether it
// asks for few elements or many. What is not committed is rolled back.
func TestWhatABuildHasFoundIsTrueAtTheCommit(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2 * minSelect} {
		ns := netnstest.New(t)
		c := conn(t, ns)
		tx := &asking{ask: manyElements(t, c, 2)[:1]}
		for len(tx.ask) < n {
			tx.ask = append(tx.ask, tx.ask[0])
		}
		tx.build = func(found []*Element) (*Batch, error) {
			if tx.tries == 1 {
				if found[0] == nil || found[0].Comment != "0" {
					t.Errorf("found %v", found[0])
				}
				testutil.Run(t, ns, "nft", "delete", "element", "inet", "ours", "s", "{ 10.0.0.0 }")
			} else if found[0] != nil {
				t.Errorf("found %v, which is gone", found[0])
			}
			b := NewBatch("ours")
			b.DeleteElements("t", Element{Key: tx.ask[0].Key})
			return b, nil
		}
		if err := c.Commit(t.Context(), "ours", tx); err != nil || tx.tries != 2 || tx.undone != 1 {
			t.Errorf("%d tries, %d undone, %v", tx.tries, tx.undone, err)
		}
		stop := errors.New("stop")
		tx.build = func([]*Element) (*Batch, error) { return nil, stop }
		if err := c.Commit(t.Context(), "ours", tx); err != stop || tx.undone != 2 {
			t.Errorf("an error of build: %v, %d undone", err, tx.undone)
		}
	}
}

// How many elements the table has is known after each commit, and again when it was read.
func TestElementsAreCounted(t *testing.T) {
	t.Parallel()
	count := 0
	c := conn(t, netnstest.New(t)).Sized(&count)
	ask := manyElements(t, c, 100)
	if count != 200 {
		t.Errorf("%d elements, want 200", count)
	}
	for _, del := range []bool{true, true, false} {
		refused := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
			b := NewBatch("ours")
			b.DeleteElements("s", Element{Key: ask[0].Key})
			if !del {
				b = NewBatch("ours")
				b.AddElements("s", Element{Key: ask[0].Key})
			}
			return b, nil
		}))
		if want := map[bool]int{true: 199, false: 200}[del]; count != want {
			t.Errorf("%d elements, want %d (%v)", count, want, refused)
		}
	}
	count = 0 // by mistake
	tx := &asking{ask: ask, build: func([]*Element) (*Batch, error) { return nil, nil }}
	if err := c.Commit(t.Context(), "ours", tx); err != nil || count != 200 {
		t.Errorf("%d elements after reading them, %v", count, err)
	}
}

// The two ways to find elements, for a tenth of them and for all, and a Select of
// many for few.
func BenchmarkFind(b *testing.B) {
	c := conn(b, netnstest.New(b))
	ask := manyElements(b, c, 20000)
	all := make([]Query, 0, len(ask))
	for _, q := range ask {
		if q.Set == "s" || q.Set == "t" {
			all = append(all, q)
		}
	}
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("Lookup/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Lookup(b.Context(), "ours", all[:n]...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/query")
		})
		b.Run(fmt.Sprintf("Select/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := c.Select(b.Context(), "ours", all[:n]...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/40000, "ns/element")
		})
	}
}

// Tables reads the tables of its family, with their comments.
func TestTables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := conn(t, ns)
	if all, err := c.Tables(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for _, table := range []string{`table inet a { comment "ours"; }`, "table inet b { flags dormant; }", `table bridge c { comment "ours"; }`} {
		testutil.Run(t, ns, "nft", table)
	}
	want := []Table{{Name: "a", Comment: "ours"}, {Name: "b", flags: 1}}
	if all, err := c.Tables(t.Context()); err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%v, %v; want %v", all, err, want)
	}
	want = []Table{{Name: "c", Comment: "ours"}}
	if all, err := c.In(unix.NFPROTO_BRIDGE).Tables(t.Context()); err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%v, %v; want %v", all, err, want)
	}
}

func FuzzDecodeTable(f *testing.F) {
	m := nl.AppendString([]byte{1, 0, 0, 0}, unix.NFTA_TABLE_NAME, "boxwire")
	m = nl.AppendBE32(m, unix.NFTA_TABLE_FLAGS, 1)
	f.Add(nl.AppendAttr(m, attrTableUserdata, appendComment(nil, "ours")))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decodeTable(b) })
}
