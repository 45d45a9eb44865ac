package route_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"syscall"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// check ends an example that has failed.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// newBox makes a namespace with the links eth0, 10.88.0.2/16, and eth1, 198.51.100.7/24.
// Until a link has its carrier, the kernel marks its routes linkdown.
func newBox(ctx context.Context) *netns.NS {
	box, err := netns.New(ctx)
	check(err)
	for i, addr := range []string{"10.88.0.2/16", "198.51.100.7/24"} {
		eth, err := link.Create(ctx, box, link.Spec{
			Name: fmt.Sprintf("eth%d", i), Index: 2 + i, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)},
			Kind: link.Veth{Peer: link.Spec{Name: fmt.Sprintf("peer%d", i), Index: 10 + i, Up: true}},
		})
		check(err)
		_, err = eth.WaitCarrier(ctx)
		check(err)
	}
	return box
}

// A default route, and a second network behind another gateway.
func ExampleAdd() {
	ctx := context.Background()
	web := newBox(ctx)
	defer web.Close()
	err := route.Add(ctx, web,
		route.Default(netip.MustParseAddr("10.88.0.1")),
		route.To(netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.88.0.7")),
	)
	check(err) // route.Add route default via 10.88.0.1 in netns web: ...

	routes, err := route.List(ctx, web, route.Filter{Protocol: route.ProtoStatic})
	check(err)
	for _, r := range routes {
		fmt.Println(r)
	}
	// Output:
	// default via 10.88.0.1 dev 2 proto static
	// 10.99.0.0/16 via 10.88.0.7 dev 2 proto static
}

// A flow keeps to one of two gateways; the second one takes three times as many.
func ExampleAdd_multipath() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	err := route.Add(ctx, box, route.Route{
		Dst: netip.MustParsePrefix("0.0.0.0/0"),
		Hops: []route.Hop{
			{Via: netip.MustParseAddr("10.88.0.1"), Weight: 1},
			{Via: netip.MustParseAddr("198.51.100.1"), Weight: 3},
		},
	})
	check(err)

	routes, err := route.List(ctx, box, route.Filter{Protocol: route.ProtoStatic})
	check(err)
	for _, h := range routes[0].Hops {
		fmt.Println(h.Via, h.Weight)
	}
	// Output:
	// 10.88.0.1 1
	// 198.51.100.1 3
}

// Packets to an attacker's network are dropped without an answer, those to a
// network that is not in use get one.
func ExampleReplace_blackhole() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	err := route.Replace(ctx, box,
		route.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Type: route.TypeBlackhole},
		route.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Type: route.TypeUnreachable, Metric: 4096},
	)
	check(err)

	_, err = route.Lookup(ctx, box, route.Query{Dst: netip.MustParseAddr("10.99.0.1")})
	fmt.Println(errors.Is(err, syscall.EHOSTUNREACH))
	// Output: true
}

// A second uplink: what is sent from its address leaves by it, whatever the
// default route says. Run again, with other addresses or after a crash, it changes
// only what differs.
func ExampleSync_secondUplink() {
	const owner = route.Protocol(201) // this program's own
	const table = route.Table(201)
	uplink, gateway := netip.MustParsePrefix("198.51.100.7/32"), netip.MustParseAddr("198.51.100.1")

	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	out := route.Default(gateway)
	out.Table = table
	_, err := route.Sync(ctx, box, owner, out)
	check(err)
	_, err = route.SyncRules(ctx, box, owner, route.Rule{From: uplink, Table: table, Priority: 1000})
	check(err)

	m, err := route.Lookup(ctx, box, route.Query{Src: uplink.Addr(), Dst: netip.MustParseAddr("192.0.2.1")})
	check(err)
	fmt.Println(m.Via)
	// Output: 198.51.100.1
}

func ExampleList() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	routes, err := route.List(ctx, box, route.Filter{Family: route.IPv4, Table: route.TableMain})
	check(err)
	for _, r := range routes {
		fmt.Println(r)
	}
	// Output:
	// 10.88.0.0/16 dev 2 proto kernel scope link src 10.88.0.2
	// 198.51.100.0/24 dev 3 proto kernel scope link src 198.51.100.7
}

// The routes of a routing daemon are counted and not held: there may be a million.
func ExampleAll() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	n := 0
	for _, err := range route.All(ctx, box, route.Filter{Protocol: route.ProtoBird}) {
		check(err)
		n++
	}
	fmt.Println(n, "routes of BIRD")
	// Output: 0 routes of BIRD
}

func ExampleLookup() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	check(route.Add(ctx, box, route.Default(netip.MustParseAddr("10.88.0.1"))))

	m, err := route.Lookup(ctx, box, route.Query{Dst: netip.MustParseAddr("192.0.2.1")})
	check(err)
	fmt.Printf("from %s via %s by link %d: %s\n", m.Src, m.Via, m.Dev, m.Route)
	// Output: from 10.88.0.2 via 10.88.0.1 by link 2: default via 10.88.0.1 dev 2 proto static
}

