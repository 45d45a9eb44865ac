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

// At every start of a daemon: the bridge is made, or found and made to match.
func ExampleEnsure() {
	ctx := context.Background()
	host, err := netns.Current()
	if err != nil {
		log.Fatal(err)
	}
	defer host.Close()
	br, err := link.Ensure(ctx, host, link.Spec{
		Name: "boxwire0", Up: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
		Kind:  link.Bridge{AgeingTime: new(time.Minute), MulticastSnooping: new(false)},
		IPv4:  link.IPv4Conf{Forwarding: new(true)},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the bridge is", br)
}

// A box directly on the network of the host's eth0. The link is made inside the
// box; its parent is meant in the host.
func ExampleCreate_macvlan() {
	ctx := context.Background()
	eth0 := hostLink(ctx, "eth0")
	web, err := netns.Open(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	_, err = link.Create(ctx, eth0.NS(), link.Spec{
		Name: "lan0", NS: web, Parent: eth0.Index, Up: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")},
		Kind:  link.Macvlan{Mode: link.MacvlanBridge},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Only what is named changes, and if the last of it fails nothing has.
func ExampleLink_Change() {
	ctx := context.Background()
	br := hostLink(ctx, "boxwire0")
	br, err := br.Change(ctx, link.Spec{
		MTU: 1400, Alias: "boxes of the shop",
		Kind: link.Bridge{AgeingTime: new(30 * time.Second)},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("packets have up to", br.MTU, "bytes now")
}

// Into another namespace, with another name, in one message.
func ExampleLink_Move() {
	ctx := context.Background()
	usb := hostLink(ctx, "enp0s20u1")
	web, err := netns.Open(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	inside, err := usb.Move(ctx, web, link.MoveOptions{Name: "eth0", Up: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(inside, "is in", web)
}

// All boxes of a bridge, in the time that a few take one by one.
func ExampleDeleteAll() {
	ctx := context.Background()
	br := hostLink(ctx, "boxwire0")
	ports, err := link.List(ctx, br.NS(), link.Filter{Kind: "veth", Master: br.Index})
	if err != nil {
		log.Fatal(err)
	}
	if err := link.DeleteAll(ctx, ports...); netns.IgnoreNotExist(err) != nil {
		log.Fatal(err)
	}
}

// What the kernel says of a link, its kind's options included.
func ExampleLink_Details() {
	ctx := context.Background()
	d, err := hostLink(ctx, "boxwire0").Details(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if br, ok := d.Spec.Kind.(link.Bridge); ok && br.AgeingTime != nil {
		fmt.Println("addresses are forgotten after", *br.AgeingTime)
	}
	fmt.Println(d.Stats.RxBytes, "bytes came in; the carrier changed", d.CarrierChanges, "times")
}

// A program as the other end of a link: it reads and writes IP packets.
func ExampleOpenTun() {
	ctx := context.Background()
	web, err := netns.Open(ctx, "web")
	if err != nil {
		log.Fatal(err)
	}
	defer web.Close()
	_, queues, err := link.OpenTun(ctx, web, link.Spec{
		Name: "tun0", Up: true, MTU: 1400,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")},
		Kind:  link.Tun{},
	}, 1)
	if err != nil {
		log.Fatal(err)
	}
	defer queues[0].Close() // which removes the link
	packet := make([]byte, 1400)
	n, err := queues[0].Read(packet)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("IP version", packet[0]>>4, "in", n, "bytes")
}
