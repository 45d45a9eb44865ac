//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// add makes the attachment: all of it, or nothing.
func add(ctx context.Context, r *request) (err error) {
	if err := r.conf.wishes(r.args.Args); err != nil {
		return err
	}
	box, err := r.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	if err := r.absent(ctx); err != nil {
		return err
	}
	l := &lease{}
	if r.conf.delegated() { // not under the lock: it takes its time
		if l, err = delegate(ctx, r); err != nil {
			return err
		}
	}
	unlock, err := lock()
	if err != nil {
		return errors.Join(err, release(ctx, r))
	}
	defer unlock()
	// Once more, now that nobody else is at it: a second ADD must not undo what
	// the first has made.
	if err := r.absent(ctx); err != nil {
		return err
	}
	made := false
	defer func() {
		if err != nil {
			err = errors.Join(err, detach(ctx, r, made))
		}
	}()
	if r.conf.pool != nil {
		if l, err = r.conf.pool.allocate(ctx, r); err != nil {
			return err
		}
	}
	var br link.Link
	if br, made, err = ensureBridge(ctx, r, l); err != nil {
		return err
	}
	result, err := r.wire(ctx, br, box, l)
	if err != nil {
		return err
	}
	return types.PrintResult(result, r.conf.CNIVersion)
}

// openBox opens the container's namespace, which must not be the host's.
func (r *request) openBox(ctx context.Context) (*netns.NS, error) {
	box, err := netns.OpenPath(ctx, r.args.Netns)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "the container's network namespace cannot be opened", err.Error())
	}
	if box.Equal(r.host) {
		box.Close()
		return nil, types.NewError(types.ErrInvalidNetNS, "the container's network namespace is the host's", r.args.Netns)
	}
	return box, nil
}

// absent makes sure that the attachment is not there yet.
func (r *request) absent(ctx context.Context) error {
	_, err := link.Get(ctx, r.host, r.at.link())
	switch {
	case err == nil:
		return types.NewError(codeExists, "the container is in the network already", fmt.Sprintf("%s, by the link %s of the host", r.at.owner(), r.at.link()))
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	return failed("looking for the container's link", err)
}

// wire makes the pair and what belongs to it, and returns what has been made.
func (r *request) wire(ctx context.Context, br link.Link, box *netns.NS, l *lease) (*current.Result, error) {
	c := r.conf
	port, err := link.Create(ctx, r.host, link.Spec{
		Name: r.at.link(), Up: true, Master: br.Index, MTU: c.MTU, Alias: r.at.alias(),
		Port: r.portOptions(ctx),
		Kind: link.Veth{Peer: link.Spec{
			NS: box, Name: r.at.ifname, Up: true, MTU: c.MTU, MAC: c.mac, Addrs: l.addrs,
			IPv6: link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)},
		}},
	})
	if err != nil {
		return nil, failed("making the container's link", err)
	}
	eth, err := link.Get(ctx, box, r.at.ifname)
	if err != nil {
		return nil, failed("reading the container's link", err)
	}
	if r.conf.IsDefaultGateway {
		l.addDefaults()
	}
	routes, err := l.toRoutes(eth.Index)
	if err == nil && len(routes) > 0 {
		err = route.Add(ctx, box, routes...)
	}
	if err != nil {
		return nil, failed("adding the container's routes", err)
	}
	if err := r.limit(ctx, port); err != nil {
		return nil, failed("limiting the container's rate", err)
	}
	if err := r.publish(ctx, l); err != nil {
		return nil, err
	}
	return r.result(br, port, eth, l), settle(ctx, br, port)
}

// settle waits until the bridge forwards for the container, a few milliseconds as
// a rule, so that its first packet arrives, and until a bridge that had no port yet
// has its carrier: what the host sends by it before is dropped. A bridge with the
// spanning tree protocol takes half a minute, which is not waited for.
func settle(ctx context.Context, br, port link.Link) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := port.WaitForwarding(ctx)
	if err == nil {
		_, err = br.WaitCarrier(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return failed("waiting for the bridge to forward", err)
}

// portOptions are the settings of the bridge's port. Isolated ports would also
// cut siblings off from each other's published ports where the firewall sees what
// is bridged; there it isolates by itself.
func (r *request) portOptions(ctx context.Context) link.PortOptions {
	seen, _ := r.host.Sysctl(ctx, "net.bridge.bridge-nf-call-iptables")
	return link.PortOptions{
		// A container reaches its own published port only with it when the
		// firewall sees what is bridged.
		Hairpin:  new(r.conf.HairpinMode || len(r.conf.RuntimeConfig.PortMappings) > 0),
		Isolated: new(r.conf.Isolate && seen != "1"),
	}
}

// publish lets the firewall know the network and publishes the ports.
func (r *request) publish(ctx context.Context, l *lease) error {
	if !r.conf.needsNetwork() || len(l.addrs) == 0 {
		return nil
	}
	ports, err := r.conf.ports(r.at.owner(), l.addrs)
	if err != nil {
		return err
	}
	gw, err := openNAT(ctx, r.host)
	if err != nil {
		return err
	}
	defer gw.Close()
	networks, err := gw.Networks(ctx)
	if err == nil {
		err = gw.EnsureNetwork(ctx, r.conf.wantedNetwork(networks, l.subnets()))
	}
	if err != nil {
		return failed("adding the network to the firewall", err)
	}
	if len(ports) == 0 {
		return nil
	}
	err = gw.Publish(ctx, ports...)
	if errors.Is(err, os.ErrExist) {
		return types.NewError(codePortTaken, "a host port is taken", oneLine(err))
	}
	return failed("publishing the container's ports", err)
}

// limit sets the rates. The link that carries one of them gets the owner's name,
// as it outlives the pair.
func (r *request) limit(ctx context.Context, port link.Link) error {
	egress, ingress := r.conf.rates()
	if egress == (link.Limit{}) && ingress == (link.Limit{}) {
		return nil
	}
	if err := port.SetRate(ctx, egress, ingress); err != nil {
		return err
	}
	ifb, err := link.Get(ctx, r.host, ifbOf(port.Index))
	if err == nil {
		_, err = ifb.Change(ctx, link.Spec{Alias: r.at.alias()})
	}
	return netns.IgnoreNotExist(err)
}

// ifbOf is the name of the link that limits what comes in; see link.SetRate.
func ifbOf(index int) string { return fmt.Sprintf("bwifb%d", index) }

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
		if r.MTU != 0 || r.AdvMSS != 0 {
			to.Metrics = &route.Metrics{MTU: uint32(r.MTU), AdvMSS: uint32(r.AdvMSS)}
		}
		all = append(all, to)
	}
	return all, nil
}
