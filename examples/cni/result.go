//go:build linux

package main

import (
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// result returns what was made: the bridge, the host's end, the container's link,
// and the host's link in its VLAN.
func (r *request) result(br *bridge, port, eth link.Link, l *lease) *current.Result {
	for _, ip := range l.ips {
		ip.Interface = current.Int(2)
	}
	dns := l.dns
	if isSet(r.conf.DNS) {
		dns = r.conf.DNS
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: br.Name, Mac: br.MAC.String()},
			{Name: port.Name, Mac: port.MAC.String(), Mtu: port.MTU},
			{Name: eth.Name, Mac: eth.MAC.String(), Mtu: eth.MTU, Sandbox: r.args.Netns},
		},
		IPs: l.ips, Routes: l.routes, DNS: dns,
	}
	if r.conf.as == modePTP {
		result.Interfaces = result.Interfaces[1:]
		for _, ip := range l.ips {
			ip.Interface = current.Int(1)
		}
	} else if br.gate.Index != br.Index {
		result.Interfaces = append(result.Interfaces, &current.Interface{Name: br.gate.Name, Mac: br.gate.MAC.String()})
	}
	return result
}

// isSet says whether the configuration has anything of DNS. An empty list is set, and
// leaves IPAM's out, as it does for the bridge plugin.
func isSet(dns types.DNS) bool {
	return dns.Nameservers != nil || dns.Search != nil || dns.Options != nil || dns.Domain != ""
}

func prefixOf(n net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a.Unmap(), ones).Masked()
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
