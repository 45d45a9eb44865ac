package nat_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A network for the front, whose boxes reach the outside, and one for databases: they reach no one, not even each other, and
// only the front reaches them.
func ExampleNAT_SetNetwork() {
	ctx := context.Background()
	host, err := netns.New(ctx) // netns.Current: the one we are in
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	for _, net := range []nat.Network{
		{
			Interface:  "front0",
			Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24")},
			Masquerade: true,
			AllowTo:    []string{"data0"},
		},
		{
			Interface: "data0",
			Subnets:   []netip.Prefix{netip.MustParsePrefix("10.89.0.0/24")},
			Internal:  true,
			Isolated:  true,
		},
	} {
		check(gw.SetNetwork(ctx, net))
	}
	nets, err := gw.ListNetworks(ctx)
	check(err)
	for _, net := range nets {
		fmt.Println(net.Interface, net.Subnets, net.AllowTo)
	}
	// Output:
	// data0 [10.89.0.0/24] []
	// front0 [10.88.0.0/24] [data0]
}

// A routed network: its boxes have addresses that the outside has a route to, and port 443 of one of them is reached there.
func ExampleNAT_AddPinholes() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AddNetwork(ctx, nat.Network{
		Interface: "boxwire0",
		Subnets:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/26")},
	}))
	check(gw.AddPinholes(ctx, nat.Pinhole{
		Proto: nat.TCP,
		Box:   netip.MustParseAddrPort("203.0.113.2:443"),
		Owner: "web",
	}))
	nets, err := gw.ListNetworks(ctx)
	check(err)
	for _, o := range nets[0].Pinholes {
		fmt.Println(o.Owner, o)
	}
	// Output: web tcp 203.0.113.2:443
}

// A network behind a tunnel of the provider's, which takes packets of 1400 bytes and reports that to no sender; one of its boxes answers
// a ping at its own address.
func ExampleNetwork() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.SetNetwork(ctx, nat.Network{
		Interface: "boxwire0",
		Subnets:   []netip.Prefix{netip.MustParsePrefix("203.0.113.0/26")},
		MSS:       1360,
		Pinholes: []nat.Pinhole{
			{Proto: nat.ICMP, Box: netip.MustParseAddrPort("203.0.113.2:0"), Owner: "ops"},
		},
	}))
	nets, err := gw.ListNetworks(ctx)
	check(err)
	fmt.Println(nets[0].MSS, nets[0].Pinholes)
	// Output: 1360 [icmp 203.0.113.2]
}

// Who was turned away, and which bridge ports still let boxes meet.
func ExampleNAT_ListNetworks() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	isolated := boxes
	isolated.Isolated = true
	check(gw.AddNetwork(ctx, isolated))

	nets, err := gw.ListNetworks(ctx)
	check(err)
	for _, net := range nets {
		fmt.Printf("%s: %d packets from elsewhere dropped\n", net.Interface, net.Drops.In)
		for _, port := range net.LeakyPorts {
			fmt.Printf("%s: the bridge port %s is not isolated\n", net.Interface, port)
		}
	}
	// Output:
	// boxwire0: 0 packets from elsewhere dropped
	// boxwire0: the bridge port web0 is not isolated
}

// Two hosts share the pool 10.100.0.0/16, and this one has 10.100.7.0/24 of it. The boxes of both reach each other by their own
// addresses. Port 8080 of this host leads to a box of the other host, which answers by way of this one.
func ExampleNetwork_trusted() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AddNetwork(ctx, nat.Network{
		Interface:   "boxwire0",
		Subnets:     []netip.Prefix{netip.MustParsePrefix("10.100.7.0/24")},
		Masquerade:  true,
		Trusted:     []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}, // the caller adds the routes
		VisitorSNAT: []netip.Addr{netip.MustParseAddr("10.100.7.1")},        // of boxwire0
	}))
	far := nat.Port{
		Proto: nat.TCP, Owner: "far",
		Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.MustParseAddrPort("10.100.9.2:80"),
	}
	check(gw.Publish(ctx, far))
	causes, err := gw.Explain(ctx, far, nat.Hints{})
	check(err)
	fmt.Println(causes)
	// Output:
	// the host has no route to the box's address 10.100.9.2, which Network.Trusted says is on another host.
	// perhaps: visitors come to the box 10.100.9.2 from 10.100.7.1, as Network.VisitorSNAT of boxwire0 says, which is no address of the host: the box's answers come back only if the routes lead them here.
}