// The default route of a box is followed until it comes.
func ExampleWatch() {
	ctx := context.Background()
	web := newBox(ctx)
	defer web.Close()
	for e, err := range route.Watch(ctx, web, route.Filter{Family: route.IPv4, Table: route.TableMain}) {
		check(err)
		if e.Kind == route.EventSynced { // all that there was is known; other programs go on
			check(route.Add(ctx, web, route.Default(netip.MustParseAddr("10.88.0.1"))))
		}
		if e.Kind == route.EventChanged && e.Item.Dst.Bits() == 0 {
			fmt.Println(e.Kind, e.Item)
			break
		}
	}
	// Output: changed default via 10.88.0.1 dev 2 proto static
}

// Two gateways as one object that many routes refer to: replacing it moves them
// all at once.
func ExampleAddNextHops() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	eth0, err := link.Get(ctx, box, "eth0")
	check(err)
	err = route.AddNextHops(ctx, box,
		route.NextHop{ID: 1, Via: netip.MustParseAddr("10.88.0.1"), Dev: eth0.Index},
		route.NextHop{ID: 2, Via: netip.MustParseAddr("10.88.0.3"), Dev: eth0.Index},
		route.NextHop{ID: 10, Group: []route.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}}},
	)
	check(err)
	check(route.Add(ctx, box, route.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), NextHop: 10}))

	group, err := route.GetNextHop(ctx, box, 10)
	fmt.Println(group, err)
	// Output: id 10 group 1/2 proto static <nil>
}

func ExampleParse() {
	r, err := route.Parse("10.9.0.0/16 via 10.1.0.1 dev 3 metric 100 mtu lock 1400")
	check(err)
	fmt.Println(r.Via, r.Metrics.MTU)
	fmt.Println(r)
	// Output:
	// 10.1.0.1 1400
	// 10.9.0.0/16 via 10.1.0.1 dev 3 metric 100 mtu lock 1400
}

// Packets with a mark take the routes of a table of their own: policy routing.
func ExampleAddRules() {
	ctx := context.Background()
	box := newBox(ctx)
	defer box.Close()
	way := route.Default(netip.MustParseAddr("10.88.0.7"))
	way.Table = 201
	check(route.Add(ctx, box, way))
	check(route.AddRules(ctx, box, route.Rule{Family: route.IPv4, Mark: 7, Table: 201, Priority: 1000}))

	rules, err := route.ListRules(ctx, box, route.IPv4)
	check(err)
	for _, r := range rules {
		if r.Priority == 1000 {
			fmt.Println(r)
		}
	}
	m, err := route.Lookup(ctx, box, route.Query{Dst: netip.MustParseAddr("192.0.2.1"), Mark: 7})
	check(err)
	fmt.Println("by", m.Via)
	// Output:
	// 1000: from all fwmark 0x7 lookup 201 proto static
	// by 10.88.0.7
}

// The rules of one owner become those given; the second time there is nothing to do.
func ExampleSyncRules() {
	const owner = route.Protocol(201) // this program's own
	ctx := context.Background()
	ns, err := netns.New(ctx)
	check(err)
	defer ns.Close()
	for range 2 {
		did, err := route.SyncRules(ctx, ns, owner,
			route.Rule{From: netip.MustParsePrefix("10.88.0.0/24"), Table: 201, Priority: 1000},
			route.Rule{From: netip.MustParsePrefix("10.88.1.0/24"), Table: 202, Priority: 1001},
		)
		check(err)
		fmt.Println(did.Added, did.Deleted)
	}
	// Output:
	// 2 0
	// 0 0
}

// What is gone already is os.ErrNotExist, and does not keep the others from being deleted.
func ExampleDelete() {
	ctx := context.Background()
	ns, err := netns.New(ctx)
	check(err)
	defer ns.Close()
	a := route.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Type: route.TypeBlackhole}
	b := route.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Type: route.TypeBlackhole}
	check(route.Add(ctx, ns, a))
	err = route.Delete(ctx, ns, b, a)
	fmt.Println(errors.Is(err, os.ErrNotExist))

	left, err := route.List(ctx, ns, route.Filter{Type: route.TypeBlackhole})
	fmt.Println(len(left), err)
	// Output:
	// true
	// 0 <nil>
}

// All routes that a program has made, known by its protocol.
func ExampleFlush() {
	const owner = route.Protocol(201) // this program's own
	ctx := context.Background()
	ns, err := netns.New(ctx)
	check(err)
	defer ns.Close()
	for _, dst := range []string{"203.0.113.0/24", "198.51.100.0/24"} {
		err := route.Add(ctx, ns, route.Route{Dst: netip.MustParsePrefix(dst), Type: route.TypeUnreachable, Protocol: owner})
		check(err)
	}
	n, err := route.Flush(ctx, ns, route.Filter{Protocol: owner})
	fmt.Println(n, err)
	// Output: 2 <nil>
}

// Which member of a resilient group (Linux 5.13) each of its buckets sends to.
func ExampleListBuckets() {
	ctx := context.Background()
	ns, err := netns.Current()
	check(err)
	defer ns.Close()
	buckets, err := route.ListBuckets(ctx, ns, 10)
	check(err)
	for _, b := range buckets {
		fmt.Println(b.Index, b.Member, b.Idle)
	}
}
