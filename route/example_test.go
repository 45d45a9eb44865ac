package route_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A default route, and a second network behind another gateway.
func ExampleAdd() {
	ctx := context.Background()
	web, err := netns.Open(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	err = route.Add(ctx, web,
		route.Default(netip.MustParseAddr("10.88.0.1")),
		route.To(netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.88.0.7")),
	)
	if err != nil {
		log.Fatal(err) // route.Add route default via 10.88.0.1 in netns web: ...
	}
}

// A flow keeps to one of two gateways; the second one takes three times as many.
func ExampleAdd_multipath() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	err = route.Add(ctx, ns, route.Route{
		Dst: netip.MustParsePrefix("0.0.0.0/0"),
		Hops: []route.Hop{
			{Via: netip.MustParseAddr("192.0.2.1"), Weight: 1},
			{Via: netip.MustParseAddr("198.51.100.1"), Weight: 3},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Packets to an attacker's network are dropped without an answer, those to a
// network that is not in use get one.
func ExampleReplace_blackhole() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	err = route.Replace(ctx, ns,
		route.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Type: route.Blackhole},
		route.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Type: route.Unreachable, Metric: 4096},
	)
	if err != nil {
		log.Fatal(err)
	}
}

// A second uplink: what is sent from its address leaves by it, whatever the
// default route says. Run again, with other addresses or after a crash, it changes
// only what differs.
func ExampleSync_secondUplink() {
	const owner = route.Protocol(201) // this program's own
	const table = route.Table(201)
	uplink, gateway := netip.MustParsePrefix("198.51.100.7/32"), netip.MustParseAddr("198.51.100.1")

	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	out := route.Default(gateway)
	out.Table = table
	if _, err := route.Sync(ctx, ns, owner, out); err != nil {
		log.Fatal(err)
	}
	if _, err := route.SyncRules(ctx, ns, owner, route.Rule{From: uplink, Table: table, Priority: 1000}); err != nil {
		log.Fatal(err)
	}
}

func ExampleList() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	routes, err := route.List(ctx, ns, route.Filter{Family: route.IPv4, Table: route.TableMain})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range routes {
		fmt.Println(r)
	}
}

// A full table, counted without being held.
func ExampleAll() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	n := 0
	for _, err := range route.All(ctx, ns, route.Filter{Protocol: route.ProtoBird}) {
		if err != nil {
			log.Fatal(err)
		}
		n++
	}
	fmt.Println(n, "routes of BIRD")
}

func ExampleLookup() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	m, err := route.Lookup(ctx, ns, route.Query{Dst: netip.MustParseAddr("192.0.2.1"), Mark: 7})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("from %s by link %d, as %q says\n", m.Src, m.Dev, m.Route)
}

// The default route of a box, as it comes and goes.
func ExampleWatch() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	web, err := netns.Open(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	for e, err := range route.Watch(ctx, web, route.Filter{Family: route.IPv4, Table: route.TableMain}) {
		if err != nil {
			log.Fatal(err)
		}
		switch {
		case e.Kind == route.Synced || e.Kind == route.Resync:
			fmt.Println(e.Kind)
		case e.Item.Dst.Bits() == 0:
			fmt.Println(e.Kind, e.Item)
		}
	}
}

// Two gateways as one object that many routes refer to: replacing it moves them
// all at once.
func ExampleAddNextHops() {
	ctx := context.Background()
	ns, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer ns.Close()
	const eth1 = 7 // the index of a link
	err = route.AddNextHops(ctx, ns,
		route.NextHop{ID: 1, Via: netip.MustParseAddr("192.0.2.1"), Dev: eth1},
		route.NextHop{ID: 2, Via: netip.MustParseAddr("192.0.2.2"), Dev: eth1},
		route.NextHop{ID: 10, Group: []route.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}}},
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := route.Add(ctx, ns, route.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), NextHop: 10}); err != nil {
		log.Fatal(err)
	}
}

func ExampleParse() {
	r, err := route.Parse("10.9.0.0/16 via 10.1.0.1 dev 3 metric 100 mtu lock 1400")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	fmt.Println(r.Via, r.Metrics.MTU)
	fmt.Println(r)
	// Output:
	// 10.1.0.1 1400
	// 10.9.0.0/16 via 10.1.0.1 dev 3 metric 100 mtu lock 1400
}
