package link

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Addr is an address of a link (ip-address(8)).
type Addr struct {
	// Prefix is the address with the length of its subnet. The host bits are the
	// address: 10.88.0.2/16.
	Prefix netip.Prefix

	// Peer is the address of the other side of a point-to-point link; the subnet
	// is then the peer's. The zero Addr is none.
	Peer netip.Addr

	// Broadcast is the subnet's broadcast address, IPv4 only. The zero Addr is
	// none.
	Broadcast netip.Addr

	// Scope says how far the address is valid. For IPv6 the kernel sets it.
	Scope AddrScope

	// Flags are the kernel's IFA_F_* bits. In a new address these count:
	// AddrNoDAD, AddrOptimistic, AddrHome, AddrManageTemp, AddrNoPrefixRoute,
	// AddrMulticastJoin, and AddrDeprecated, which is a preferred lifetime of
	// zero. The kernel sets the others.
	Flags AddrFlags

	// Link is the index of the link that has the address. Link.AddAddrs and
	// the like ignore it.
	Link int

	// Label is the name of an IPv4 address, up to 15 bytes; "" is the link's
	// name (IFA_LABEL). IPv6 addresses have none.
	Label string

	// Metric is that of the route to the subnet; 0 is the kernel's default
	// (IFA_RT_PRIORITY).
	Metric uint32

	// Protocol says what made the address (IFA_PROTO, Linux 5.18).
	Protocol AddrProtocol

	// Valid is how long the address lasts from now, Preferred how long new
	// connections should use it, in whole seconds, rounded up. A Valid of 0 is
	// for ever, a Preferred of 0 is as long as Valid.
	Valid, Preferred time.Duration
}

// StaticAddr returns a prefix as [Link.AddPrefixes] adds it. An IPv4 address has
// its subnet's broadcast address, unless that is a /31 or /32. An IPv6 address has
// no duplicate address detection; Spec.DAD gives the reason. Begin with it if an
// address needs more:
//
//	a := link.StaticAddr(netip.MustParsePrefix("10.88.0.2/16"))
//	a.Flags |= link.AddrNoPrefixRoute
//	a.Valid = time.Hour
//	err := eth.AddAddrs(ctx, a)
func StaticAddr(p netip.Prefix) Addr {
	a := Addr{Prefix: p, Broadcast: broadcastOf(p)}
	switch {
	case p.Addr().Is6():
		a.Flags = AddrNoDAD
	case p.Addr().IsLoopback():
		a.Scope = AddrScopeHost // as ip-address(8) does
	}
	return a
}

// newAddr is an address of Spec.Addrs. dad is Spec.DAD.
func newAddr(p netip.Prefix, dad bool) Addr {
	a := StaticAddr(p)
	if dad {
		a.Flags &^= AddrNoDAD
	}
	return a
}

// linkLocal returns the link-local address that the kernel would make from a hardware
// address (RFC 4291, appendix A). ok is false if addrs have another, or no IPv6 address.
func linkLocal(mac net.HardwareAddr, addrs []netip.Prefix) (p netip.Prefix, ok bool) {
	if len(mac) != 6 {
		return netip.Prefix{}, false
	}
	for _, p := range addrs {
		ok = ok || p.Addr().Is6()
		if p.Addr().IsLinkLocalUnicast() && p.Addr().Is6() {
			return netip.Prefix{}, false
		}
	}
	a := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.PrefixFrom(a, 64), ok
}

// String returns the address as ip-address(8) writes it: "10.0.0.1/24" or
// "10.0.0.1 peer 10.0.0.9/24".
func (a Addr) String() string {
	if a.Peer.IsValid() {
		return fmt.Sprintf("%s peer %s", a.Prefix.Addr(), netip.PrefixFrom(a.Peer, a.Prefix.Bits()))
	}
	return a.Prefix.String()
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

// The values of AddrFlags.
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
	AddrMulticastJoin AddrFlags = 0x400 // a multicast address: the link joins its group
	AddrStablePrivacy AddrFlags = 0x800 // made as RFC 7217 says
)

// AddrScope says how far an address is valid, see RT_SCOPE_* in
// linux/rtnetlink.h. Values between the named ones belong to the administrator.
type AddrScope uint8

// The values of AddrScope.
const (
	AddrScopeGlobal AddrScope = 0   // everywhere
	AddrScopeSite   AddrScope = 200 // within the site (deprecated, IPv6)
	AddrScopeLink   AddrScope = 253 // on this link
	AddrScopeHost   AddrScope = 254 // inside this host
)

// AddrProtocol says who made an address (IFAPROT_* in linux/if_addr.h). Values
// without a name here are free for programs to use.
type AddrProtocol uint8

