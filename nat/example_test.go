package nat_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A port of the host leads to a box behind the bridge boxwire0. It needs
// CAP_NET_ADMIN and the bridge.
func Example() {
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
		Interface:  "boxwire0",
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
		Masquerade: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	err = gw.Publish(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("0.0.0.0:8080"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
		Owner: "web",
	})
	if err != nil {
		log.Fatal(err)
	}
}

// What is published, and how many came.
func ExampleNAT_List() {
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
	ports, err := gw.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range ports {
		fmt.Println(p.Owner, p, p.Connections)
	}
}

// Another program may flush the ruleset at any time; what was published comes
// back.
func ExampleNAT_Keep() {
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
	state := nat.State{Ports: []nat.Port{{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("0.0.0.0:8080"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
		Owner: "web",
	}}}
	for repair, err := range gw.Keep(ctx, func() nat.State { return state }) {
		if err != nil {
			log.Print(err)
			continue
		}
		log.Print(repair) // "the table was removed by nft (4711)"
	}
}

// Who is connected to a box.
func ExampleNAT_Flows() {
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
	flows, err := gw.Flows(ctx, netip.MustParseAddr("10.88.0.2"))
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range flows {
		fmt.Println(f) // "tcp 203.0.113.9:40000 -> 203.0.113.1:8080 (10.88.0.2:80) ESTABLISHED"
	}
}

// A port does not answer; why?
func ExampleNAT_Explain() {
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
	causes, err := gw.Explain(ctx, nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort("203.0.113.1:8080")}, nat.Hints{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(causes) // "the policy of chain ip filter FORWARD drops connections to the port: ..."
	for _, c := range causes {
		if c.Kind == nat.CauseForeignDrop {
			fmt.Println("ask the firewall's administrator about", c.Subject)
		}
	}
}

// A browser on the host may take localhost for ::1, and visitors may come over
// IPv6 where the box has IPv4 only.
func ExampleNAT_Proxy() {
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
	defer gw.Close() // ends the proxy, too
	proxy, err := gw.Proxy(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("[::1]:8080"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer proxy.Close()
	fmt.Println(proxy) // "tcp [::1]:8080 -> 10.88.0.2:80"
}

// Where Docker or ufw drop what is forwarded, the boxes' networks are excepted on
// purpose.
func ExampleNAT_AcceptForward() {
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
	if err := gw.AcceptForward(ctx); err != nil {
		log.Fatal(err)
	}
	// ...
	if err := gw.RevokeForward(ctx); err != nil {
		log.Fatal(err)
	}
}
