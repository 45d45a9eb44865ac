//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// fits refuses addresses that cannot work here: of IPv6 where the container or the
// host has none, and of subnets that the host is in by another link.
func (r *request) fits(ctx context.Context, box *netns.NS, l *lease) error {
	for _, a := range l.addrs {
		if !a.Addr().Is6() {
			continue
		}
		if !hasIPv6(ctx, box, "default") {
			return invalid("the container has no IPv6", fmt.Sprintf("it is to have %v, and IPv6 is switched off in its network namespace (net.ipv6.conf.default.disable_ipv6)", a))
		}
		if r.conf.IsGateway && !hasIPv6(ctx, r.host, "default") && !hasIPv6(ctx, r.host, r.conf.segment()) {
			return invalid("the host has no IPv6", fmt.Sprintf("the container is to have %v, and IPv6 is switched off (net.ipv6.conf.default.disable_ipv6)", a))
		}
	}
	if err := r.unseen(ctx); err != nil {
		return err
	}
	if !r.conf.IsGateway {
		return nil // the bridge may be in the host's own network
	}
	addrs, err := link.ListAddrs(ctx, r.host)
	if err != nil {
		return failed("reading the host's addresses", err)
	}
	for _, subnet := range l.subnets() {
		for _, a := range addrs {
			// A single address is no network; the allocator leaves it out.
			if a.Prefix.IsSingleIP() || !a.Prefix.Overlaps(subnet) || a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast() {
				continue
			}
			if name := linkName(ctx, r.host, a.Link); name != r.conf.segment() && !(r.conf.as == modePTP && strings.HasPrefix(name, linkPrefix)) {
				return invalid("the host is in the subnet by another link", fmt.Sprintf("%v overlaps %v of %s", subnet, a.Prefix, name))
			}
		}
	}
	return nil
}

// unseen refuses a VLAN whose packets the firewall would take for forged: with
// br_netfilter it sees them come in by the bridge, and leave by the host's link in the
// VLAN. A VLAN that the host has no part in passes it unseen or untouched.
func (r *request) unseen(ctx context.Context) error {
	if r.conf.VLAN == 0 || !r.conf.needsNetwork() {
		return nil
	}
	for _, name := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if on, _ := r.host.Sysctl(ctx, name); on == "1" {
			return invalid("vlan with isGateway or ipMasq needs "+name+" to be 0", "the firewall sees what is bridged, by the bridge and not by its link in the VLAN")
		}
	}
	return nil
}

// hasIPv6 says whether a link, or with "default" a new one, can have addresses of IPv6.
// A kernel that was started without has no such setting.
func hasIPv6(ctx context.Context, ns *netns.NS, link string) bool {
	off, err := ns.Sysctl(ctx, "net/ipv6/conf/"+link+"/disable_ipv6")
	return err == nil && off == "0"
}

// linkName is the name of a link by its index.
func linkName(ctx context.Context, ns *netns.NS, index int) string {
	l, err := link.ByIndex(ctx, ns, index)
	if err != nil {
		return fmt.Sprint("link ", index)
	}
	return l.Name
}

// hostAddrs are the addresses of the host.
func hostAddrs(ctx context.Context, host *netns.NS) (map[netip.Addr]string, error) {
	addrs, err := link.ListAddrs(ctx, host)
	if err != nil {
		return nil, failed("reading the host's addresses", err)
	}
	all := map[netip.Addr]string{}
	for _, a := range addrs {
		all[a.Prefix.Addr()] = "the host"
	}
	return all, nil
}

// checkMAC refuses a wanted hardware address that the bridge, one of its ports or a
// container behind it has. Those of containers are in the aliases of their ports.
func (r *request) checkMAC(ctx context.Context, br link.Link) error {
	if r.conf.mac == nil || r.conf.as == modePTP {
		return nil
	}
	taken := func(by string) error {
		return invalid("the wanted hardware address is taken", fmt.Sprintf("%v is that of %s", r.conf.mac, by))
	}
	if bytes.Equal(br.MAC, r.conf.mac) {
		return taken("the bridge " + br.Name)
	}
	ports, err := link.List(ctx, r.host, link.Filter{Master: br.Ref()})
	if err != nil {
		return failed("reading the bridge's ports", err)
	}
	for _, p := range ports {
		if bytes.Equal(p.MAC, r.conf.mac) {
			return taken("the bridge's port " + p.Name)
		}
		d, err := p.Details(ctx)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return failed("reading the bridge's ports", err)
		}
		if owner, mac, ok := parseAlias(d.Spec.Alias); ok && mac == r.conf.mac.String() {
			return taken(owner)
		}
	}
	return nil
}
