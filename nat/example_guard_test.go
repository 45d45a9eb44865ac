package nat_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A box that is bound to its address, and closed from its first frame: the guard first, the policy next, and then the link
// goes up.
func ExampleNAT_SetGuards() {
	ctx := context.Background()
	host, err := netns.New(ctx) // netns.Current: the one we are in
	check(err)
	defer host.Close()
	web, err := netns.New(ctx)
	check(err)
	defer web.Close()
	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{LinkLocalLearn: new(false)},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	check(err)
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AddNetwork(ctx, boxes))

	box, mac := netip.MustParseAddr("10.88.0.2"), net.HardwareAddr{2, 0, 10, 88, 0, 2}
	web0, err := link.Create(ctx, host, link.Spec{ // not up yet
		Name: "web0", Master: br.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: web, Name: "eth0", Up: true, MAC: mac, Addrs: []netip.Prefix{netip.PrefixFrom(box, 16)}}},
	})
	check(err)
	check(gw.SetGuards(ctx, nat.Guard{Port: "web0", MAC: mac, Box: []netip.Addr{box}, Owner: "web"}))
	check(gw.SetPolicies(ctx, nat.Policy{Box: []netip.Addr{box}, Owner: "web", Egress: &nat.Rules{}}))
	check(web0.SetUp(ctx))

	guards, err := gw.ListGuards(ctx)
	check(err)
	for _, g := range guards {
		fmt.Println(g.Port, g.MAC, g.Box, g.Owner, g.Forged)
	}
	// Output:
	// web0 02:00:0a:58:00:02 [10.88.0.2] web 0
}
