package route_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// host is a machine of an overlay: number 1, 2, ... has the address 192.0.2.1, 192.0.2.2, ... on the
// network between the machines, and boxes in 10.100.1.0/24, 10.100.2.0/24, ...
type host struct {
	number byte
	ns     *netns.NS
	boxes  []*netns.NS
	tunnel link.Link
}

func ip(a, b, c, d byte) netip.Addr           { return netip.AddrFrom4([4]byte{a, b, c, d}) }
func (h *host) outer() netip.Addr             { return ip(192, 0, 2, h.number) }
func (h *host) subnet() netip.Prefix          { return netip.PrefixFrom(ip(10, 100, h.number, 0), 24) }
func (h *host) gateway() netip.Addr           { return ip(10, 100, h.number, 1) }
func (h *host) box(i int) netip.Addr          { return ip(10, 100, h.number, byte(2+i)) }
func single(a netip.Addr) netip.Prefix        { return netip.PrefixFrom(a, a.BitLen()) }
func bits(a netip.Addr, n int) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, n)} }

const (
	outerMTU = 1500
	overhead = 20 + 8 + 8 // IPv4, UDP and VXLAN headers; there is no Ethernet header inside
	innerMTU = outerMTU - overhead
)

// newHost makes a machine with two boxes, on the network between the machines.
func newHost(ctx context.Context, number byte, between *netns.NS) *host {
	h := &host{number: number}
	var err error
	h.ns, err = netns.New(ctx)
	check(err)
	eth, err := link.Create(ctx, between, link.Spec{
		Name: fmt.Sprint("host", number), Index: 10 + int(number), Up: true, MTU: outerMTU, Master: link.Ref{Name: "net0"},
		Kind: link.Veth{Peer: link.Spec{NS: h.ns, Name: "eth0", Index: 2, Up: true, Addrs: bits(h.outer(), 24)}},
	})
	check(err)

	// ip link add fl0 mtu 1464 type vxlan external gpe dstport 4790 nolearning
	h.tunnel, err = link.Create(ctx, h.ns, link.Spec{
		Name: "fl0", Index: 3, Up: true, MTU: innerMTU, IPv4: link.IPv4Conf{Forwarding: new(true)},
		Kind: link.VXLAN{External: true, GPE: true, Port: 4790, Learning: new(false)},
	})
	check(err)

	br, err := link.Create(ctx, h.ns, link.Spec{
		Name: "boxes0", Up: true, MTU: innerMTU, Kind: link.Bridge{}, IPv4: link.IPv4Conf{Forwarding: new(true)}, Addrs: bits(h.gateway(), 24),
	})
	check(err)
	for i := range 2 {
		box, err := netns.New(ctx)
		check(err)
		h.boxes = append(h.boxes, box)
		port, err := link.Create(ctx, h.ns, link.Spec{
			Name: fmt.Sprint("box", i), Index: 10 + i, Up: true, MTU: innerMTU, Master: br.Ref(),
			Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Index: 2, Up: true, MTU: innerMTU, Addrs: []netip.Prefix{single(h.box(i))}}},
		})
		check(err)
		// The box has one address and no subnet: its gateway is on the link all the same.
		way := route.Default(h.gateway())
		way.Dev, way.OnLink = 2, true
		check(route.Add(ctx, box, way))
		check(port.WaitReachable(ctx))
	}
	check(eth.WaitReachable(ctx))
	return h
}

// toPeers returns the routes of a machine: one to each of the others, and one that keeps what is nobody's
// from leaving by a default route.
func (h *host) toPeers(all []*host) []route.Route {
	routes := []route.Route{{Dst: netip.MustParsePrefix("10.100.0.0/16"), Type: route.TypeUnreachable, Metric: 1<<32 - 1}}
	for _, peer := range all {
		if peer == h {
			continue
		}
		// ip route add 10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev fl0
		routes = append(routes, route.Route{
			Dst: peer.subnet(), Dev: h.tunnel.Index, Metrics: &route.Metrics{MTU: innerMTU},
			Encap: route.IPEncap{ID: 7, Dst: peer.outer(), TTL: 64},
		})
	}
	return routes
}

