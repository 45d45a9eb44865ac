//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// ptpRoutes are the container's own: to the gateway on the link, and to the rest of
// the subnet by way of it, so that the container asks for no other neighbour.
func (l *lease) ptpRoutes(dev int) []route.Route {
	var all []route.Route
	for i, a := range l.addrs {
		gate := l.gates[i]
		all = append(all, route.Route{Dst: single(gate), Dev: dev, Src: a.Addr()})
		if s := a.Masked(); !s.IsSingleIP() {
			all = append(all, route.Route{Dst: s, Via: gate, Dev: dev, Src: a.Addr()})
		}
	}
	return all
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// fitsPTP refuses addresses without a gateway: the host's end has that address.
func (l *lease) fitsPTP() error {
	for i, a := range l.addrs {
		if g := l.gates[i]; !g.IsValid() || g.Is4() != a.Addr().Is4() || g == a.Addr() {
			return invalid("ptp needs a gateway for each address", fmt.Sprintf("%v has none", a))
		}
	}
	return nil
}

// wirePTP gives both ends of the pair their addresses and routes.
func (r *request) wirePTP(ctx context.Context, box *netns.NS, port, eth link.Link, l *lease) error {
	var mine []link.Addr
	var gates []netip.Prefix
	var back []route.Route
	for i, a := range l.addrs {
		addr := link.StaticAddr(a)
		addr.Flags |= link.AddrNoPrefixRoute
		if r.conf.EnableDAD {
			addr.Flags &^= link.AddrNoDAD
		}
		mine = append(mine, addr)
		if g := single(l.gates[i]); !slices.Contains(gates, g) {
			gates = append(gates, g)
		}
		back = append(back, route.Route{Dst: single(a.Addr()), Dev: port.Index})
	}
	if err := eth.AddAddrs(ctx, mine...); err != nil {
		return failed("giving the container's link its addresses", err)
	}
	if err := port.AddPrefixes(ctx, gates...); err != nil {
		return failed("giving the host's link the gateways' addresses", err)
	}
	if err := route.Add(ctx, r.host, back...); err != nil {
		return failed("adding the host's routes to the container", err)
	}
	return failed("adding the container's routes to the gateway", route.Add(ctx, box, l.ptpRoutes(eth.Index)...))
}

// checkPTP compares the host's end and the routes of both with what ADD has made.
func (r *request) checkPTP(ctx context.Context, port link.Link, l *lease) error {
	var gates []netip.Prefix
	for _, g := range l.gates {
		gates = append(gates, single(g))
	}
	missing, err := missingAddrs(ctx, port, gates)
	if err != nil {
		return failed("reading the addresses of the host's link", err)
	}
	if len(missing) > 0 {
		return drift("%s has lost %v", port.Name, missing)
	}
	have, err := route.List(ctx, r.host, route.Filter{Dev: port.Index})
	if err != nil {
		return failed("reading the host's routes", err)
	}
	for _, a := range l.addrs {
		if !slices.ContainsFunc(have, func(h route.Route) bool { return h.Dst == single(a.Addr()) }) {
			return drift("the host has lost the route to %v", a.Addr())
		}
	}
	return nil
}

// siblings are the networks of other containers of this network, which the host routes
// to and from. A link that is gone takes its network with it.
func (r *request) siblings(ctx context.Context, gw *nat.NAT) ([]nat.Network, error) {
	all, err := gw.ListNetworks(ctx)
	if err != nil {
		return nil, err
	}
	var found []nat.Network
	for _, n := range all {
		if !strings.HasPrefix(n.Interface, linkPrefix) || n.Interface == r.at.link() {
			continue
		}
		l, err := link.Get(ctx, r.host, n.Interface)
		if errors.Is(err, os.ErrNotExist) {
			if err := netns.IgnoreNotExist(gw.DeleteNetwork(ctx, n.Interface)); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := l.Details(ctx)
		if netns.IgnoreNotExist(err) != nil {
			return nil, err
		}
		if owner, _, ok := parseAlias(d.Spec.Alias); ok && strings.HasPrefix(owner, ownerPrefix(r.conf.Name)) {
			found = append(found, n.Network)
		}
	}
	return found, nil
}

// networkPTP lets the firewall know the container's own link as a network, open to and
// from those of its siblings unless they are isolated.
func (r *request) networkPTP(ctx context.Context, gw *nat.NAT, l *lease) error {
	siblings, err := r.siblings(ctx, gw)
	if err != nil {
		return err
	}
	mine := r.conf.wantedNetwork(nil, nil)
	for _, a := range l.addrs {
		mine.Subnets = append(mine.Subnets, single(a.Addr()))
	}
	if !r.conf.Isolate {
		for _, s := range siblings {
			mine.AllowTo = append(mine.AllowTo, s.Interface)
		}
	}
	if err := gw.SetNetwork(ctx, mine); err != nil {
		return err
	}
	for _, s := range siblings {
		if r.conf.Isolate || slices.Contains(s.AllowTo, mine.Interface) {
			continue
		}
		s.AllowTo = append(s.AllowTo, mine.Interface)
		if err := gw.SetNetwork(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// wantedNetworks is what the firewall has of the network.
func (r *request) wantedNetworks(l *lease) []nat.Network {
	n := r.conf.wantedNetwork(nil, l.subnets())
	if r.conf.as == modePTP {
		n.Subnets = nil
		for _, a := range l.addrs {
			n.Subnets = append(n.Subnets, single(a.Addr()))
		}
	}
	return []nat.Network{n}
}

// gcPTP deletes networks of links that are gone.
func (r *request) gcPTP(ctx context.Context, gw *nat.NAT) error {
	if r.conf.as != modePTP {
		return nil
	}
	_, err := r.siblings(ctx, gw)
	return err
}
