package link

import (
	"context"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// An index means another link in each namespace: where a Link is named, a call in
// another namespace refuses it.
func TestALinkOfAnotherNamespaceIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Index: 7, Kind: Bridge{}})
	other := mustCreate(t, box, Spec{Name: "other", Index: 7, Kind: Bridge{}})
	l := mustCreate(t, box, Spec{Name: "l", Kind: IFB{}})
	d, err := mustCreate(t, host, Spec{Name: "port", Master: br.Ref(), Kind: IFB{}}).Details(ctx)
	if err != nil {
		t.Fatal(err)
	}
	spec := func(s Spec) error {
		_, err := Create(ctx, box, s)
		return err
	}
	ref := br.Ref()
	for name, err := range map[string]error{
		"master":         spec(Spec{Name: "a", Master: ref, Kind: IFB{}}),
		"master as read": spec(Spec{Name: "a", Master: d.Spec.Master, Kind: IFB{}}),
		"parent":         spec(Spec{Name: "a", Parent: ref, Kind: VLAN{ID: 5}}),
		"parent that is the box's, for a link of the box that the host makes": func() error {
			_, err := Create(ctx, host, Spec{Name: "a", NS: box, Parent: other.Ref(), Kind: VLAN{ID: 5}})
			return err
		}(),
		"master that is the host's, for a link of the box that the host makes": func() error {
			_, err := Create(ctx, host, Spec{Name: "a", NS: box, Master: ref, Kind: IFB{}})
			return err
		}(),
		"peer's master": spec(Spec{Name: "a", Master: other.Ref(), Kind: Veth{Peer: Spec{Name: "b", NS: host, Master: other.Ref()}}}),
		"underlay":      spec(Spec{Name: "a", Kind: VXLAN{ID: new(uint32(7)), Underlay: ref}}),
		"primary port":  spec(Spec{Name: "a", Kind: Bond{Primary: ref}}),
		"active port":   spec(Spec{Name: "a", Kind: Bond{ActivePort: ref}}),
		"ensure":        func() error { _, err := Ensure(ctx, box, Spec{Name: "l", Master: ref, Kind: IFB{}}); return err }(),
		"update":        func() error { _, err := l.Update(ctx, Spec{Master: ref}); return err }(),
		"SetMaster":     l.SetMaster(ctx, ref),
		"list":          func() error { _, err := List(ctx, box, Filter{Master: ref}); return err }(),
		"FDB of link":   func() error { _, err := ListFDB(ctx, box, FDBFilter{Link: ref}); return err }(),
		"FDB of bridge": func() error { _, err := ListFDB(ctx, box, FDBFilter{Bridge: ref}); return err }(),
		"neighbours":    func() error { _, err := ListNeighbours(ctx, box, NeighbourFilter{Link: ref}); return err }(),
		"of ports":      func() error { _, err := ListNeighbours(ctx, box, NeighbourFilter{Master: ref}); return err }(),
	} {
		t.Run(name, func(t *testing.T) {
			wantErr(t, err, os.ErrInvalid, " 7 is a link of netns ", "the index means another")
		})
	}
	if got := ipLinks(t, box); len(got) != 3 || got["l"].Master != "" {
		t.Errorf("the box has %v", got)
	}
	foreign := Link{Index: 7}
	wantErr(t, l.SetMaster(ctx, foreign.Ref()), os.ErrInvalid, "bound to no namespace")
}

func TestRefByName(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	long := "a-bridge-with-more-than-fifteen-bytes"
	br := mustCreate(t, host, Spec{Name: "br0", AltNames: []string{"br-lan", long}, Kind: Bridge{}})
	inside := mustCreate(t, box, Spec{Name: "br0", Index: 99, Kind: Bridge{}})
	l := mustCreate(t, host, Spec{Name: "a", Master: Ref{Name: "br0"}, Kind: Veth{Peer: Spec{NS: box, Name: "b", Master: Ref{Name: "br0"}}}})
	peer, err := Get(ctx, box, "b")
	if err != nil || l.Master != br.Index || peer.Master != inside.Index {
		t.Errorf("masters %d and %d, %v", l.Master, peer.Master, err)
	}
	for _, r := range []Ref{{Name: "br-lan"}, {Name: long}, br.Ref(), {Index: br.Index}} {
		ports, err := List(ctx, host, Filter{Master: r})
		if err != nil || len(ports) != 1 {
			t.Errorf("%s has the ports %v, %v", r, ports, err)
		}
	}
	if err := l.SetMaster(ctx, Ref{}); err != nil {
		t.Fatal(err)
	}
	if l, err = l.Update(ctx, Spec{Master: Ref{Name: "br-lan"}}); err != nil || l.Master != br.Index {
		t.Errorf("master %d, %v", l.Master, err)
	}
	before, err := Ensure(ctx, host, Spec{Name: "a", Master: Ref{Name: "br0"}, Kind: Veth{Peer: Spec{NS: box, Name: "b", Master: Ref{Name: "br0"}}}})
	if err != nil || before.Index != l.Index {
		t.Errorf("%v, %v", before, err)
	}

	for want, s := range map[string]Spec{
		"master nobody does not exist in netns":            {Name: "x", Master: Ref{Name: "nobody"}, Kind: IFB{}},
		"parent nobody does not exist in netns":            {Name: "x", Parent: Ref{Name: "nobody"}, Kind: Macvlan{}},
		"underlay nobody does not exist in netns":          {Name: "x", Kind: VXLAN{ID: new(uint32(7)), Underlay: Ref{Name: "nobody"}}},
		"the peer's master nobody does not exist in netns": {Name: "x", Kind: Veth{Peer: Spec{Name: "y", Master: Ref{Name: "nobody"}}}},
	} {
		_, err := Create(ctx, host, s)
		wantErr(t, err, os.ErrNotExist, want)
	}
	_, err = Create(ctx, host, Spec{Name: "x", Master: Ref{Name: "br0", Index: br.Index}, Kind: IFB{}})
	wantErr(t, err, os.ErrInvalid, "give one of them")
	_, err = Create(ctx, host, Spec{Name: "x", Master: Ref{Name: "br 0"}, Kind: IFB{}})
	wantErr(t, err, os.ErrInvalid, "master")
}

// The Ref of a Link costs no request, a name one.
func TestRefRequests(t *testing.T) {
	t.Parallel()
	host := netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{}})
	n := [3]int{}
	for i, r := range []Ref{{Index: br.Index}, br.Ref(), {Name: "br0"}} {
		n[i] = requests(t, host, func() {
			l := mustCreate(t, host, Spec{Name: "a", Master: r, Kind: Veth{Peer: Spec{Name: "b"}}})
			if err := l.SetMaster(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			if err := l.Delete(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if n[1] != n[0] || n[2] != n[0]+2 {
		t.Errorf("%d requests with an index, %d with a Link, %d with a name", n[0], n[1], n[2])
	}
}

// requests counts what is sent over the namespace's connection.
func requests(t *testing.T, ns *netns.NS, f func()) (n int) {
	t.Helper()
	conn, err := route(ns)
	if err != nil {
		t.Fatal(err)
	}
	conn.Fault(func(r nl.Request) nl.Request { n++; return r })
	defer conn.Fault(nil)
	f()
	return n
}