// The values of AddrProtocol.
const (
	AddrProtocolNone      AddrProtocol = 0 // not said
	AddrProtocolLoopback  AddrProtocol = 1 // the kernel, for lo
	AddrProtocolRA        AddrProtocol = 2 // the kernel, after a router advertisement
	AddrProtocolLinkLocal AddrProtocol = 3 // the kernel, link-local
)

// settable are the flags that a new address may be given.
const settable = AddrNoDAD | AddrOptimistic | AddrHome | AddrManageTemp | AddrNoPrefixRoute | AddrMulticastJoin

// maxLifetime is one second less than what the kernel takes for "for ever".
const maxLifetime = (1<<32 - 2) * time.Second

// checkAddrs refuses addresses that no link can have, and duplicates.
func checkAddrs(addrs []netip.Prefix) error {
	for i, p := range addrs {
		if err := checkPrefix(i, p, false); err != nil {
			return err
		}
		for _, q := range addrs[:i] {
			// IPv4 may hold one address with several lengths, IPv6 may not.
			if p == q || (p.Addr().Is6() && p.Addr() == q.Addr()) {
				return refuse.Input("address %s appears twice", p)
			}
		}
	}
	return nil
}

// checkPrefix refuses an address, the one at position i, that no link can have.
// One that is there for its group to be joined has to be a multicast address.
func checkPrefix(i int, p netip.Prefix, group bool) error {
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
	case group && !a.IsMulticast():
		return refuse.Input("address %s has AddrMulticastJoin and is not a multicast address", p)
	case a.IsMulticast() && !group:
		return refuse.Input("address %s is a multicast address", p)
	case a == broadcastAll:
		return refuse.Input("address %s is the broadcast address of every network", p)
	}
	return nil
}

// checkFullAddrs refuses what the kernel would refuse without a message or ignore.
func checkFullAddrs(addrs []Addr) error {
	for i := range addrs {
		a := &addrs[i]
		if err := checkPrefix(i, a.Prefix, a.Flags&AddrMulticastJoin != 0); err != nil {
			return err
		}
		v6 := a.Prefix.Addr().Is6()
		switch {
		case a.Peer.IsValid() && (a.Peer.Is4() == v6 || a.Peer.Is4In6() || a.Peer.Zone() != ""):
			return refuse.Input("address %s has the peer %s, which is not of its family", a.Prefix, a.Peer)
		case a.Broadcast.IsValid() && (v6 || !a.Broadcast.Is4()):
			return refuse.Input("address %s has the broadcast address %s: only IPv4 addresses have one, of IPv4", a, a.Broadcast)
		case v6 && a.Label != "":
			return refuse.Input("address %s has the label %q: only IPv4 addresses have one", a, a.Label)
		case a.Label != "" && (len(a.Label) > linkname.Max || strings.ContainsRune(a.Label, 0)):
			return refuse.Input("address %s has the label %q: at most %d bytes are possible", a, a.Label, linkname.Max)
		case !v6 && a.Flags&(AddrOptimistic|AddrHome|AddrManageTemp) != 0:
			return refuse.Input("address %s has a flag that only IPv6 addresses have (AddrOptimistic, AddrHome or AddrManageTemp)", a)
		case v6 && a.Scope != 0:
			return refuse.Input("address %s has a scope: that of an IPv6 address lies in the address", a)
		case a.Valid < 0 || a.Preferred < 0 || a.Valid > maxLifetime || a.Preferred > maxLifetime:
			return refuse.Input("address %s has a lifetime that is negative or too long", a)
		case a.Valid != 0 && a.Preferred > a.Valid:
			return refuse.Input("address %s is to be preferred for longer (%v) than it is valid (%v)", a, a.Preferred, a.Valid)
		case a.Preferred != 0 && a.Flags&AddrDeprecated != 0:
			return refuse.Input("address %s is to be deprecated and preferred for %v", a, a.Preferred)
		}
		for j := range addrs[:i] {
			if a.same(&addrs[j]) {
				return refuse.Input("address %s appears twice", a)
			}
		}
	}
	return nil
}

// same reports whether one link can have only one of them. IPv4 may hold one
// address with several lengths and several peers, IPv6 may not.
func (a *Addr) same(b *Addr) bool {
	if a.Prefix.Addr() != b.Prefix.Addr() {
		return false
	}
	return a.Prefix.Addr().Is6() || (a.Prefix.Bits() == b.Prefix.Bits() && a.subnet() == b.subnet())
}

// subnet is the network that the address leads to.
func (a *Addr) subnet() netip.Prefix {
	if a.Peer.IsValid() {
		return netip.PrefixFrom(a.Peer, a.Prefix.Bits()).Masked()
	}
	return a.Prefix.Masked()
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
