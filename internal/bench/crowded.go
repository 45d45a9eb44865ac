package main

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// portGroup is the link group of the boxes' bridge ports.
const portGroup = 7

// prepareBridge readies the bridge for many boxes, as the documentation of package
// link advises, and with quiet as a network with a group of ports, of package nat.
func prepareBridge(h *host, dual, quiet bool) error {
	ctx := context.Background()
	if quiet {
		gw, err := nat.Open(ctx, h.ns, nat.Options{NoReserve: true})
		if err != nil {
			return err
		}
		defer gw.Close()
		net := nat.Network{Interface: bridgeName, Subnets: []netip.Prefix{netip.PrefixFrom(gateway6, 64)}, PortGroup: portGroup}
		if err := gw.AddNetwork(ctx, net); err != nil {
			return err
		}
	}
	br, err := link.ByIndex(ctx, h.ns, h.bridge)
	if err != nil {
		return err
	}
	if br, err = br.Update(ctx, link.Spec{Kind: link.Bridge{MulticastSnooping: new(false)}}); err != nil || !dual {
		return err
	}
	return br.AddPrefixes(ctx, netip.PrefixFrom(gateway6, 64))
}

// quiet is for links among very many.
var quiet = link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)}

// plugCrowded connects a box of a large bridge.
func plugCrowded(ctx context.Context, h *host, ns *netns.NS, bridge, i int, dual bool) error {
	peer := link.Spec{
		NS: ns, Name: "eth0", Up: true, IPv6: quiet,
		Addrs: []netip.Prefix{boxAddr(i)},
	}
	routes := []route.Route{route.Default(gateway)}
	if dual {
		peer.Addrs = append(peer.Addrs, boxAddr6(i))
		routes = append(routes, route.Default(gateway6))
	}
	_, err := link.Create(ctx, h.ns, link.Spec{
		Name: hostLink(i), Up: true, Master: link.Ref{Index: bridge}, IPv6: quiet, Group: portGroup,
		Kind: link.Veth{Peer: peer},
	})
	if err != nil {
		return err
	}
	return route.Add(ctx, ns, routes...)
}
