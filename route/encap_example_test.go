package route_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Two hosts reach each other's networks through one tunnel link on each, with one route a peer:
//
//	ip route add 10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev fl0
func ExampleIPEncap() {
	ctx := context.Background()
	var hosts [2]*netns.NS
	for i := range hosts {
		host, err := netns.New(ctx)
		check(err)
		defer host.Close()
		hosts[i] = host
	}
	eth, err := link.Create(ctx, hosts[0], link.Spec{
		Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		Kind: link.Veth{Peer: link.Spec{NS: hosts[1], Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}},
	})
	check(err)
	_, err = eth.WaitCarrier(ctx)
	check(err)
	for i, host := range hosts {
		own, peer := byte(i+1), byte(2-i)
		fl0, err := link.Create(ctx, host, link.Spec{
			Name: "fl0", Index: 10, Up: true, MTU: 1464, Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, own, 1}), 32)},
			Kind: link.VXLAN{External: true, GPE: true, Port: 4790, Learning: new(false)},
		})
		check(err)
		r := route.Route{
			Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, peer, 0}), 24), Dev: fl0.Index,
			Encap: route.IPEncap{ID: 7, Dst: netip.AddrFrom4([4]byte{192, 0, 2, peer}), TTL: 64},
		}
		check(route.Add(ctx, host, r))
		fmt.Println(r)
	}

	ln, err := hosts[1].Listen(ctx, "tcp", "10.100.2.1:80")
	check(err)
	defer ln.Close()
	c, err := hosts[0].Dial(ctx, "tcp", "10.100.2.1:80")
	check(err)
	defer c.Close()
	visitor, err := ln.Accept()
	check(err)
	fmt.Fprint(visitor, "hello ", visitor.RemoteAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr())
	visitor.Close()
	text, err := io.ReadAll(c)
	check(err)
	fmt.Printf("%s\n", text)
	// Output:
	// 10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 10
	// 10.100.1.0/24 encap ip id 7 dst 192.0.2.1 ttl 64 dev 10
	// hello 10.100.1.1
}
