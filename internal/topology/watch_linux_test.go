package topology_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// follow watches some namespaces, as the host sees them. It returns a function that waits
// until a snapshot is as wanted.
func follow(t *testing.T, host *netns.NS, of *fleet) (until func(what string, is func(*topology.Snapshot) bool)) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	snapshots := make(chan *topology.Snapshot)
	done := make(chan error, 1)
	go func() {
		defer close(snapshots)
		for s, err := range topology.Watch(ctx, topology.Options{Host: host, Some: of.has}) {
			if err != nil {
				done <- err
				return
			}
			select {
			case snapshots <- s:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		for range snapshots {
		}
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	var last *topology.Snapshot
	return func(what string, is func(*topology.Snapshot) bool) {
		t.Helper()
		if last != nil && is(last) { // no snapshot comes if nothing has changed
			return
		}
		for s := range snapshots {
			if last = s; is(s) {
				return
			}
		}
		t.Fatalf("no snapshot shows that %s; the last is\n%s", what, text(last))
	}
}

// listens reports whether a program listens on a TCP port.
func listens(n *topology.Namespace, port uint16) bool {
	return slices.ContainsFunc(n.Listeners, func(l topology.Listener) bool { return l.Proto == "tcp" && l.Addr.Port() == port })
}

func text(s *topology.Snapshot) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	_ = e.Encode(s)
	return b.String()
}

// A watch shows what comes, changes and goes.
func TestWatch(t *testing.T) {
	t.Parallel()
	host, web, db := machine(t)
	all := newFleet(host, web, db)
	until := follow(t, host, all)
	until("web is there", func(s *topology.Snapshot) bool { return s.Namespace(web.ID().Ino) != nil })

	box, err := netns.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inode := box.ID().Ino
	all.add(box)
	defer func() { box.Close() }()
	in := func(s *topology.Snapshot) *topology.Namespace {
		if n := s.Namespace(inode); n != nil {
			return n
		}
		return new(topology.Namespace)
	}
	pair := link.Spec{Name: "vbox", Up: true, Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.89.0.2/24")}}}}
	if _, err := link.Create(t.Context(), host, pair); err != nil {
		t.Fatal(err)
	}
	until("a box has come, and leads to the host", func(s *topology.Snapshot) bool {
		l := linkOf(in(s), "eth0")
		return l.Running && l.Peer != nil && l.Peer.Link == "vbox" && len(l.Addrs) > 0 && in(s).NSID != nil
	})
	if err := route.Add(t.Context(), box, route.Default(netip.MustParseAddr("10.89.0.1"))); err != nil {
		t.Fatal(err)
	}
	until("it has a route", func(s *topology.Snapshot) bool { return slices.ContainsFunc(in(s).Routes, topology.Route.IsDefault) })
	eth0, err := link.Get(t.Context(), box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := eth0.SetDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("its link is down, and the route is gone", func(s *topology.Snapshot) bool {
		return !linkOf(in(s), "eth0").Up && !slices.ContainsFunc(in(s).Routes, topology.Route.IsDefault)
	})
	ln, err := web.Listen(t.Context(), "tcp", ":81")
	if err != nil {
		t.Fatal(err)
	}
	until("a program listens", func(s *topology.Snapshot) bool {
		return listens(s.Namespace(web.ID().Ino), 81)
	})
	ln.Close()
	until("it listens no more", func(s *topology.Snapshot) bool {
		return !listens(s.Namespace(web.ID().Ino), 81)
	})
	box.Close()
	until("the box is gone", func(s *topology.Snapshot) bool {
		return s.Namespace(inode) == nil && !slices.ContainsFunc(s.Namespace(host.ID().Ino).Links, func(l *topology.Link) bool { return l.Name == "vbox" })
	})
}

// After whatever changes, a watch shows the same as a snapshot that is read then.
func TestAWatchIsWhatIsRead(t *testing.T) {
	t.Parallel()
	host, web, db := machine(t)
	all := newFleet(host, web, db)
	until := follow(t, host, all)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	spaces := []*netns.NS{host, web, db}
	for range rounds() / 2 {
		for range 1 + r.IntN(5) {
			changeAtRandom(t, r, all, &spaces)
		}
		want := func() string {
			s, err := topology.Read(t.Context(), topology.Options{Host: host, Some: all.has})
			if err != nil {
				t.Fatal(err)
			}
			return text(some(s, spaces))
		}
		now, last := want(), ""
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d: read\n%s\nwatched\n%s", seed, now, last)
				}
			}()
			until("all is as it is read", func(s *topology.Snapshot) bool {
				last = text(some(s, spaces))
				if last != now {
					now = want() // the carrier, and addresses that the kernel gives, may come later
				}
				return last == now
			})
		}()
	}
}

// some are the namespaces that a test has made: those of others change all the time.
func some(s *topology.Snapshot, spaces []*netns.NS) *topology.Snapshot {
	c := &topology.Snapshot{}
	for _, ns := range spaces {
		if n := s.Namespace(ns.ID().Ino); n != nil {
			c.Namespaces = append(c.Namespaces, n)
		}
	}
	return c
}

