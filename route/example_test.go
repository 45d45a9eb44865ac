package route_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

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
