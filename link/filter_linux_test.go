package link

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestListFiltersInTheKernel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	mustCreate(t, ns, Spec{Name: "br1", Kind: Bridge{}})
	mustCreate(t, ns, Spec{Name: "a", Master: br.Ref(), Kind: Veth{Peer: Spec{Name: "b"}}})
	mustCreate(t, ns, Spec{Name: "if0", Master: br.Ref(), Group: 7, Alias: "box one", Kind: IFB{}})
	mustCreate(t, ns, Spec{Name: "if1", Group: 7, Alias: "box two", Kind: IFB{}})
	for _, c := range []struct {
		f    Filter
		want []string
	}{
		{Filter{}, []string{"lo", "br0", "br1", "b", "a", "if0", "if1"}},
		{Filter{Kind: "bridge"}, []string{"br0", "br1"}},
		{Filter{Kind: "veth"}, []string{"b", "a"}},
		{Filter{Master: br.Ref()}, []string{"a", "if0"}},
		{Filter{Kind: "ifb", Master: br.Ref()}, []string{"if0"}},
		{Filter{Kind: "none-of-that"}, nil},
		{Filter{Master: Ref{Index: 4711}}, nil},
		{Filter{Group: 7}, []string{"if0", "if1"}},
		{Filter{Group: 8}, nil},
		{Filter{AliasPrefix: "box "}, []string{"if0", "if1"}},
		{Filter{AliasPrefix: "box two"}, []string{"if1"}},
		{Filter{AliasPrefix: "box", Master: br.Ref(), Group: 7, Kind: "ifb"}, []string{"if0"}},
		{Filter{AliasPrefix: "box twox"}, nil},
	} {
		links, err := List(ctx, ns, c.f)
		if err != nil {
			t.Fatal(err)
		}
		if got := namesOfLinks(links); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.f, got, c.want)
		}
	}
	_, err := List(ctx, ns, Filter{Master: Ref{Index: -1}})
	wantErr(t, err, os.ErrInvalid, "master -1")
}

func TestByAliasAndMAC(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	mac := hw("02:00:00:00:00:07")
	mustCreate(t, ns, Spec{Name: "a", Alias: "the box", MAC: mac, Kind: Bridge{}})
	mustCreate(t, ns, Spec{Name: "b", Alias: "the box", Kind: Bridge{}})
	mustCreate(t, ns, Spec{Name: "c", Alias: "the boxes", MAC: mac, Kind: Bridge{}})
	links, err := ListByAlias(ctx, ns, "the box")
	if got := namesOfLinks(links); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v, %v", got, err)
	}
	links, err = ListByMAC(ctx, ns, mac)
	if got := namesOfLinks(links); err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("%v, %v", got, err)
	}
	_, err = ListByAlias(ctx, ns, "box")
	wantErr(t, err, os.ErrNotExist, "link.ListByAlias", `alias "box"`)
	_, err = ListByMAC(ctx, ns, hw("02:00:00:00:00:08"))
	wantErr(t, err, os.ErrNotExist, "link.ListByMAC", "02:00:00:00:00:08")
	_, err = ListByMAC(ctx, ns, nil)
	wantErr(t, err, os.ErrInvalid)
	_, err = ListByAlias(ctx, ns, "")
	wantErr(t, err, os.ErrInvalid)
}

func namesOfLinks(links []Link) (names []string) {
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names
}

// While 50 links a second come and go, a list of 1,000 others, one that the kernel
// filters and reads of single ones miss none and show none twice.
func TestReadsAreCompleteWhileLinksComeAndGo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	links, last := 1000, 10*time.Second
	if testing.Short() {
		links, last = 200, 2*time.Second
	}
	host, pool := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{}})
	steady := map[string]bool{"lo": true, "br0": true}
	ports := 0
	for i := range links / 2 {
		master := 0
		if i%2 == 0 {
			master = br.Index
			ports++
		}
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		mustCreate(t, host, Spec{Name: a, Master: Ref{Index: master}, Kind: Veth{Peer: Spec{Name: b}}})
		steady[a], steady[b] = true, true
	}

	end := time.Now().Add(last)
	var wg sync.WaitGroup
	came := 0
	wg.Go(func() {
		tick := time.NewTicker(time.Second / 50)
		defer tick.Stop()
		var old []Link
		for time.Now().Before(end) {
			<-tick.C
			// One comes and, the older ones together, as many go.
			old = append(old, mustCreateIn(t, pool, host, fmt.Sprintf("c%d", came)))
			if came++; len(old) == 50 {
				if err := DeleteAll(ctx, old...); err != nil {
					t.Error(err)
				}
				old = nil
			}
		}
	})
	all, filtered, got := 0, 0, 0
	for ; time.Now().Before(end); all++ {
		list, err := List(ctx, host, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, l := range list {
			if seen[l.Name] {
				t.Fatalf("link %s is in the list twice", l)
			}
			seen[l.Name] = true
		}
		for name := range steady {
			if !seen[name] {
				t.Fatalf("link %s is not in a list of %d", name, len(list))
			}
		}
		list, err = List(ctx, host, Filter{Kind: "veth", Master: br.Ref()})
		if err != nil || len(list) != ports {
			t.Fatalf("the bridge has %d ports, want %d: %v", len(list), ports, err)
		}
		filtered++
		for i := range 50 {
			name := fmt.Sprintf("b%d", (all*50+i)%(links/2))
			if l, err := Get(ctx, host, name); err != nil || l.Name != name {
				t.Fatalf("%v, %v", l, err)
			}
			got++
		}
	}
	wg.Wait()
	t.Logf("%d lists of %d links, %d filtered, %d single reads, while %d links came", all, len(steady), filtered, got, came)
	if all == 0 || came == 0 {
		t.Errorf("only %d lists were read, %d links came", all, came)
	}
}

// mustCreateIn makes a pair with the outer end in host.
func mustCreateIn(t testing.TB, pool, host *netns.NS, name string) Link {
	t.Helper()
	l, err := Create(context.Background(), host, Spec{Name: name, Kind: Veth{Peer: Spec{NS: pool, Name: name}}})
	if err != nil {
		t.Error(err)
	}
	return l
}
