package link_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// A daemon at its start: Ensure makes the bridge, or makes an existing one match.
func ExampleEnsure() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	spec := link.Spec{
		Name: "boxwire0", Up: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
		Kind:  link.Bridge{AgeingTime: new(time.Minute), MulticastSnooping: new(false)},
		IPv4:  link.IPv4Conf{Forwarding: new(true)},
	}
	first, err := link.Ensure(ctx, host, spec)
	check(err)
	again, err := link.Ensure(ctx, host, spec)
	check(err)
	fmt.Println(again.Name, "is the same link:", first.Index == again.Index)
	// Output: boxwire0 is the same link: true
}

// VLAN 100 of the host's eth0, with an address.
func ExampleCreate_vlan() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	_, err = link.Create(ctx, host, link.Spec{
		Name: "eth0.100", Up: true, Parent: link.Ref{Name: "eth0"}, Kind: link.VLAN{ID: 100},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.100.0.2/24")},
	})
	check(err)
}

// A VXLAN link for any number of hosts: the route of a packet says which of them it goes to, see IPEncap of
// package route. It carries IP packets, and has no hardware address. It is
//
//	ip link add fl0 mtu 1464 type vxlan external gpe dstport 4790 nolearning
func ExampleCreate_vxlan() {
	ctx := context.Background()
	host, err := netns.New(ctx)
	check(err)
	defer host.Close()
	fl0, err := link.Create(ctx, host, link.Spec{
		Name: "fl0", Up: true, MTU: 1464, // 1500 less the headers of IPv4, UDP and VXLAN
		Kind: link.VXLAN{External: true, GPE: true, Port: 4790, Learning: new(false)},
	})
	check(err)

	d, err := fl0.Details(ctx)
	check(err)
	k := d.Spec.Kind.(link.VXLAN)
	fmt.Println(fl0.Name, fl0.Kind, "port", k.Port, "mtu", fl0.MTU)
	fmt.Println("external:", k.External, "gpe:", k.GPE, "learning:", *k.Learning, "hardware address:", fl0.MAC != nil)
	// Output:
	// fl0 vxlan port 4790 mtu 1464
	// external: true gpe: true learning: false hardware address: false
}

// A box directly on the network of the host's eth0. The link is made inside the box; its parent is in the host.
func ExampleCreate_macvlan() {
	ctx := context.Background()
	host, err := netns.Current()
	check(err)
	defer host.Close()
	web, err := netns.Open(ctx, "web")
	check(err)
	defer web.Close()
	eth0, err := link.Get(ctx, host, "eth0")
	check(err)
	_, err = link.Create(ctx, host, link.Spec{
		Name: "lan0", NS: web, Parent: eth0.Ref(), Up: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")},
		Kind:  link.Macvlan{Mode: link.MacvlanBridge},
	})
	check(err)
}

// Update changes what is named. If a part fails, nothing has changed.
func ExampleLink_Update() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	br, err = br.Update(ctx, link.Spec{
		MTU: 1400, Alias: "boxes of the shop",
		Kind: link.Bridge{AgeingTime: new(30 * time.Second)},
	})
	check(err)
	fmt.Println("packets have up to", br.MTU, "bytes now")
	// Output: packets have up to 1400 bytes now
}

// A link moves into another namespace, with another name, in one message.
func ExampleLink_Move() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	web0, err := link.Get(ctx, host, "web0")
	check(err)
	inside, err := web0.Move(ctx, web, link.MoveOptions{Name: "eth1", Up: true})
	check(err)
	fmt.Println(inside.Name, "is in the box:", inside.NS().Equal(web))
	// Output: eth1 is in the box: true
}

// All ports of a bridge are deleted together. A link that is gone already does not matter.
func ExampleDeleteAll() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	ports, err := link.List(ctx, host, link.Filter{Kind: "veth", Master: br.Ref()})
	check(err)
	check(netns.IgnoreNotExist(link.DeleteAll(ctx, ports...)))

	ports, err = link.List(ctx, host, link.Filter{Master: br.Ref()})
	check(err)
	fmt.Println(len(ports), "ports")
	// Output: 0 ports
}

// What the kernel reports of a link, its kind's options included.
func ExampleLink_Details() {
	ctx := context.Background()
	host, web := wire(ctx)
	defer host.Close()
	defer web.Close()
	br, err := link.Get(ctx, host, "boxwire0")
	check(err)
	d, err := br.Details(ctx)
	check(err)
	if br, ok := d.Spec.Kind.(link.Bridge); ok && br.AgeingTime != nil {
		fmt.Println("addresses are forgotten after", *br.AgeingTime)
	}
	// Output: addresses are forgotten after 5m0s
}

// A program as the other end of a link: it reads and writes IP packets.
func ExampleOpenTun() {
	ctx := context.Background()
	web, err := netns.Open(ctx, "web")
	check(err)
	defer web.Close()
	_, queues, err := link.OpenTun(ctx, web, link.Spec{
		Name: "tun0", Up: true, MTU: 1400,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")},
		Kind:  link.Tun{},
	}, 1)
	check(err)
	defer queues[0].Close() // which removes the link
	packet := make([]byte, 1400)
	n, err := queues[0].Read(packet)
	check(err)
	fmt.Println("IP version", packet[0]>>4, "in", n, "bytes")
}
