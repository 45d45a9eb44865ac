package nat_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A program begins: the table becomes what it wants, whatever an earlier run left.
func ExampleNAT_Sync() {
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
	defer gw.Close() // gives the host ports back; what is published stays
	err = gw.Sync(ctx, nat.State{
		Networks: []nat.Network{{
			Interface:  "boxwire0",
			Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
			Masquerade: true,
		}},
		Ports: []nat.Port{
			{Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.MustParseAddrPort("10.88.0.2:80"), Owner: "web"},
			{Proto: nat.UDP, Host: netip.MustParseAddrPort("0.0.0.0:10000"), HostLast: 19999, Box: netip.MustParseAddrPort("10.88.0.3:10000"), Owner: "rtp"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Any free port of the host leads to the box.
func ExampleNAT_PublishFree() {
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
	ports, err := gw.PublishFree(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("0.0.0.0:0"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
		Owner: "web",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ports[0].Host.Port()) // 32769, say
}
