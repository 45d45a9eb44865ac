package link_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// A bridge in the present namespace, and a box's eth0 that hangs on it: both
// ends of the pair, up and with an address, in one call.
func ExampleCreate() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	web, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()

	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	if err != nil {
		log.Fatal(err)
	}
	eth, err := link.Create(ctx, host, link.Spec{
		Name: "web0", Up: true, Master: br.Index,
		Kind: link.Veth{Peer: link.Spec{
			NS: web, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(eth.Name, "is wired to", web)
}

// A box that other boxes on the bridge cannot reach, and whose groups are not
// flooded.
func ExampleLink_SetPort() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	web0, err := link.Get(ctx, host, "web0")
	if err != nil {
		log.Fatal(err)
	}
	err = web0.SetPort(ctx, link.PortOptions{
		Isolated:       new(true),
		MulticastFlood: new(false),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// An address that lasts an hour and brings no route to its subnet.
func ExampleLink_AddAddrs() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	eth, err := link.Get(ctx, host, "eth0")
	if err != nil {
		log.Fatal(err)
	}
	a := link.StaticAddr(netip.MustParsePrefix("10.88.0.2/16"))
	a.Flags |= link.AddrNoPrefixRoute
	a.Valid = time.Hour
	if err := eth.AddAddrs(ctx, a); err != nil {
		log.Fatal(err)
	}
}
