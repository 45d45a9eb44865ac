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
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestWatchBeginsWithTheStateThenTellsChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	br, a, _ := twoPorts(t, ns)
	ip := netip.MustParseAddr("10.0.0.9")
	if err := br.AddNeighbours(ctx, Neighbour{Addr: ip, MAC: mac(9)}); err != nil {
		t.Fatal(err)
	}
	if err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(1)}); err != nil {
		t.Fatal(err)
	}
	// Each step is taken once the one before was reported.
	steps := []struct {
		do  func() error
		saw func(e Event) bool
	}{
		{nil, func(e Event) bool { return e.Kind == EventSynced }},
		{func() error { _, err := Create(ctx, ns, Spec{Name: "new", Kind: Bridge{}}); return err },
			func(e Event) bool {
				return e.Kind == EventChanged && e.Link != nil && e.Link.Name == "new" && e.Link.Kind == "bridge"
			}},
		{func() error { return br.AddPrefixes(ctx, prefixes("10.0.0.1/24")...) },
			func(e Event) bool {
				return e.Kind == EventChanged && e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.1/24" && e.Addr.Link == br.Index
			}},
		{func() error { return br.DeleteAddrs(ctx, prefixes("10.0.0.1/24")...) },
			func(e Event) bool {
				return e.Kind == EventDeleted && e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.1/24"
			}},
		{func() error { return br.ReplaceNeighbours(ctx, Neighbour{Addr: ip, MAC: mac(8)}) },
			func(e Event) bool {
				return e.Kind == EventChanged && e.Neighbour != nil && e.Neighbour.MAC.String() == mac(8).String()
			}},
		{func() error { return br.DeleteNeighbours(ctx, Neighbour{Addr: ip}) },
			func(e Event) bool { return e.Kind == EventDeleted && e.Neighbour != nil && e.Neighbour.Addr == ip }},
		{func() error { return a.AddFDBEntries(ctx, FDBEntry{MAC: mac(2)}) },
			func(e Event) bool {
				return e.Kind == EventChanged && e.FDB != nil && e.FDB.MAC.String() == mac(2).String() && e.FDB.Master == br.Index
			}},
		{func() error { needFDBDelete(t, a.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(2)})); return nil },
			func(e Event) bool {
				return e.Kind == EventDeleted && e.FDB != nil && e.FDB.MAC.String() == mac(2).String()
			}},
		{func() error { return a.Delete(ctx) },
			func(e Event) bool { return e.Kind == EventDeleted && e.Link != nil && e.Link.Index == a.Index }},
	}
	first := map[string]bool{}
	step := 0
	for e, err := range Watch(ctx, ns, TopicLinks, TopicAddrs, TopicNeighbours, TopicFDB) {
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
		t.Errorf("%d steps of %d were reported", step, len(steps))
	}
	for _, want := range []string{"link lo", "link br0", "link a", "addr 127.0.0.1/8", "neighbour 10.0.0.9", "fdb " + mac(1).String()} {
		if !first[want] {
			t.Errorf("the first state lacks %s: %v", want, slices.Sorted(maps.Keys(first)))
		}
	}
}

// 5,000 changes to links and addresses without a reader, with room for a few:
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
			if err := br.AddPrefixes(ctx, p); err != nil {
				t.Fatal(err)
			}
			if i%500 == 7 {
				mustCreate(t, ns, Spec{Name: fmt.Sprintf("x%d", i), Kind: Bridge{}})
				continue // this address stays
			}
			if err := br.DeleteAddrs(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	resyncs, flooded := 0, false
	for e, err := range watch(ctx, "link.Watch", ns, []Topic{TopicLinks, TopicAddrs}, nl.EventConfig{Buffer: 4096}) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Kind == EventResync:
			resyncs++
			clear(links)
			clear(addrs)
		case e.Kind == EventSynced && !flooded:
			flooded = true
			flood()
		case e.Link != nil && e.Kind != EventDeleted:
			links[e.Link.Index] = e.Link.Name
		case e.Link != nil:
			delete(links, e.Link.Index)
		case e.Addr != nil && e.Kind != EventDeleted:
			addrs[e.Addr.Prefix.String()] = true
		case e.Addr != nil:
			delete(addrs, e.Addr.Prefix.String())
		}
		if e.Kind == EventSynced && resyncs > 0 {
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
	for e, err := range WatchAll(ctx, here, TopicLinks, TopicAddrs) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Kind == EventSynced:
			synced = true
			if err := b.AddPrefixes(ctx, prefixes("10.0.0.2/24")...); err != nil {
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
		t.Error("the address in the other namespace was not reported")
	}
	for _, want := range []string{"lo -1", "a -1", fmt.Sprint("lo ", a.LinkNSID), fmt.Sprint("b ", a.LinkNSID)} {
		if names[want] == 0 {
			t.Errorf("the first state lacks %q: %v", want, names)
		}
	}
}

