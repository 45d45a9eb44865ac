package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var listRow = row{
	name: "list",
	work: "read 10,000 addresses of a link and 2,000 links into a list, and 100,000 routes one by one",
	unit: "list",
	n:    20,
	run: func(ctx context.Context, b *bout) error {
		t, err := newTables(ctx, b.size(10_000, 500), b.size(2_000, 100), b.size(100_000, 1_000))
		if err != nil {
			return err
		}
		defer t.close()
		for _, list := range []func(context.Context, *bout) error{t.listAddrs, t.listLinks, t.listRoutes} {
			if err := list(ctx, b); err != nil {
				return err
			}
		}
		b.note("The floor does the same work: by hand, it decodes addresses and links into a list of the same values that is allocated once, and routes one after the other. \"Not kept\" is the kernel's part of it: the same answers, with each attribute stepped over and nothing decoded.")
		for _, l := range []struct {
			what string
			n    int
		}{{"addresses", t.addrs}, {"links", t.links}, {"routes", t.routes}} {
			b.brief("read "+thousands(l.n)+" "+l.what, l.what+", "+nameBoxwire, l.what+", "+nameFloor,
				[2]string{"vishvananda/netlink", l.what + ", " + nameInPlace})
		}
		return nil
	},
}

// tables are a namespace with much to list in it.
type tables struct {
	ns                   *netns.NS
	sock                 *floor.Socket
	handle               *netlink.Handle
	addrs, links, routes int
	loaded               link.Link // the link with the addresses
}

func newTables(ctx context.Context, addrs, links, routes int) (t *tables, err error) {
	t = &tables{addrs: addrs, links: links, routes: routes}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.ns, err = netns.New(ctx); err != nil {
		return t, err
	}
	if t.handle, err = peek(t.ns.WithFd); err != nil {
		return t, err
	}
	err = within(t.ns, func() (err error) {
		t.sock, err = floor.Open(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return t, err
	}
	for i := range links / 2 {
		l, err := link.Create(ctx, t.ns, link.Spec{
			Name: fmt.Sprintf("a%d", i), Up: i == 0,
			Kind: link.Veth{Peer: link.Spec{Name: fmt.Sprintf("b%d", i), Up: i == 0}},
		})
		if err != nil {
			return t, err
		}
		if i == 0 {
			t.loaded = l
		}
	}
	prefixes := make([]netip.Prefix, addrs)
	for i := range prefixes {
		n := i + 1
		prefixes[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(n >> 8), byte(n)}), 32)
	}
	if err := t.loaded.AddPrefixes(ctx, prefixes...); err != nil {
		return t, err
	}
	all := make([]route.Route, routes)
	for i := range all {
		a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		all[i] = route.Route{Dst: netip.PrefixFrom(a, 32), Dev: t.loaded.Index}
	}
	return t, route.Add(ctx, t.ns, all...)
}

func (t *tables) close() {
	if t.sock != nil {
		t.sock.Close()
	}
	if t.handle != nil {
		t.handle.Close()
	}
	t.ns.Close()
}

// lists makes a contender that reads a table and has to find at least want
// entries in it.
func lists(what, name string, want int, read func(ctx context.Context) (int, error)) *contender {
	return &contender{name: what + ", " + name, round: func(ctx context.Context, _ int) (time.Duration, error) {
		n := 0
		runtime.GC() // what others have left behind is not this one's cost
		d, err := took(func() (err error) {
			n, err = read(ctx)
			return err
		})
		if err == nil && n < want {
			err = fmt.Errorf("%d %s, want at least %d", n, what, want)
		}
		return d, err
	}}
}

// compete lets the contenders read a table and makes the claims.
func (t *tables) compete(ctx context.Context, b *bout, boxwire, floor, bare, peer *contender) error {
	if err := b.interleave(ctx, b.n, boxwire, floor, bare, peer); err != nil {
		return err
	}
	b.atMost(boxwire.name, floor.name, 1.3)
	b.faster(boxwire.name, peer.name, 4)
	b.note("%s costs %.2f times %s; %s, which decodes nothing, is %.1f times as fast as %s.",
		boxwire.name, pairRatio(b.figures[boxwire.name], b.figures[bare.name]), bare.name,
		bare.name, pairRatio(b.figures[peer.name], b.figures[bare.name]), peer.name)
	return nil
}

// nameBare is what the kernel needs.
const nameBare = "not kept"

// listed counts a list.
func listed[T any](list []T, err error) (int, error) { return len(list), err }

func (t *tables) listAddrs(ctx context.Context, b *bout) error {
	const what = "addresses"
	request := floor.Message(nil, unix.RTM_GETADDR, unix.NLM_F_DUMP,
		binary.NativeEndian.AppendUint32(make([]byte, 4), uint32(t.loaded.Index)))
	peer := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: t.loaded.Index, Name: t.loaded.Name}}
	return t.compete(ctx, b,
		lists(what, nameBoxwire, t.addrs, func(ctx context.Context) (int, error) { return listed(t.loaded.Addrs(ctx)) }),
		lists(what, nameFloor, t.addrs, func(context.Context) (int, error) { return listed(floor.List(t.sock, request, floorAddr)) }),
		lists(what, nameBare, t.addrs, func(context.Context) (int, error) { return t.sock.Dump(request, walkAll(8)) }),
		lists(what, nameInPlace, t.addrs, func(context.Context) (int, error) { return listed(t.handle.AddrList(peer, unix.AF_UNSPEC)) }))
}

func (t *tables) listLinks(ctx context.Context, b *bout) error {
	const (
		what     = "links"
		skipStat = 8 // RTEXT_FILTER_SKIP_STATS
	)
	request := floor.Message(nil, unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.AppendU32(floor.IfInfo(0, false), unix.IFLA_EXT_MASK, skipStat))
	return t.compete(ctx, b,
		lists(what, nameBoxwire, t.links, func(ctx context.Context) (int, error) { return listed(link.List(ctx, t.ns, link.Filter{})) }),
		lists(what, nameFloor, t.links, func(context.Context) (int, error) { return listed(floor.List(t.sock, request, floorLink)) }),
		lists(what, nameBare, t.links, func(context.Context) (int, error) { return t.sock.Dump(request, walkAll(16)) }),
		lists(what, nameInPlace, t.links, func(context.Context) (int, error) { return listed(t.handle.LinkList()) }))
}

func (t *tables) listRoutes(ctx context.Context, b *bout) error {
	const what = "routes"
	header := make([]byte, 12)
	header[0], header[4] = unix.AF_INET, unix.RT_TABLE_MAIN
	request := floor.Message(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP, header)
	return t.compete(ctx, b,
		lists(what, nameBoxwire, t.routes, func(ctx context.Context) (int, error) {
			n := 0
			for _, err := range route.All(ctx, t.ns, route.Filter{Family: route.IPv4, Table: route.TableMain}) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		}),
		lists(what, nameFloor, t.routes, func(context.Context) (int, error) {
			var r route.Route
			return t.sock.Dump(request, func(body []byte) { floorRoute(&r, body) })
		}),
		lists(what, nameBare, t.routes, func(context.Context) (int, error) { return t.sock.Dump(request, walkAll(12)) }),
		lists(what, nameInPlace, t.routes, func(context.Context) (int, error) {
			return listed(t.handle.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE))
		}))
}
