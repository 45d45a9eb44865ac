package nat_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/nat"
)

// A program begins: the table becomes what it wants, whatever an earlier run left. It may be repeated.
func ExampleNAT_Sync() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close() // gives the host ports back; what is published stays
	check(gw.Sync(ctx, nat.State{
		Networks: []nat.Network{{
			Interface:  "boxwire0",
			Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
			Masquerade: true,
		}},
		Ports: []nat.Port{
			{Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.MustParseAddrPort("10.88.0.2:80"), Owner: "web"},
			{Proto: nat.UDP, Host: netip.MustParseAddrPort("0.0.0.0:10000"), HostLast: 10999, Box: netip.MustParseAddrPort("10.88.0.3:10000"), Owner: "rtp"},
		},
	}))
	ports, err := gw.ListPorts(ctx)
	check(err)
	fmt.Println(len(ports), "ports")
	// Output: 2 ports
}

// A range that has the same numbers in the box is one element, however long it is. No other port overlaps it.
func ExampleNAT_Publish_range() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.Publish(ctx, nat.Port{
		Proto: nat.UDP,
		Host:  netip.MustParseAddrPort("0.0.0.0:10000"), HostLast: 10999,
		Box:   netip.MustParseAddrPort("10.88.0.2:10000"),
		Owner: "rtp",
	}))
	err = gw.Publish(ctx, nat.Port{
		Proto: nat.UDP, Owner: "web",
		Host: netip.MustParseAddrPort("10.88.0.1:10500"), Box: netip.MustParseAddrPort("10.88.0.2:53"),
	})
	fmt.Println("taken:", errors.Is(err, os.ErrExist))

	ports, err := gw.ListPorts(ctx)
	check(err)
	fmt.Println(ports[0].Owner, ports[0])
	// Output:
	// taken: true
	// rtp udp 0.0.0.0:10000-10999 -> 10.88.0.2:10000-10999
}

// Any free port of the host leads to the box.
func ExampleNAT_PublishFree() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	ports, err := gw.PublishFree(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("0.0.0.0:0"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
		Owner: "web",
	})
	check(err)
	fmt.Println("it has a number:", ports[0].Host.Port() != 0) // 32769, say
	// Output: it has a number: true
}

// A port on the addresses that one link has now, and on no other.
func ExampleNAT_ExpandLink() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	ports, err := gw.ExpandLink(ctx, "boxwire0", web8080)
	check(err)
	check(gw.Publish(ctx, ports...))
	for _, p := range ports {
		fmt.Println(p)
	}
	// Output: tcp 10.88.0.1:8080 -> 10.88.0.2:80
}
