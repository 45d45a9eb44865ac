package link

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestWatchBeginsWithTheStateThenTellsChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	br, a, _ := twoPorts(t, ns)
	ip := netip.MustParseAddr("10.0.0.9")
	if err := br.AddNeighbour(ctx, Neighbour{Addr: ip, MAC: mac(9)}); err != nil {
		t.Fatal(err)
	}
	if err := a.AddFDB(ctx, FDBEntry{MAC: mac(1)}); err != nil {
		t.Fatal(err)
	}
	// Each step is taken once the one before has been told.
	steps := []struct {
		do  func() error
		saw func(e Event) bool
	}{
		{nil, func(e Event) bool { return e.Op == EventSynced }},
		{func() error { _, err := Create(ctx, ns, Spec{Name: "new", Kind: Bridge{}}); return err },
			func(e Event) bool {
				return e.Op == EventSet && e.Link != nil && e.Link.Name == "new" && e.Link.Kind == "bridge"
			}},
		{func() error { return br.AddAddr(ctx, prefixes("10.0.0.1/24")...) },
			func(e Event) bool {
				return e.Op == EventSet && e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.1/24" && e.Addr.Link == br.Index
			}},
		{func() error { return br.DeleteAddr(ctx, prefixes("10.0.0.1/24")...) },
			func(e Event) bool {
				return e.Op == EventGone && e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.1/24"
			}},
		{func() error { return br.ReplaceNeighbour(ctx, Neighbour{Addr: ip, MAC: mac(8)}) },
			func(e Event) bool {
				return e.Op == EventSet && e.Neighbour != nil && e.Neighbour.MAC.String() == mac(8).String()
			}},
		{func() error { return br.DeleteNeighbour(ctx, Neighbour{Addr: ip}) },
			func(e Event) bool { return e.Op == EventGone && e.Neighbour != nil && e.Neighbour.Addr == ip }},
		{func() error { return a.AddFDB(ctx, FDBEntry{MAC: mac(2)}) },
			func(e Event) bool {
				return e.Op == EventSet && e.FDB != nil && e.FDB.MAC.String() == mac(2).String() && e.FDB.Master == br.Index
			}},
		{func() error { needFDBDelete(t, a.DeleteFDB(ctx, FDBEntry{MAC: mac(2)})); return nil },
			func(e Event) bool { return e.Op == EventGone && e.FDB != nil && e.FDB.MAC.String() == mac(2).String() }},
		{func() error { return a.Delete(ctx) },
			func(e Event) bool { return e.Op == EventGone && e.Link != nil && e.Link.Index == a.Index }},
	}
	first := map[string]bool{}
	step := 0
	for e, err := range Watch(ctx, ns, Links, Addrs, Neighbours, FDB) {
		if err != nil {
			t.Fatal(err)
		}
		if e.NSID != -1 {
			t.Errorf("the id %d of an event from here", e.NSID)
		}
		if step == 0 {
			switch {
			case e.Link != nil:
				first["link "+e.Link.Name] = e.Link.NS() == ns
			case e.Addr != nil:
				first["addr "+e.Addr.Prefix.String()] = true
			case e.Neighbour != nil:
				first["neighbour "+e.Neighbour.Addr.String()] = true
			case e.FDB != nil:
				first["fdb "+e.FDB.MAC.String()] = true
			}
		}
		if !steps[step].saw(e) {
			continue
		}
		if step++; step == len(steps) {
			break
		}
		if err := steps[step].do(); err != nil {
			t.Fatal(err)
		}
	}
	if step != len(steps) {
		t.Errorf("%d steps of %d were told", step, len(steps))
	}
	for _, want := range []string{"link lo", "link br0", "link a", "addr 127.0.0.1/8", "neighbour 10.0.0.9", "fdb " + mac(1).String()} {
		if !first[want] {
			t.Errorf("the first state lacks %s: %v", want, slices.Sorted(maps.Keys(first)))
		}
	}
}

