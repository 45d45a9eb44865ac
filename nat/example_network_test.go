package nat_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A network for the front, whose boxes reach the outside, and one for databases:
// they reach nobody, not even each other, and only the front reaches them.
func ExampleNAT_EnsureNetwork() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, net := range []nat.Network{
		{
			Interface:  "front0",
			Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("fd88::/64")},
			Masquerade: true,
			Reaches:    []string{"data0"},
		},
		{
			Interface: "data0",
			Subnets:   []netip.Prefix{netip.MustParsePrefix("10.89.0.0/24")},
			Internal:  true,
			Isolated:  true,
		},
	} {
		if err := gw.EnsureNetwork(ctx, net); err != nil {
			log.Fatal(err)
		}
	}
}

// A routed network: its boxes have addresses that the outside has a route to, and
// port 443 of one of them is reached there.
func ExampleNAT_AddOpening() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = gw.AddNetwork(ctx, nat.Network{
		Interface: "boxwire0",
		Subnets:   []netip.Prefix{netip.MustParsePrefix("2001:db8:88::/64")},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = gw.AddOpening(ctx, nat.Opening{
		Proto: nat.TCP,
		Box:   netip.MustParseAddrPort("[2001:db8:88::2]:443"),
		Owner: "web",
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Who was turned away, and which bridge ports still let boxes meet.
func ExampleNAT_Networks() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	if err != nil {
		log.Fatal(err)
	}
	nets, err := gw.Networks(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, net := range nets {
		fmt.Printf("%s: %d packets from elsewhere dropped\n", net.Interface, net.Drops.In)
		for _, port := range net.Unisolated {
			fmt.Printf("%s: the bridge port %s is not isolated\n", net.Interface, port)
		}
	}
}
