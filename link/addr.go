package link

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Addr is an address of a link, as the kernel describes it.
type Addr struct {
	// Prefix is the address with the length of its subnet. The host bits
	// are kept: 10.88.0.2/16.
	Prefix netip.Prefix

	// Peer is the address of the other side of a point-to-point link, the
	// zero Addr where there is none. The subnet is then the peer's.
	Peer netip.Addr

	// Broadcast is the subnet's broadcast address, IPv4 only; the zero Addr
	// when none is set.
	Broadcast netip.Addr

	// Scope says how far the address is valid.
	Scope AddrScope

	// Flags are the kernel's IFA_F_* bits.
	Flags AddrFlags
}

// Tentative reports that duplicate address detection of this IPv6 address has
// not finished: it cannot be used yet. It stays so after a failed detection.
func (a Addr) Tentative() bool { return a.Flags&AddrTentative != 0 }

// DADFailed reports that another host was found to have this IPv6 address. It
// is not used until it is removed and added again.
func (a Addr) DADFailed() bool { return a.Flags&AddrDADFailed != 0 }

// AddrFlags is the set of an address's IFA_F_* bits, see linux/if_addr.h. Bits
// without a name here are kept.
type AddrFlags uint32

const (
	AddrSecondary     AddrFlags = 0x01  // another IPv4 address of the subnet came first; for IPv6: a temporary address
	AddrNoDAD         AddrFlags = 0x02  // no duplicate address detection
	AddrOptimistic    AddrFlags = 0x04  // usable while detection runs
	AddrDADFailed     AddrFlags = 0x08  // detection found a duplicate
	AddrHome          AddrFlags = 0x10  // home address, Mobile IPv6
	AddrDeprecated    AddrFlags = 0x20  // preferred lifetime is over
	AddrTentative     AddrFlags = 0x40  // detection has not finished
	AddrPermanent     AddrFlags = 0x80  // has no lifetime
	AddrManageTemp    AddrFlags = 0x100 // temporary addresses are made from it
	AddrNoPrefixRoute AddrFlags = 0x200 // no route to its subnet was made
	AddrMulticastJoin AddrFlags = 0x400 // its group is joined automatically
	AddrStablePrivacy AddrFlags = 0x800 // made as RFC 7217 says
)

// AddrScope says how far an address is valid, see RT_SCOPE_* in
// linux/rtnetlink.h. Values between the named ones belong to the administrator.
type AddrScope uint8

const (
	AddrScopeGlobal AddrScope = 0   // everywhere
	AddrScopeSite   AddrScope = 200 // within the site (deprecated, IPv6)
	AddrScopeLink   AddrScope = 253 // on this link
	AddrScopeHost   AddrScope = 254 // inside this host
)

// checkAddrs refuses addresses that no link can have, and duplicates.
func checkAddrs(addrs []netip.Prefix) error {
	for i, p := range addrs {
		a := p.Addr()
		switch {
		case !p.IsValid():
			return refuse.Input("address %d of the list is not a valid prefix", i)
		case a.Is4In6():
			return refuse.Input("address %s is IPv4 written as IPv6; use its IPv4 form %s", p, a.Unmap())
		case a.Zone() != "":
			return refuse.Input("address %s has a zone", p)
		case a.IsUnspecified():
			return refuse.Input("address %s is the unspecified address", p)
		case a.IsMulticast():
			return refuse.Input("address %s is a multicast address", p)
		case a == broadcastAll:
			return refuse.Input("address %s is the broadcast address of every network", p)
		}
		for _, q := range addrs[:i] {
			// IPv4 may hold one address with several lengths, IPv6 may not.
			if p == q || (a.Is6() && a == q.Addr()) {
				return refuse.Input("address %s appears twice", p)
			}
		}
	}
	return nil
}

var broadcastAll = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// broadcastOf is the subnet's last address, which `ip address add ... brd +`
// sets; the zero Addr for IPv6, /31 and /32, which have none (RFC 3021).
func broadcastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() >= 31 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