// changeAtRandom makes one change of a machine that has at least a host.
func changeAtRandom(t *testing.T, r *rand.Rand, all *fleet, spaces *[]*netns.NS) {
	t.Helper()
	some := (*spaces)[r.IntN(len(*spaces))]
	name := fmt.Sprint("x", r.Uint32())
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	switch r.IntN(7) {
	case 0: // a new box, wired to one that is there
		box := netnstest.New(t)
		all.add(box)
		*spaces = append(*spaces, box)
		_, err := link.Create(t.Context(), some, link.Spec{Name: name, Up: true, Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth" + name, Up: true}}})
		check(err)
	case 1:
		_, err := link.Create(t.Context(), some, link.Spec{Name: name, Up: r.IntN(2) == 0, Kind: link.Bridge{}, Addrs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(256)), byte(r.IntN(256)), 1}), 24),
		}})
		check(err)
	case 2:
		links, err := link.List(t.Context(), some, link.Filter{})
		check(err)
		if l := links[r.IntN(len(links))]; l.Name != "lo" && l.Kind != "" {
			check(netns.IgnoreNotExist(l.Delete(t.Context())))
		}
	case 3:
		links, err := link.List(t.Context(), some, link.Filter{})
		check(err)
		if l := links[r.IntN(len(links))]; l.Up {
			check(l.SetDown(t.Context()))
		} else {
			check(l.SetUp(t.Context()))
		}
	case 4: // a link moves to another namespace, or is renamed
		links, err := link.List(t.Context(), some, link.Filter{})
		check(err)
		l, to := links[r.IntN(len(links))], (*spaces)[r.IntN(len(*spaces))]
		switch {
		case l.Kind != "veth" || l.Master != 0:
		case to == some && !l.Up:
			_, err := l.Update(t.Context(), link.Spec{Name: name})
			check(err)
		case to == some:
		default:
			_, err := l.Move(t.Context(), to, link.MoveOptions{Name: name})
			check(err)
		}
	case 5:
		links, err := link.List(t.Context(), some, link.Filter{})
		check(err)
		l := links[r.IntN(len(links))]
		addrs, err := l.Addrs(t.Context())
		check(err)
		for _, a := range addrs {
			if a.Prefix.Addr().Is4() && l.Name != "lo" {
				check(netns.IgnoreNotExist(l.DeleteAddrs(t.Context(), a.Prefix)))
			}
		}
	case 6:
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(r.IntN(256)), 0}), 24)
		lo, err := link.Get(t.Context(), some, "lo")
		check(err)
		check(lo.SetUp(t.Context()))
		check(route.Replace(t.Context(), some, route.Route{Dst: dst, Dev: lo.Index}))
	}
}

// A namespace that the host knows, and that no link leads to any more, is followed by events, too.
func TestWatchOfWhatWasWiredBefore(t *testing.T) {
	t.Parallel()
	host, web, _ := machine(t)
	vweb, err := link.Get(t.Context(), host, "vweb")
	if err != nil {
		t.Fatal(err)
	}
	if err := vweb.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	until := follow(t, host, newFleet(host, web))
	in := func(s *topology.Snapshot) *topology.Namespace { return s.Namespace(web.ID().Ino) }
	until("web is there", func(s *topology.Snapshot) bool { return in(s) != nil && len(in(s).Links) == 1 })
	lo, err := link.Get(t.Context(), web, "lo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24)
		if err := route.Add(t.Context(), web, route.Route{Dst: dst, Dev: lo.Index}); err != nil {
			t.Fatal(err)
		}
		until("it has a route", func(s *topology.Snapshot) bool {
			return slices.ContainsFunc(in(s).Routes, func(r topology.Route) bool { return r.Dst == dst })
		})
	}
}

// What has changed in a namespace before the host knew it by an id, a watch reads when the host does.
func TestWatchOfWhatTheHostComesToKnow(t *testing.T) {
	t.Parallel()
	host, web, _ := machine(t)
	for i := range 5 {
		box := netnstest.New(t)
		until := follow(t, host, newFleet(host, web, box))
		near := fmt.Sprint("near", i)
		pair := link.Spec{Name: near, Kind: link.Veth{Peer: link.Spec{NS: box, Name: "far"}}}
		l, err := link.Create(t.Context(), web, pair)
		if err != nil {
			t.Fatal(err)
		}
		in := func(s *topology.Snapshot) *topology.Namespace { return s.Namespace(box.ID().Ino) }
		until("the box has a link", func(s *topology.Snapshot) bool { return in(s) != nil && len(in(s).Links) == 2 })
		lo, err := link.Get(t.Context(), box, "lo")
		if err != nil {
			t.Fatal(err)
		}
		dst := netip.MustParsePrefix("172.16.7.0/24")
		if err := route.Add(t.Context(), box, route.Route{Dst: dst, Dev: lo.Index}); err != nil {
			t.Fatal(err)
		}
		// The end in the box has no event of that.
		if _, err := l.Move(t.Context(), host, link.MoveOptions{}); err != nil {
			t.Fatal(err)
		}
		until("the host's link leads to the box, which has a route", func(s *topology.Snapshot) bool {
			n := s.Namespace(host.ID().Ino)
			return linkOf(n, near).Peer != nil && slices.ContainsFunc(in(s).Routes, func(r topology.Route) bool { return r.Dst == dst })
		})
	}
}
