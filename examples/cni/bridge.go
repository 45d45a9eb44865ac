//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// bridgeAlias marks a bridge that the plugin has made and may remove again.
const bridgeAlias = aliasPrefix + "bridge"

// getBridge looks at the bridge; a link of that name that is none is refused.
func getBridge(ctx context.Context, r *request) (link.Link, error) {
	br, err := link.Get(ctx, r.host, r.conf.Bridge)
	if err != nil {
		return br, err
	}
	if br.Kind != "bridge" {
		kind := br.Kind
		if kind == "" {
			kind = "hardware"
		}
		return br, invalid("bridge is the name of a link that is no bridge", fmt.Sprintf("%s is of kind %s", br.Name, kind))
	}
	return br, nil
}

// A bridge is the network's bridge, with what this ADD has changed of it.
type bridge struct {
	link.Link
	gate     link.Link // has the gateways' addresses: the bridge, or the host's link in a VLAN of it
	made     bool      // by this ADD
	raised   bool      // it was down
	filtered bool      // it did not filter by VLAN
	joined   bool      // the host was not in the VLAN
	entered  bool      // by a link that this ADD has made
	opened   bool      // it was not promiscuous
	added    []netip.Prefix
	dropped  []link.Addr // for forceAddress
	routes   []route.Route
}

// ensureBridge makes the bridge on first use, and sees to it that it is up and
// has the gateways' addresses. One that an ADD was killed over is finished. What
// was changed is known, also where it fails.
func ensureBridge(ctx context.Context, r *request, l *lease) (b *bridge, err error) {
	b = &bridge{}
	gates := r.gatewayPrefixes(l)
	b.Link, err = getBridge(ctx, r)
	var begin func(context.Context, *netns.NS, link.Spec) (link.Link, error)
	switch {
	case errors.Is(err, os.ErrNotExist):
		begin, err = link.Create, nil
	case err == nil && !b.Up:
		var half bool
		if _, half, err = isOwn(ctx, b.Link); half {
			begin = link.Ensure
		}
	}
	if begin != nil {
		addrs := gates
		var filtering *bool
		if r.conf.inVLANs() {
			filtering = new(true)
		}
		if r.conf.VLAN != 0 {
			addrs = nil // its link in the VLAN has them
		}
		mac, err := ownMAC(r.host, r.conf.Bridge)
		if err != nil {
			return b, err
		}
		b.made = true
		b.Link, err = begin(ctx, r.host, link.Spec{
			Name: r.conf.Bridge, Up: true, MTU: r.conf.MTU, MAC: mac, Alias: bridgeAlias, Addrs: addrs,
			// Without it, each further container costs more than the one before.
			Kind: link.Bridge{MulticastSnooping: new(false), VLANFiltering: filtering},
		})
		b.gate = b.Link
		if err != nil {
			return b, failed("making the bridge "+r.conf.Bridge, err)
		}
	}
	if err != nil {
		return b, failed("looking at the bridge "+r.conf.Bridge, err)
	}
	if err := b.open(ctx, r.conf.PromiscMode); err != nil {
		return b, err
	}
	if err := b.filter(ctx, r); err != nil {
		return b, err
	}
	if err := b.enter(ctx, r); err != nil {
		return b, err
	}
	if !b.made || b.gate.Index != b.Index {
		if err := b.prepare(ctx, r.conf.ForceAddress, gates); err != nil {
			return b, err
		}
	}
	return b, failed("adding routes to the bridge", b.lead(ctx, r.farSubnets(l)))
}

// open has the bridge receive every frame.
func (b *bridge) open(ctx context.Context, on bool) error {
	if !on {
		return nil
	}
	is, err := isPromiscuous(ctx, b.Link)
	if err == nil && !is {
		err = setPromiscuous(ctx, b.Link, true)
		b.opened = err == nil
	}
	return failed("setting the bridge's promiscuous mode", err)
}

// lead adds the host's routes to subnets that the bridge has no address of.
func (b *bridge) lead(ctx context.Context, subnets []netip.Prefix) error {
	for _, s := range subnets {
		to := route.Route{Dst: s, Dev: b.gate.Index}
		err := route.Add(ctx, b.NS(), to)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		b.routes = append(b.routes, to)
	}
	return nil
}