// ask connects a box with another one and returns what that sends.
func ask(ctx context.Context, from, to *netns.NS, addr netip.Addr) string {
	ln, err := to.Listen(ctx, "tcp", netip.AddrPortFrom(addr, 80).String())
	check(err)
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		check(err)
		fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP, " to ", addr)
		c.Close()
	}()
	c, err := from.Dial(ctx, "tcp", ln.Addr().String())
	check(err)
	defer c.Close()
	text := make([]byte, 64)
	n, err := c.Read(text)
	check(err)
	return string(text[:n])
}

// Three machines, two boxes on each, and all reach all: an overlay of one tunnel link a machine and one
// route a peer, with no forwarding database, no neighbours and no hardware addresses to keep. The
// machines are namespaces here. Package link makes the links, and route.Sync keeps the routes.
func Example_overlay() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	between, err := netns.New(ctx)
	check(err)
	defer between.Close()
	_, err = link.Create(ctx, between, link.Spec{Name: "net0", Up: true, Kind: link.Bridge{}, Addrs: bits(ip(192, 0, 2, 254), 24)})
	check(err)
	var hosts []*host
	for number := byte(1); number <= 3; number++ {
		h := newHost(ctx, number, between)
		defer h.ns.Close()
		for _, box := range h.boxes {
			defer box.Close()
		}
		hosts = append(hosts, h)
	}

	const owner = route.Protocol(201) // this program's own
	for _, h := range hosts {
		did, err := route.Sync(ctx, h.ns, owner, h.toPeers(hosts)...)
		check(err)
		fmt.Printf("host %d: %+v\n", h.number, did)
	}
	routes, err := route.List(ctx, hosts[0].ns, route.Filter{Protocol: owner})
	check(err)
	for _, r := range routes {
		fmt.Println(r)
	}
	inside, err := route.List(ctx, hosts[0].boxes[0], route.Filter{Family: route.IPv4, Table: route.TableMain})
	check(err)
	fmt.Println("in a box:", inside[0])

	ways := 0
	for _, a := range hosts {
		for i, from := range a.boxes {
			for _, b := range hosts {
				for k, to := range b.boxes {
					if from != to && ask(ctx, from, to, b.box(k)) == fmt.Sprint(a.box(i), " to ", b.box(k)) {
						ways++
					}
				}
			}
		}
	}
	fmt.Println(ways, "ways are open")

	// Host 3 is gone: what is sent to its boxes comes back with an error, and does not leave the machine.
	routes = hosts[0].toPeers(hosts)
	routes[2] = route.Route{Dst: hosts[2].subnet(), Type: route.TypeUnreachable}
	did, err := route.Sync(ctx, hosts[0].ns, owner, routes...)
	check(err)
	fmt.Printf("host 1: %+v\n", did)
	_, err = hosts[0].ns.Dial(ctx, "tcp", "10.100.3.2:80")
	fmt.Println("unreachable:", errors.Is(err, syscall.EHOSTUNREACH))
	// Output:
	// host 1: {Added:3 Replaced:0 Deleted:0}
	// host 2: {Added:3 Replaced:0 Deleted:0}
	// host 3: {Added:3 Replaced:0 Deleted:0}
	// unreachable 10.100.0.0/16 proto 201 metric 4294967295
	// 10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 3 proto 201 scope link mtu 1464
	// 10.100.3.0/24 encap ip id 7 dst 192.0.2.3 ttl 64 dev 3 proto 201 scope link mtu 1464
	// in a box: default via 10.100.1.1 dev 2 proto static onlink
	// 30 ways are open
	// host 1: {Added:0 Replaced:1 Deleted:0}
	// unreachable: true
}
