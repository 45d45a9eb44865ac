package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A box that may reach HTTPS of one network, and the host's resolver. What a name has resolved to is granted for the time of
// the answer.
func ExampleNAT_SetPolicies() {
	ctx := context.Background()
	host, err := netns.New(ctx) // netns.Current: the one we are in
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AddNetwork(ctx, nat.Network{
		Interface:  "boxwire0",
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
		Masquerade: true,
		Strict:     true, // a box without a policy reaches nothing
	}))
	box := netip.MustParseAddr("10.88.0.2")
	check(gw.SetPolicies(ctx, nat.Policy{
		Box: []netip.Addr{box}, Owner: "web", Refuse: true,
		Egress: &nat.Rules{Allow: []nat.Rule{
			{Proto: nat.TCP, Peer: netip.MustParsePrefix("203.0.113.0/24"), Port: 443},
			{Proto: nat.UDP, Host: true, Port: 53},
		}},
	}))
	check(gw.Grant(ctx, box, time.Minute, nat.Rule{Proto: nat.TCP, Peer: netip.MustParsePrefix("198.51.100.7/32"), Port: 443}))
	all, err := gw.ListPolicies(ctx)
	check(err)
	for _, p := range all {
		fmt.Println(p.Box, p.Owner, p.Egress.Allow, p.DeniedOut)
	}
	// Output:
	// [10.88.0.2] web [tcp 203.0.113.0/24 port 443 udp host port 53] 0
}

// Rules have a text form, for flags and configuration files.
func ExampleRule_UnmarshalText() {
	var r nat.Rule
	check(r.UnmarshalText([]byte("tcp 10.0.0.0/8 except 10.1.0.0/16 port 8000-8999")))
	fmt.Println(r.Peer, r.Except, r.Port, r.PortLast)
	// Output:
	// 10.0.0.0/8 [10.1.0.0/16] 8000 8999
}