// 5,000 changes to links and addresses while nobody reads, with room for a few:
// the reader ends with what ip(8) shows.
func TestWatchEndsRightAfterALoss(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	links, addrs := map[int]string{}, map[string]bool{}
	changes := 5000
	if testing.Short() {
		changes = 1000
	}
	flood := func() {
		t.Helper()
		for i := range changes / 2 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)
			if err := br.AddAddr(ctx, p); err != nil {
				t.Fatal(err)
			}
			if i%500 == 7 {
				mustCreate(t, ns, Spec{Name: fmt.Sprintf("x%d", i), Kind: Bridge{}})
				continue // this address stays
			}
			if err := br.DeleteAddr(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	resyncs, flooded := 0, false
	for e, err := range watch(ctx, "link.Watch", ns, []Topic{Links, Addrs}, nl.EventConfig{Buffer: 4096}) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Op == EventResync:
			resyncs++
			clear(links)
			clear(addrs)
		case e.Op == EventSynced && !flooded:
			flooded = true
			flood()
		case e.Link != nil && e.Op == EventSet:
			links[e.Link.Index] = e.Link.Name
		case e.Link != nil:
			delete(links, e.Link.Index)
		case e.Addr != nil && e.Op == EventSet:
			addrs[e.Addr.Prefix.String()] = true
		case e.Addr != nil:
			delete(addrs, e.Addr.Prefix.String())
		}
		if e.Op == EventSynced && resyncs > 0 {
			break
		}
	}
	if resyncs == 0 {
		t.Error("nothing was lost: the buffer was not small enough")
	}
	wantLinks, wantAddrs := map[int]string{}, map[string]bool{}
	for name, l := range ipLinks(t, ns) {
		wantLinks[l.Index] = name
		for _, a := range l.Addrs {
			wantAddrs[fmt.Sprintf("%s/%d", a.Local, a.Bits)] = true
		}
	}
	if !maps.Equal(links, wantLinks) || !maps.Equal(addrs, wantAddrs) {
		t.Errorf("after %d losses: links %v, addresses %v\nip shows %v, %v", resyncs, links, addrs, wantLinks, wantAddrs)
	}
}

func TestWatchAllTellsWhichNamespace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	here, there := netnstest.New(t), netnstest.New(t)
	a := mustCreate(t, here, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: there, Name: "b"}}})
	b, err := Get(ctx, there, "b")
	if err != nil {
		t.Fatal(err)
	}
	if a.LinkNSID < 0 {
		t.Fatalf("the peer's namespace has no id: %+v", a)
	}
	names := map[string]int{}
	synced, set := false, false
	for e, err := range WatchAll(ctx, here, Links, Addrs) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Op == EventSynced:
			synced = true
			if err := b.AddAddr(ctx, prefixes("10.0.0.2/24")...); err != nil {
				t.Fatal(err)
			}
		case e.Link != nil && !synced:
			names[fmt.Sprint(e.Link.Name, " ", e.NSID)] = e.Link.Index
			if (e.NSID == -1) != (e.Link.NS() == here) {
				t.Errorf("link %s of namespace %d says it is in %v", e.Link, e.NSID, e.Link.NS())
			}
		case e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.2/24":
			set = e.NSID == a.LinkNSID && e.Addr.Link == b.Index
		}
		if set {
			break
		}
	}
	if !set {
		t.Error("the address in the other namespace was not told")
	}
	for _, want := range []string{"lo -1", "a -1", fmt.Sprint("lo ", a.LinkNSID), fmt.Sprint("b ", a.LinkNSID)} {
		if names[want] == 0 {
			t.Errorf("the first state lacks %q: %v", want, names)
		}
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range Watch(ctx, ns, Links) {
		if last = err; e.Op == EventSynced {
			cancel()
		}
	}
	wantErr(t, last, context.Canceled, "link.Watch")
	for name, topics := range map[string][]Topic{"no topic": nil, "topic 9": {Links, 9}} {
		for _, err := range Watch(t.Context(), ns, topics...) {
			wantErr(t, err, os.ErrInvalid, name)
		}
	}
	for _, err := range Watch(t.Context(), nil, Links) {
		if !errors.Is(err, os.ErrInvalid) {
			t.Error(err)
		}
	}
}
