//go:build linux

package main

import (
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxTTL bounds how long an answer opens addresses, and how long the box may keep it.
	maxTTL = time.Hour

	// maxAddrs bounds the addresses of an answer. Others are taken out of it.
	maxAddrs = 32

	// maxChain bounds how many CNAMEs are followed.
	maxChain = 16
)

// chain returns the records of an answer that are about a name or what CNAMEs lead from it to, the
// addresses among them, and how long all of it holds. Their lifetimes are cut to maxTTL. Addresses
// that are not for the outside, and those beyond maxAddrs, are left out.
func chain(name string, answer []dns.RR) (records []dns.RR, addrs []netip.Addr, ttl time.Duration) {
	about := map[string]bool{name: true}
	for range maxChain { // a CNAME may stand before the one that leads to it
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && about[normalName(c.Hdr.Name)] {
				about[normalName(c.Target)] = true
			}
		}
	}
	ttl = maxTTL
	for _, rr := range answer {
		h := rr.Header()
		if !about[normalName(h.Name)] {
			continue
		}
		if addr, ok := address(rr); ok {
			if !outside(addr) || len(addrs) == maxAddrs {
				continue
			}
			addrs = append(addrs, addr)
		}
		ttl = min(ttl, time.Duration(h.Ttl)*time.Second)
		h.Ttl = min(h.Ttl, uint32(maxTTL/time.Second))
		records = append(records, rr)
	}
	return records, addrs, ttl
}

// address is the address in a record.
func address(rr dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	default:
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	if _, four := rr.(*dns.A); four {
		addr = addr.Unmap()
	}
	return addr, ok
}

// outside reports whether a name may open an address. The server of the name chooses the
// address, and must not open link-local ones, behind which clouds keep credentials.
func outside(a netip.Addr) bool {
	return !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