// A namespace may have an id in itself, from the kernel or from another program. Its
// things are reported once and as its own, before it gets the id and after.
func TestWatchAllOfANamespaceWithAnIDInItself(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "while it is watched"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			here := netnstest.New(t)
			const self = 7
			assign := func() {
				if err := here.AssignNSID(ctx, here, self); err != nil {
					t.Fatal(err)
				}
			}
			if when == "before" {
				assign()
			}
			var synced, set, addr bool
			for e, err := range WatchAll(ctx, here, TopicLinks, TopicAddrs) {
				if err != nil {
					t.Fatal(err)
				}
				if e.NSID != -1 || e.Link != nil && e.Link.NS() != here {
					t.Errorf("synced %v: %v of namespace %d: %v %v", synced, e.Kind, e.NSID, e.Link, e.Addr)
				}
				switch {
				case e.Kind == EventSynced:
					synced = true
					if when != "before" {
						assign()
					}
					mustCreate(t, here, Spec{Name: "x", Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24")})
				case e.Link != nil && e.Link.Name == "x" && e.Kind == EventChanged:
					set = true
				case e.Addr != nil && e.Addr.Prefix.String() == "10.0.0.1/24" && e.Kind == EventChanged:
					addr = true
					x, err := Get(ctx, here, "x")
					if err == nil {
						err = x.Delete(ctx)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if e.Link != nil && e.Link.Name == "x" && e.Kind == EventDeleted {
					break
				}
			}
			if !set || !addr {
				t.Errorf("the link was reported: %v, its address: %v", set, addr)
			}
		})
	}
}

// What was reported of a namespace is reported as deleted when that ends, and a link of
// another namespace says what it is.
func TestWatchAllTellsThatANamespaceEnded(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	here := netnstest.New(t)
	there, err := netns.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := mustCreate(t, here, Spec{Name: "a", Up: true, Kind: Veth{Peer: Spec{NS: there, Name: "b", Up: true, Addrs: prefixes("10.0.0.2/24", "fd00::2/64")}}})
	b, err := Get(ctx, there, "b")
	if err == nil {
		err = b.AddNeighbours(ctx, Neighbour{Addr: addr("10.0.0.9"), MAC: mac(9)})
	}
	if err != nil {
		t.Fatal(err)
	}
	have := map[thing]bool{}
	later := false
	for e, err := range WatchAll(ctx, here, TopicLinks, TopicAddrs, TopicNeighbours, TopicFDB) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == EventSynced {
			if len(have) < 5 { // lo and b, with addresses
				t.Fatalf("the first state has %v", have)
			}
			// One more that comes as a change, and then the end.
			if err := b.AddNeighbours(ctx, Neighbour{Addr: addr("fd00::9"), MAC: mac(8)}); err != nil {
				t.Fatal(err)
			}
		}
		if e.NSID != a.LinkNSID {
			continue
		}
		if e.Link != nil {
			wantErr(t, e.Link.SetUp(ctx), os.ErrInvalid, "another namespace", "OpenNSID")
		}
		switch e.Kind {
		case EventPresent, EventChanged:
			have[thingOf(&e)] = true
		case EventDeleted:
			if !have[thingOf(&e)] {
				t.Errorf("%+v was deleted and not reported before", thingOf(&e))
			}
			delete(have, thingOf(&e))
		}
		if n := e.Neighbour; n != nil && e.Kind == EventChanged && n.Addr == addr("fd00::9") {
			later = true
			there.Close()
		}
		if later && len(have) == 0 {
			break
		}
	}
	if !later || len(have) > 0 {
		t.Errorf("not reported as deleted: %v", have)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range Watch(ctx, ns, TopicLinks) {
		if last = err; e.Kind == EventSynced {
			cancel()
		}
	}
	wantErr(t, last, context.Canceled, "link.Watch")
	for name, topics := range map[string][]Topic{"no topic": nil, "topic 9": {TopicLinks, 9}} {
		for _, err := range Watch(t.Context(), ns, topics...) {
			wantErr(t, err, os.ErrInvalid, name)
		}
	}
	for _, err := range Watch(t.Context(), nil, TopicLinks) {
		if !errors.Is(err, os.ErrInvalid) {
			t.Error(err)
		}
	}
}