// prepare brings a bridge up that was there, and gives it the gateways' addresses
// that it lacks, with force in the place of those that the bridge plugin would
// replace: every other one of IPv4, and those of IPv6 whose subnet overlaps.
func (b *bridge) prepare(ctx context.Context, force bool, gates []netip.Prefix) error {
	if !b.Up {
		if err := b.SetUp(ctx); err != nil {
			return failed("bringing the bridge up", err)
		}
		b.raised = true
	}
	if !b.gate.Up && b.gate.Index != b.Index {
		if err := b.gate.SetUp(ctx); err != nil {
			return failed("bringing the bridge's link in the VLAN up", err)
		}
	}
	have, err := b.gate.Addrs(ctx)
	if err != nil {
		return failed("reading the bridge's addresses", err)
	}
	missing := without(gates, have)
	if force && len(missing) > 0 {
		err := b.gate.FlushAddrs(ctx, func(a link.Addr) bool {
			drop := !slices.Contains(gates, a.Prefix) && slices.ContainsFunc(missing, func(m netip.Prefix) bool {
				return m.Addr().Is4() == a.Prefix.Addr().Is4() && (m.Addr().Is4() || m.Overlaps(a.Prefix))
			})
			if drop {
				b.dropped = append(b.dropped, a)
			}
			return drop
		})
		if err != nil {
			return failed("taking the bridge's other addresses away", err)
		}
		// With a primary address its secondary ones have gone.
		if have, err = b.gate.Addrs(ctx); err != nil {
			return failed("reading the bridge's addresses", err)
		}
		missing = without(gates, have)
	}
	if len(missing) == 0 {
		return nil
	}
	if err := b.gate.AddPrefixes(ctx, missing...); err != nil {
		return failed("giving the bridge its addresses", err)
	}
	b.added = missing
	return nil
}

// restore gives a bridge that was there back what it was.
func (b *bridge) restore(ctx context.Context, r *request) error {
	if b.made || b.Index == 0 {
		return nil
	}
	var errs []error
	if len(b.routes) > 0 {
		errs = append(errs, netns.IgnoreNotExist(route.Delete(ctx, b.NS(), b.routes...)))
	}
	switch {
	case b.entered:
		errs = append(errs, netns.IgnoreNotExist(b.gate.Delete(ctx)))
	case len(b.added) > 0:
		errs = append(errs, netns.IgnoreNotExist(b.gate.DeleteAddrs(ctx, b.added...)))
	}
	if b.joined {
		errs = append(errs, netns.IgnoreNotExist(b.DeleteVLANs(ctx, link.PortVLAN{ID: uint16(r.conf.VLAN)})))
	}
	if len(b.dropped) > 0 {
		errs = append(errs, b.gate.AddAddrs(ctx, b.dropped...))
	}
	if b.filtered {
		_, err := b.Update(ctx, link.Spec{Kind: link.Bridge{VLANFiltering: new(false)}})
		errs = append(errs, err)
	}
	if b.opened {
		errs = append(errs, setPromiscuous(ctx, b.Link, false))
	}
	if b.raised {
		errs = append(errs, b.SetDown(ctx))
	}
	return failed("setting the bridge back", errors.Join(errs...))
}

// gatewayPrefixes are the addresses that the bridge has to have.
func (r *request) gatewayPrefixes(l *lease) []netip.Prefix {
	var all []netip.Prefix
	for i, g := range l.gates {
		bits := l.addrs[i].Bits()
		switch {
		case g.Is6() && g.IsLinkLocalUnicast():
			bits = 64
		case l.isOutside(g):
			bits = g.BitLen()
		}
		p := netip.PrefixFrom(g, bits)
		if r.conf.IsGateway && g.IsValid() && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// farSubnets are those whose gateway is not in them, so that the bridge has no address
// of theirs, and the host needs a route.
func (r *request) farSubnets(l *lease) []netip.Prefix {
	var all []netip.Prefix
	for i, g := range l.gates {
		if s := l.addrs[i].Masked(); r.conf.IsGateway && g.IsValid() && !s.Contains(g) {
			all = append(all, s)
		}
	}
	return all
}

// missingAddrs returns those that a link does not have.
func missingAddrs(ctx context.Context, l link.Link, want []netip.Prefix) ([]netip.Prefix, error) {
	have, err := l.Addrs(ctx)
	if err != nil {
		return nil, err
	}
	return without(want, have), nil
}

// without returns the prefixes that are not among the addresses.
func without(want []netip.Prefix, have []link.Addr) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(want), func(w netip.Prefix) bool {
		return slices.ContainsFunc(have, func(h link.Addr) bool { return h.Prefix == w })
	})
}

