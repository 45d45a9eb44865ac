//go:build linux

package main

import (
	"fmt"
	"net/netip"
)

// chooseAddrs gives the box an address in every subnet: the wanted one, or the
// first that neither the gateway nor another box has.
func chooseAddrs(subnets []netip.Prefix, wanted []netip.Addr, others []*box) ([]netip.Prefix, error) {
	holders := map[netip.Addr]string{}
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
		placed := false
		for i, s := range subnets {
			if !s.Contains(ip) {
				continue
			}
			if chosen[i].IsValid() {
				return nil, fmt.Errorf("-ip %v: the box has %v in %v already", ip, chosen[i].Addr(), s)
			}
			if holder, taken := holders[ip]; taken {
				return nil, fmt.Errorf("-ip %v is taken by %s", ip, holder)
			}
			if !usable(s, ip) {
				return nil, fmt.Errorf("-ip %v is not an address for a box: it names %v itself, or all of it", ip, s)
			}
			chosen[i], placed = netip.PrefixFrom(ip, s.Bits()), true
		}
		if !placed {
			return nil, fmt.Errorf("-ip %v is in none of the subnets %v", ip, subnets)
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

// usable says whether a box can have the address: not that of the subnet, nor
// IPv4's broadcast address.
func usable(s netip.Prefix, ip netip.Addr) bool {
	return ip.IsValid() && s.Contains(ip) && ip != s.Masked().Addr() && (ip.Is6() || s.Contains(ip.Next()))
}
