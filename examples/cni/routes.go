//go:build linux

package main

import (
	"context"
	"math"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"github.com/containernetworking/cni/pkg/types"
)

// addRoutes adds the lease's routes to the container. One that another network of
// the container has already goes behind that one, by its metric, as a second
// default route does: it takes over when the first one goes. A second default route
// also needs rules, see setAnswers.
func (l *lease) addRoutes(ctx context.Context, box *netns.NS, dev int) error {
	routes, err := l.toRoutes(dev)
	if err != nil || len(routes) == 0 {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, answersTime)
	defer cancel()
	have, err := route.List(reading, box, route.Filter{})
	if err != nil {
		return err
	}
	second := false
	for _, is4 := range []bool{true, false} {
		second = second || slices.ContainsFunc(routes, func(r route.Route) bool { return r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == is4 }) &&
			len(defaultDevs(have, is4)) > 0
	}
	for i := range routes {
		if free := behind(routes[i], have); free != routes[i].Metric {
			routes[i].Metric = free
			l.routes[i].Priority = int(free) // the runtime learns it
		}
	}
	if err := route.Add(ctx, box, routes...); err != nil || !second {
		return err
	}
	return setAnswers(ctx, box)
}

// behind is the metric of a route that the container has to the same destination over
// another link: one more than theirs, so that it takes over when they go. The
// route's own metric stays if it asks for one that is free.
func behind(r route.Route, have []route.Route) uint32 {
	metric := func(r route.Route) uint32 {
		if r.Metric == 0 && r.Dst.Addr().Is6() {
			return 1024 // the kernel's, see route.Route
		}
		return r.Metric
	}
	table := func(r route.Route) route.Table {
		if r.Table == 0 {
			return route.TableMain
		}
		return r.Table
	}
	var last uint32
	taken, others := false, false
	for _, h := range have {
		if h.Dst == r.Dst && table(h) == table(r) && h.Dev != r.Dev {
			last, others = max(last, metric(h)), true
			taken = taken || metric(h) == metric(r)
		}
	}
	if !others || !taken && r.Metric != 0 || last == math.MaxUint32 {
		return r.Metric
	}
	if last < metric(r) {
		return metric(r)
	}
	return last + 1
}

// addDefaults adds default routes to the gateways, unless IPAM has some.
func (l *lease) addDefaults() {
	for _, is4 := range []bool{true, false} {
		gate := l.gateway(is4)
		dst := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if is4 {
			dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		has := !gate.IsValid()
		for _, r := range l.routes {
			has = has || prefixOf(r.Dst) == dst
		}
		if !has {
			l.routes = append(l.routes, &types.Route{Dst: ipNet(dst), GW: gate.AsSlice()})
		}
	}
}

// isOutside reports whether an address is a gateway of the lease outside the
// container's subnets. IPAM asserts that it is on the link, and the kernel needs
// that in the route. IPv6 link-local addresses are on every link.
func (l *lease) isOutside(via netip.Addr) bool {
	return slices.Contains(l.gates, via) && !(via.Is6() && via.IsLinkLocalUnicast()) &&
		!slices.ContainsFunc(l.addrs, func(p netip.Prefix) bool { return p.Contains(via) })
}

// toRoutes are the routes of the lease for the container's link. One without a
// gateway leads to that of the lease.
func (l *lease) toRoutes(dev int) ([]route.Route, error) {
	var all []route.Route
	for _, r := range l.routes {
		dst := prefixOf(r.Dst)
		if !dst.IsValid() {
			return nil, invalid("IPAM has a route to what is no subnet", r.Dst.String())
		}
		via, _ := netip.AddrFromSlice(r.GW)
		if via = via.Unmap(); !via.IsValid() {
			via = l.gateway(dst.Addr().Is4())
		}
		to := route.Route{Dst: dst, Via: via, Dev: dev, Metric: uint32(r.Priority)}
		if r.Table != nil {
			to.Table = route.Table(*r.Table)
		}
		if r.Scope != nil && *r.Scope != 0 {
			to.Scope = route.Scope(*r.Scope)
			if *r.Scope == int(route.ScopeLink) {
				to.Via = netip.Addr{}
			}
		}
		to.OnLink = to.Via.IsValid() && (l.isOutside(via) || l.onLink[r])
		if r.MTU != 0 || r.AdvMSS != 0 {
			to.Metrics = &route.Metrics{MTU: uint32(r.MTU), AdvMSS: uint32(r.AdvMSS)}
		}
		all = append(all, to)
	}
	return all, nil
}