// table is the name of the table of the plugin's networks and ports.
const table = "boxwire-cni"

// openNAT opens the table, and installs it where it is missing. Host ports are not
// bound: the process is about to end.
func openNAT(ctx context.Context, host *netns.NS) (*nat.NAT, error) {
	gw, err := nat.Open(ctx, host, nat.Options{
		Name: table, NoReserve: true,
		// The ports of a container that is gone without a DEL are free.
		Alive: func(owner string) bool {
			_, err := link.Get(ctx, host, linkOf(owner))
			return !errors.Is(err, os.ErrNotExist)
		},
	})
	return gw, failed("opening the table of published ports", err)
}

// openOldNAT opens the table if there is one; nil means that there is none.
func openOldNAT(ctx context.Context, host *netns.NS) (*nat.NAT, error) {
	there, err := nat.Open(ctx, host, nat.Options{Name: table, ReadOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		there.Close()
	}
	return openNAT(ctx, host) // which says what is wrong
}

// needsNetwork says whether the firewall has anything to do for the network. One
// without is a plain switch.
func (c *config) needsNetwork() bool {
	return c.IsGateway || c.IPMasq || c.Isolate || c.Internal || len(c.RuntimeConfig.PortMappings) > 0
}

// network is what the bridge is to be for the firewall. Several networks may
// share it, and IPAM may assign from several subnets, so that those it has stay.
func (c *config) wantedNetwork(have []nat.NetworkState, subnets []netip.Prefix) nat.Network {
	for _, n := range have {
		if n.Interface == c.segment() {
			subnets = merge(n.Subnets, subnets)
		}
	}
	n := nat.Network{
		Interface: c.segment(), Subnets: subnets,
		Masquerade: c.IPMasq, Internal: c.Internal, Isolated: c.Isolate, Flowtable: c.Flowtable,
	}
	if c.as == modeBridge && slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		n.PortGroup = portGroup
	}
	return n
}

// portGroup is the link group of the containers' ports on bridges.
const portGroup = 0xb0c21

// dropBridge removes a bridge that the plugin has made and nothing is on, with its
// network. It does not touch others.
func dropBridge(ctx context.Context, r *request) error {
	br, err := link.Get(ctx, r.host, r.conf.Bridge)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	own, _, err := isOwn(ctx, br)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	ports, err := link.List(ctx, r.host, link.Filter{Master: br.Ref()})
	if err != nil {
		return err
	}
	if !own || len(ports) > 0 {
		return leave(ctx, r, br, ports)
	}
	return netns.IgnoreNotExist(br.Delete(ctx))
}

// dropTable removes the network of a bridge that is gone, and a table without any
// network or port.
func dropTable(ctx context.Context, r *request, gw *nat.NAT) error {
	_, err := link.Get(ctx, r.host, r.conf.segment())
	if err == nil && r.shares { // its network is there, too; reading all of them takes its time
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = netns.IgnoreNotExist(gw.DeleteNetwork(ctx, r.conf.segment()))
	}
	networks, nerr := gw.ListNetworks(ctx)
	if err = errors.Join(err, nerr); err != nil || len(networks) > 0 {
		return err
	}
	published, err := gw.ListPorts(ctx)
	if err == nil && len(published) == 0 {
		err = netns.IgnoreNotExist(gw.Delete(ctx))
	}
	return err
}

// isOwn says whether the plugin has made the bridge, and whether an ADD was killed
// before it was finished: the kernel takes the hardware address in the message that
// makes a link, and the alias in the next only.
func isOwn(ctx context.Context, br link.Link) (own, half bool, err error) {
	d, err := br.Details(ctx)
	if err != nil || d.Spec.Alias != "" {
		return err == nil && d.Spec.Alias == bridgeAlias, false, err
	}
	mac, err := ownMAC(br.NS(), br.Name)
	half = err == nil && bytes.Equal(br.MAC, mac)
	return half, half, err
}

// ownMAC returns the hardware address of a link of the host that the plugin makes.
// The link is known by it until it has its alias. Without one, a bridge would take
// that of a port, and change it as containers come and go. The address is locally
// administered and belongs to no other bridge: not to one of that name on another
// machine, nor to one that was made by hand.
func ownMAC(host *netns.NS, name string) (net.HardwareAddr, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s", boot, host.ID().Ino, name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac, nil
}
