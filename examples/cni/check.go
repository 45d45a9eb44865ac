//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// drift is the error for something that is not as ADD has made it.
func drift(format string, args ...any) error {
	return types.NewError(codeDrift, "the container's network is not as it was made", fmt.Sprintf(format, args...))
}

// lost returns a drift if the thing is missing, and a failure otherwise.
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
	if r.conf.as == modeLoopback {
		return checkLoopback(ctx, r)
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
		if _, err := r.ask(ctx, "CHECK"); err != nil {
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
	if r.conf.inside() {
		if dev, err := r.conf.findDevice(sysfs); r.conf.as == modeHostDevice && (err != nil || dev.space) {
			return err
		}
		return errors.Join(r.checkInside(ctx, box), r.checkBox(ctx, box, l, mac))
	}
	for _, step := range []func() error{
		func() error { return r.checkHost(ctx, l, mac) },
		func() error { return r.checkBox(ctx, box, l, mac) },
		func() error { return r.checkFirewall(ctx, l, mac) },
		func() error { return r.checkForwarding(ctx, l) },
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

func (r *request) checkHost(ctx context.Context, l *lease, mac string) error {
	if r.conf.as == modePTP {
		port, err := r.checkPort(ctx)
		if err != nil {
			return err
		}
		if err := r.checkPTP(ctx, port, l); err != nil {
			return err
		}
		return r.checkRates(ctx, port)
	}
	br, gate, err := r.checkBridge(ctx)
	if err != nil {
		return err
	}
	if err := r.checkGateway(ctx, gate, l); err != nil {
		return err
	}
	port, err := r.checkPort(ctx)
	if err != nil {
		return err
	}
	if err := r.checkBridgePort(ctx, br, port, mac); err != nil {
		return err
	}
	return r.checkRates(ctx, port)
}

// checkBridge reads the bridge, and the link that has the gateway's addresses: the bridge itself or its link in the VLAN.
func (r *request) checkBridge(ctx context.Context) (br, gate link.Link, err error) {
	br, err = getBridge(ctx, r)
	if err != nil {
		return br, br, lost("the bridge "+r.conf.Bridge, err)
	}
	if !br.Up {
		return br, br, drift("the bridge is down")
	}
	if r.conf.PromiscMode {
		is, err := isPromiscuous(ctx, br)
		if err != nil {
			return br, br, failed("reading the bridge's flags", err)
		}
		if !is {
			return br, br, drift("the bridge is not in promiscuous mode")
		}
	}
	gate = br
	if r.conf.VLAN != 0 && r.conf.IsGateway {
		if gate, err = link.Get(ctx, r.host, r.conf.segment()); err != nil {
			return br, gate, lost("the bridge's link "+r.conf.segment(), err)
		}
		if !gate.Up {
			return br, gate, drift("%s is down", gate.Name)
		}
	}
	return br, gate, nil
}

// checkGateway compares the addresses and routes of the link that has the gateway's with what the attachment needs.
func (r *request) checkGateway(ctx context.Context, gate link.Link, l *lease) error {
	missing, err := missingAddrs(ctx, gate, r.gatewayPrefixes(l))
	if err != nil {
		return failed("reading the bridge's addresses", err)
	}
	if len(missing) > 0 {
		return drift("the bridge has lost %v", missing)
	}
	far := r.farSubnets(l)
	if len(far) == 0 {
		return nil
	}
	routes, err := route.List(ctx, r.host, route.Filter{Dev: gate.Index})
	if err != nil {
		return failed("reading the host's routes", err)
	}
	for _, s := range far {
		if !slices.ContainsFunc(routes, func(h route.Route) bool { return h.Dst == s }) {
			return drift("the bridge has lost the route to %v", s)
		}
	}
	return nil
}

// checkBridgePort compares the container's port of the bridge with what ADD has made.
func (r *request) checkBridgePort(ctx context.Context, br, port link.Link, mac string) error {
	if port.Master != br.Index {
		return drift("%s is no port of the bridge", port.Name)
	}
	is, err := port.Port(ctx)
	if err != nil {
		return lost("the port's settings", err)
	}
	want := r.portOptions(ctx)
	if *is.Hairpin != *want.Hairpin || *is.Isolated != *want.Isolated {
		return drift("hairpin mode is %t and isolation %t", *is.Hairpin, *is.Isolated)
	}
	if r.conf.inVLANs() {
		what, err := r.conf.lostVLAN(ctx, port)
		if err != nil {
			return failed("reading the port's VLANs", err)
		}
		if what != "" {
			return drift("%s: %s", port.Name, what)
		}
	}
	if !r.conf.MacSpoofChk {
		return nil
	}
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult has no hardware address of the container", err.Error())
	}
	bound, err := isBound(ctx, port, hw)
	if err != nil {
		return failed("reading the bridge's forwarding database", err)
	}
	if !bound || is.Locked == nil || !*is.Locked || *is.Learning {
		return drift("%s is not bound to the hardware address %s", port.Name, mac)
	}
	return nil
}

// checkPort reads the host's end of the pair.
func (r *request) checkPort(ctx context.Context) (link.Link, error) {
	port, err := link.Get(ctx, r.host, r.at.link())
	switch {
	case err != nil:
		return port, lost("the host's link "+r.at.link(), err)
	case !port.Up:
		return port, drift("%s is down", port.Name)
	case r.conf.MTU != 0 && port.MTU != r.conf.MTU:
		return port, drift("%s has the MTU %d, not %d", port.Name, port.MTU, r.conf.MTU)
	}
	return port, nil
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
	case !eth.Up && !r.conf.DisableContainerInterface:
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
	if err := r.checkRoutes(ctx, box, eth.Index, l); err != nil {
		return err
	}
	return checkAnswers(ctx, box, l)
}

func (r *request) checkRoutes(ctx context.Context, box *netns.NS, dev int, l *lease) error {
	want, err := l.toRoutes(dev)
	if r.conf.as == modePTP {
		want = append(want, l.ptpRoutes(dev)...)
	}
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

func (r *request) checkFirewall(ctx context.Context, l *lease, mac string) error {
	if !r.conf.needsNetwork() || len(l.addrs) == 0 {
		return nil
	}
	ports, err := r.conf.ports(r.at.owner(), l.addrs)
	if err != nil {
		return err
	}
	waits, err := r.waitsFor(ctx)
	if err != nil {
		return err
	}
	ports = slices.DeleteFunc(ports, func(p nat.Port) bool { return slices.Contains(waits, p) })
	state := nat.State{Networks: r.wantedNetworks(l), Ports: ports}
	p, err := r.policyFor(l.addrs)
	if err != nil {
		return err
	}
	if p != nil {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return types.NewError(types.ErrDecodingFailure, "prevResult has no hardware address of the container", err.Error())
		}
		state.Policies = []nat.Policy{*p}
		if r.conf.as != modePTP {
			state.Guards = []nat.Guard{r.guardOf(hw, l.addrs)}
		}
	}
	// Opening a table that is gone would bring it back.
	err = nat.Check(ctx, r.host, table, state)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return drift("the firewall's table %s is gone", table)
	case errors.Is(err, nat.ErrDamaged):
		return drift("the firewall: %v", err)
	case err != nil:
		return failed("looking at the firewall", err)
	}
	gw, err := openNAT(ctx, r.host)
	if err != nil {
		return err
	}
	defer gw.Close()
	networks, err := gw.ListNetworks(ctx)
	if err != nil {
		return failed("reading the firewall's networks", err)
	}
	want := state.Networks[0]
	for _, n := range networks {
		if n.Interface == want.Interface && (n.Masquerade != want.Masquerade || n.Internal != want.Internal || n.Isolated != want.Isolated || n.Flowtable != want.Flowtable) {
			return drift("the firewall has the network with masquerade %t, internal %t, isolated %t, flowtable %t", n.Masquerade, n.Internal, n.Isolated, n.Flowtable)
		}
	}
	if len(waits) > 0 {
		published, err := gw.ListPorts(ctx)
		if err != nil {
			return failed("reading what is published", err)
		}
		if free, _ := r.heldByOther(published, waits); len(free) > 0 {
			return drift("the port %v is published by no attachment of the container", free[0])
		}
	}
	if r.conf.AcceptForward {
		dropped, err := r.droppedByOthers(ctx, gw, l, ports)
		if err != nil {
			return failed("looking at the host's other firewall", err)
		}
		if dropped != "" {
			return drift("%s", dropped)
		}
	}
	return nil
}

// checkForwarding looks whether the host forwards what comes from the bridge, and
// lets its own programs reach published ports at 127.0.0.1.
func (r *request) checkForwarding(ctx context.Context, l *lease) error {
	if !r.conf.needsNetwork() {
		return nil
	}
	on := func(name string) bool {
		v, err := r.host.Sysctl(ctx, name)
		return err == nil && v != "0"
	}
	own4 := "net/ipv4/conf/" + r.conf.segment()
	for _, a := range l.addrs {
		switch {
		case a.Addr().Is6(): // link by link where the kernel can
			if !on("net/ipv6/conf/"+r.conf.segment()+"/force_forwarding") && !on("net/ipv6/conf/all/forwarding") {
				return drift("the host does not forward IPv6 from the bridge")
			}
		case !on(own4 + "/forwarding"):
			return drift("%s/forwarding is off", own4)
		case !on(own4 + "/route_localnet"):
			return drift("%s/route_localnet is off", own4)
		}
	}
	return nil
}
