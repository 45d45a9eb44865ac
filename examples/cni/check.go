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
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// drift is the error for something that is not as ADD has made it.
func drift(format string, args ...any) error {
	return types.NewError(codeDrift, "the container's network is not as it was made", fmt.Sprintf(format, args...))
}

// lost is drift where the thing is not there, and a failure else.
func lost(what string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return drift("%s is gone", what)
	}
	return failed("reading "+what, err)
}

// check compares what is there with what ADD has reported.
func check(ctx context.Context, r *request) error {
	if r.conf.PrevResult == nil {
		return invalid("CHECK needs the prevResult of ADD", "")
	}
	result, err := current.NewResultFromResult(r.conf.PrevResult)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
	}
	box, err := r.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	l, mac, err := r.reported(result)
	if err != nil {
		return err
	}
	if r.conf.delegated() {
		if err := invoke.DelegateCheck(ctx, r.conf.IPAM.Type, r.args.StdinData, nil); err != nil {
			return err
		}
	}
	if r.conf.pool != nil {
		for _, a := range l.addrs {
			held, err := r.conf.pool.holds(r.conf.Name, r.at.link(), a.Addr())
			if err != nil {
				return err
			}
			if !held {
				return drift("the allocator has not assigned %v to the container", a.Addr())
			}
		}
	}
	for _, step := range []func() error{
		func() error { return r.checkHost(ctx, l) },
		func() error { return r.checkBox(ctx, box, l, mac) },
		func() error { return r.checkFirewall(ctx, l) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// reported reads the container's link and its addresses from the result.
func (r *request) reported(result *current.Result) (*lease, string, error) {
	for i, f := range result.Interfaces {
		if f.Sandbox == "" || f.Name != r.at.ifname {
			continue
		}
		mine := *result
		mine.IPs = slices.DeleteFunc(slices.Clone(result.IPs), func(ip *current.IPConfig) bool {
			return ip.Interface == nil || *ip.Interface != i
		})
		l, err := newLease(&mine, r.conf.IsGateway)
		return l, f.Mac, err
	}
	return nil, "", invalid("prevResult has no link of the container", r.at.ifname)
}

func (r *request) checkHost(ctx context.Context, l *lease) error {
	br, err := getBridge(ctx, r)
	if err != nil {
		return lost("the bridge "+r.conf.Bridge, err)
	}
	if !br.Up {
		return drift("the bridge is down")
	}
	missing, err := missingAddrs(ctx, br, r.gatewayPrefixes(l))
	if err != nil {
		return failed("reading the bridge's addresses", err)
	}
	if len(missing) > 0 {
		return drift("the bridge has lost %v", missing)
	}
	port, err := link.Get(ctx, r.host, r.at.link())
	if err != nil {
		return lost("the host's link "+r.at.link(), err)
	}
	switch {
	case port.Master != br.Index:
		return drift("%s is no port of the bridge", port.Name)
	case !port.Up:
		return drift("%s is down", port.Name)
	}
	is, err := port.Port(ctx)
	if err != nil {
		return lost("the port's settings", err)
	}
	want := r.portOptions(ctx)
	if *is.Hairpin != *want.Hairpin || *is.Isolated != *want.Isolated {
		return drift("hairpin mode is %t and isolation %t", *is.Hairpin, *is.Isolated)
	}
	return r.checkRates(ctx, port)
}

func (r *request) checkRates(ctx context.Context, port link.Link) error {
	egress, ingress := r.conf.rates()
	if egress.Rate == 0 && ingress.Rate == 0 {
		return nil
	}
	isEgress, isIngress, err := port.Rates(ctx)
	if err != nil {
		return failed("reading the link's limits", err)
	}
	for _, c := range []struct{ is, want link.Limit }{{isEgress, egress}, {isIngress, ingress}} {
		if c.is.Rate/8 != c.want.Rate/8 { // the kernel counts bytes
			return drift("a limit is %v, not %v", c.is.Rate, c.want.Rate)
		}
	}
	return nil
}

func (r *request) checkBox(ctx context.Context, box *netns.NS, l *lease, mac string) error {
	eth, err := link.Get(ctx, box, r.at.ifname)
	if err != nil {
		return lost("the container's link "+r.at.ifname, err)
	}
	switch {
	case !eth.Up:
		return drift("%s is down", eth.Name)
	case !strings.EqualFold(eth.MAC.String(), mac) && mac != "":
		return drift("%s has the hardware address %v, not %s", eth.Name, eth.MAC, mac)
	case r.conf.MTU != 0 && eth.MTU != r.conf.MTU:
		return drift("%s has the MTU %d, not %d", eth.Name, eth.MTU, r.conf.MTU)
	}
	missing, err := missingAddrs(ctx, eth, l.addrs)
	if err != nil {
		return failed("reading the container's addresses", err)
	}
	if len(missing) > 0 {
		return drift("%s has lost %v", eth.Name, missing)
	}
	return checkRoutes(ctx, box, eth.Index, l)
}

func checkRoutes(ctx context.Context, box *netns.NS, dev int, l *lease) error {
	want, err := l.toRoutes(dev)
	if err != nil || len(want) == 0 {
		return err
	}
	have, err := route.List(ctx, box, route.Filter{Dev: dev})
	if err != nil {
		return failed("reading the container's routes", err)
	}
	for _, w := range want {
		if w.Table == 0 {
			w.Table = route.TableMain
		}
		if !slices.ContainsFunc(have, func(h route.Route) bool {
			return h.Dst == w.Dst && h.Via == w.Via && h.Table == w.Table && (w.Metric == 0 || h.Metric == w.Metric)
		}) {
			return drift("the route %v is gone", w)
		}
	}
	return nil
}

func (r *request) checkFirewall(ctx context.Context, l *lease) error {
	if !r.conf.needsNetwork() || len(l.addrs) == 0 {
		return nil
	}
	want, err := r.conf.ports(r.at.owner(), l.addrs)
	if err != nil {
		return err
	}
	gw, err := openNAT(ctx, r.host)
	if err != nil {
		return err
	}
	defer gw.Close()
	networks, err := gw.Networks(ctx)
	if err != nil {
		return failed("reading the firewall's networks", err)
	}
	if err := r.checkNetwork(networks, l.subnets()); err != nil {
		return err
	}
	published, err := gw.List(ctx)
	if err != nil {
		return failed("reading the published ports", err)
	}
	for _, w := range want {
		if !slices.ContainsFunc(published, func(p nat.Published) bool { return p.Port == w }) {
			return drift("%v is not published", w)
		}
	}
	return nil
}

func (r *request) checkNetwork(networks []nat.NetworkState, subnets []netip.Prefix) error {
	for _, n := range networks {
		if n.Interface != r.conf.Bridge {
			continue
		}
		for _, s := range subnets {
			if !slices.Contains(n.Subnets, s) {
				return drift("the firewall does not know the subnet %v", s)
			}
		}
		if n.Masquerade != r.conf.IPMasq || n.Internal != r.conf.Internal || n.Isolated != r.conf.Isolate {
			return drift("the firewall has the network with masquerade %t, internal %t, isolated %t", n.Masquerade, n.Internal, n.Isolated)
		}
		return nil
	}
	return drift("the firewall does not know the network")
}
