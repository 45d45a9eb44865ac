//go:build linux

package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/link"
)

// chooseAddrs gives the box an address in every subnet: the wanted one, or the
// first that neither the host nor another box has.
func chooseAddrs(subnets []netip.Prefix, wanted []netip.Addr, host []link.Addr, others []*box) ([]netip.Prefix, error) {
	holders := map[netip.Addr]string{}
	for _, a := range host {
		holders[a.Prefix.Addr()] = "the host"
	}
	for _, b := range others {
		for _, a := range b.Addrs {
			holders[a.Addr()] = "box " + b.Name
		}
	}
	for _, s := range subnets {
		holders[gateway(s).Addr()] = "the host, as the gateway"
	}
	chosen := make([]netip.Prefix, len(subnets))
	for _, ip := range wanted {
		if err := chooseWanted(chosen, subnets, ip, holders); err != nil {
			return nil, err
		}
	}
	for i, s := range subnets {
		for ip := gateway(s).Addr().Next(); !chosen[i].IsValid(); ip = ip.Next() {
			if !usable(s, ip) {
				return nil, fmt.Errorf("subnet %v is full: all its addresses are taken", s)
			}
			if _, taken := holders[ip]; !taken {
				chosen[i] = netip.PrefixFrom(ip, s.Bits())
			}
		}
	}
	return chosen, nil
}

// chooseWanted puts a wanted address where its subnet has its place.
func chooseWanted(chosen, subnets []netip.Prefix, ip netip.Addr, holders map[netip.Addr]string) error {
	placed := false
	for i, s := range subnets {
		if !s.Contains(ip) {
			continue
		}
		if chosen[i].IsValid() {
			return fmt.Errorf("-ip %v: the box has %v in %v already", ip, chosen[i].Addr(), s)
		}
		if holder, taken := holders[ip]; taken {
			return fmt.Errorf("-ip %v is taken by %s", ip, holder)
		}
		if !usable(s, ip) {
			return fmt.Errorf("-ip %v is not an address for a box: it names %v itself, or all of it", ip, s)
		}
		chosen[i], placed = netip.PrefixFrom(ip, s.Bits()), true
	}
	if !placed {
		return fmt.Errorf("-ip %v is in none of the subnets %v", ip, subnets)
	}
	return nil
}

// usable says whether a box can have the address: not that of the subnet, nor
// IPv4's broadcast address.
func usable(s netip.Prefix, ip netip.Addr) bool {
	return ip.IsValid() && s.Contains(ip) && ip != s.Masked().Addr() && (ip.Is6() || s.Contains(ip.Next()))
}

// chooseMAC is the wanted hardware address, or a random one. One that the bridge, a
// port of it or another box has is refused.
func chooseMAC(ctx context.Context, br link.Link, wanted net.HardwareAddr, others []*box) (net.HardwareAddr, error) {
	if wanted == nil {
		mac := make(net.HardwareAddr, 6)
		rand.Read(mac)         // never fails
		mac[0] = mac[0]&^1 | 2 // unicast, locally administered
		return mac, nil
	}
	taken := func(by string) error { return fmt.Errorf("-mac %v is taken by %s", wanted, by) }
	if bytes.Equal(br.MAC, wanted) {
		return nil, taken("the bridge " + br.Name)
	}
	for _, b := range others {
		if b.Bridge == br.Name && b.MAC == wanted.String() {
			return nil, taken("box " + b.Name)
		}
	}
	ports, err := link.List(ctx, br.NS(), link.Filter{Master: br.Ref()})
	for _, p := range ports {
		if bytes.Equal(p.MAC, wanted) {
			return nil, taken("the bridge's port " + p.Name)
		}
	}
	return wanted, err
}
