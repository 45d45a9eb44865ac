package nat_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// check ends an example that has failed.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// wire makes a namespace for a host, with the bridge boxwire0, and one for the box web, whose eth0 is on the bridge and whose
// way out is the host.
func wire(ctx context.Context) (host, web *netns.NS) {
	host, err := netns.New(ctx)
	check(err)
	web, err = netns.New(ctx)
	check(err)
	gateway, address := netip.MustParsePrefix("10.88.0.1/16"), netip.MustParsePrefix("10.88.0.2/16")
	br, err := link.Create(ctx, host, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{gateway},
	})
	check(err)
	web0, err := link.Create(ctx, host, link.Spec{
		Name: "web0", Up: true, Master: br.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: web, Name: "eth0", Up: true, Addrs: []netip.Prefix{address}}},
	})
	check(err)
	check(route.Add(ctx, web, route.Default(gateway.Addr())))
	check(web0.WaitReachable(ctx))
	return host, web
}

// boxes is the network of wire's bridge.
var boxes = nat.Network{
	Interface:  "boxwire0",
	Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
	Masquerade: true,
}

// web8080 is port 8080 of the host, for port 80 of the box web.
var web8080 = nat.Port{
	Proto: nat.TCP, Owner: "web",
	Host: netip.MustParseAddrPort("0.0.0.0:8080"),
	Box:  netip.MustParseAddrPort("10.88.0.2:80"),
}

// A port of the host leads to a box behind the bridge boxwire0.
func Example() {
	ctx := context.Background()
	host, web := wire(ctx) // a bridge and a box on it, by the package link
	defer host.Close()
	defer web.Close()

	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AddNetwork(ctx, nat.Network{
		Interface:  "boxwire0",
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
		Masquerade: true,
	}))
	check(gw.Publish(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("0.0.0.0:8080"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
		Owner: "web",
	}))

	ln, err := web.Listen(ctx, "tcp", ":80")
	check(err)
	defer ln.Close()
	c, err := host.Dial(ctx, "tcp", "10.88.0.1:8080")
	check(err)
	defer c.Close()
	visitor, err := ln.Accept()
	check(err)
	defer visitor.Close()
	fmt.Println("the host's port 8080 leads to", visitor.LocalAddr())
	// Output: the host's port 8080 leads to 10.88.0.2:80
}

// What is published, for whom, and how many came.
func ExampleNAT_ListPorts() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.Publish(ctx, web8080))

	ports, err := gw.ListPorts(ctx)
	check(err)
	for _, p := range ports {
		fmt.Println(p.Owner, p, p.Connections)
	}
	// Output: web tcp 0.0.0.0:8080 -> 10.88.0.2:80 0
}

// Another program may flush the ruleset at any time; what was published comes back.
func ExampleNAT_Maintain() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	state := nat.State{Networks: []nat.Network{boxes}, Ports: []nat.Port{web8080}}
	for repair, err := range gw.Maintain(ctx, func() nat.State { return state }) {
		if err != nil {
			log.Print(err)
			continue
		}
		log.Print(repair) // "the table was removed by nft (4711)"
	}
}

// Is the table there and whole? Nothing is changed.
func ExampleCheck() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	state := nat.State{Networks: []nat.Network{boxes}, Ports: []nat.Port{web8080}}
	err := nat.Check(ctx, host, "", state)
	fmt.Println("there:", netns.IgnoreNotExist(err) != nil || err == nil) // os.ErrNotExist, or nat.ErrDamaged

	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.Sync(ctx, state))
	fmt.Println("whole:", nat.Check(ctx, host, "", state) == nil)
	// Output:
	// there: false
	// whole: true
}

// Who is connected to a box.
func ExampleNAT_ListFlows() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.Sync(ctx, nat.State{Networks: []nat.Network{boxes}, Ports: []nat.Port{web8080}}))
	ln, err := web.Listen(ctx, "tcp", ":80")
	check(err)
	defer ln.Close()
	c, err := host.Dial(ctx, "tcp", "10.88.0.1:8080")
	check(err)
	defer c.Close()

	flows, err := gw.ListFlows(ctx, netip.MustParseAddr("10.88.0.2"))
	check(err)
	for _, f := range flows {
		fmt.Println(f.Proto, f.Original.Dst, "is answered by", f.Reply.Src)
	}
	// Output: tcp 10.88.0.1:8080 is answered by 10.88.0.2:80
}

// A port does not answer; why?
func ExampleNAT_Explain() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.Sync(ctx, nat.State{Networks: []nat.Network{boxes}, Ports: []nat.Port{web8080}}))

	causes, err := gw.Explain(ctx, web8080, nat.Hints{Box: web})
	check(err)
	for _, c := range causes {
		if c.Kind == nat.CauseNoListener {
			fmt.Println(c)
		}
	}
	// Output: no program in the box listens on tcp port 80.
}

// A browser on the host may take localhost for ::1, and visitors may come over IPv6 where the box has IPv4 only.
func ExampleNAT_Proxy() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close() // ends the proxy, too
	proxy, err := gw.Proxy(ctx, nat.Port{
		Proto: nat.TCP,
		Host:  netip.MustParseAddrPort("[::1]:8080"),
		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
	})
	check(err)
	defer proxy.Close()
	fmt.Println(proxy) // "tcp [::1]:8080 -> 10.88.0.2:80"
}

// Where Docker or ufw drop what is forwarded, the boxes' networks are excepted on purpose.
func ExampleNAT_AcceptForward() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	gw, err := nat.Open(ctx, host, nat.Options{})
	check(err)
	defer gw.Close()
	check(gw.AcceptForward(ctx))
	// ...
	check(gw.RevokeForward(ctx))
}
