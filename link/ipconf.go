package link

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/refuse"
)

// IPv4Conf has a link's IPv4 settings. A nil field keeps the link's value; a new
// link takes it from net.ipv4.conf.default. What [Link.Details] reads has all
// fields that the kernel knows.
//
// They are the sysctls net.ipv4.conf.LINK.x of
// Documentation/networking/ip-sysctl.rst in the kernel's source, but go over
// netlink (IPV4_DEVCONF_* in linux/ip.h). That needs no /proc, takes one message
// for all, and its cost does not grow with the number of namespaces.
type IPv4Conf struct {
	Forwarding           *bool // routes packets that come in here
	MulticastForwarding  *bool // read only: a multicast routing daemon runs
	BroadcastForwarding  *bool // routes directed broadcasts
	RouteLocalnet        *bool // routes 127.0.0.0/8 like any other network
	RPFilter             *int  // 0: off; 1: the route to a source must lead here; 2: there must be a route to it
	AcceptLocal          *bool // accepts packets with a source address of this host
	SourceValidMark      *bool // RPFilter's lookup includes the packet's mark
	AcceptSourceRoute    *bool // accepts packets with source routing
	LogMartians          *bool // logs packets with impossible addresses
	IgnoreLinkDownRoutes *bool // ignores routes through the link while it has no carrier

	ProxyARP             *bool // answers ARP requests for addresses that another link leads to
	ProxyARPPVLAN        *bool // also for addresses that this link leads to
	ARPFilter            *bool // answers only where the route to the sender leads
	ARPAnnounce          *int  // 0 to 2: which source address its requests have
	ARPIgnore            *int  // 0 to 8: which requests it answers
	ARPAccept            *int  // 1: gratuitous ARP makes entries; 2: within the subnet, Linux 5.19
	ARPNotify            *bool // sends gratuitous ARP when it comes up
	ARPEvictNoCarrier    *bool // removes neighbours when it loses its carrier; Linux 5.16
	DropGratuitousARP    *bool // ignores gratuitous ARP
	DropUnicastInL2Mcast *bool // drops unicast packets in Ethernet multicast frames

	SendRedirects      *bool // sends ICMP redirects
	AcceptRedirects    *bool // accepts ICMP redirects
	SecureRedirects    *bool // accepts them from gateways only
	SharedMedia        *bool // other networks are on the same wire
	PromoteSecondaries *bool // a secondary address takes the place of a primary one that is removed
	NoXfrm             *bool // no IPsec on outgoing packets (disable_xfrm)
	NoPolicy           *bool // no IPsec policy check on incoming packets (disable_policy)
	IGMPVersion        *int  // the version that is forced, 0: none (force_igmp_version)
}

func (c *IPv4Conf) fields() []field {
	return []field{
		{1, "IPV4_DEVCONF_FORWARDING", &c.Forwarding, u32},
		{2, "IPV4_DEVCONF_MC_FORWARDING", &c.MulticastForwarding, u32},
		{3, "IPV4_DEVCONF_PROXY_ARP", &c.ProxyARP, u32},
		{4, "IPV4_DEVCONF_ACCEPT_REDIRECTS", &c.AcceptRedirects, u32},
		{5, "IPV4_DEVCONF_SECURE_REDIRECTS", &c.SecureRedirects, u32},
		{6, "IPV4_DEVCONF_SEND_REDIRECTS", &c.SendRedirects, u32},
		{7, "IPV4_DEVCONF_SHARED_MEDIA", &c.SharedMedia, u32},
		{8, "IPV4_DEVCONF_RP_FILTER", &c.RPFilter, u32},
		{9, "IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE", &c.AcceptSourceRoute, u32},
		{11, "IPV4_DEVCONF_LOG_MARTIANS", &c.LogMartians, u32},
		{13, "IPV4_DEVCONF_ARPFILTER", &c.ARPFilter, u32},
		{15, "IPV4_DEVCONF_NOXFRM", &c.NoXfrm, u32},
		{16, "IPV4_DEVCONF_NOPOLICY", &c.NoPolicy, u32},
		{17, "IPV4_DEVCONF_FORCE_IGMP_VERSION", &c.IGMPVersion, u32},
		{18, "IPV4_DEVCONF_ARP_ANNOUNCE", &c.ARPAnnounce, u32},
		{19, "IPV4_DEVCONF_ARP_IGNORE", &c.ARPIgnore, u32},
		{20, "IPV4_DEVCONF_PROMOTE_SECONDARIES", &c.PromoteSecondaries, u32},
		{21, "IPV4_DEVCONF_ARP_ACCEPT", &c.ARPAccept, u32},
		{22, "IPV4_DEVCONF_ARP_NOTIFY", &c.ARPNotify, u32},
		{23, "IPV4_DEVCONF_ACCEPT_LOCAL", &c.AcceptLocal, u32},
		{24, "IPV4_DEVCONF_SRC_VMARK", &c.SourceValidMark, u32},
		{25, "IPV4_DEVCONF_PROXY_ARP_PVLAN", &c.ProxyARPPVLAN, u32},
		{26, "IPV4_DEVCONF_ROUTE_LOCALNET", &c.RouteLocalnet, u32},
		{29, "IPV4_DEVCONF_IGNORE_ROUTES_WITH_LINKDOWN", &c.IgnoreLinkDownRoutes, u32},
		{30, "IPV4_DEVCONF_DROP_UNICAST_IN_L2_MULTICAST", &c.DropUnicastInL2Mcast, u32},
		{31, "IPV4_DEVCONF_DROP_GRATUITOUS_ARP", &c.DropGratuitousARP, u32},
		{32, "IPV4_DEVCONF_BC_FORWARDING", &c.BroadcastForwarding, u32},
		{33, "IPV4_DEVCONF_ARP_EVICT_NOCARRIER", &c.ARPEvictNoCarrier, u32},
	}
}

// IPv6Conf has a link's IPv6 settings. A nil field keeps the link's value; a new
// link takes it from net.ipv6.conf.default. What [Link.Details] reads has all of
// them.
//
// AddrGenMode and Token go over netlink. The kernel has the others only as sysctls
// net.ipv6.conf.LINK.x (Documentation/networking/ip-sysctl.rst in its source).
// These need a writable /proc, and their cost grows with the number of namespaces.
// For a box that must start fast, AddrGenMode does what is needed.
//
// On a kernel without IPv6 (ipv6.disable=1), settings that ask for nothing hold
// already and are not sent: AddrGenNone, Disable true, and Forwarding, Autoconf,
// ProxyNDP and AcceptRA off. Any other setting fails.
type IPv6Conf struct {
	// AddrGenMode says how the link makes addresses by itself. With AddrGenNone
	// it makes none, not even a link-local one, and sends no multicast when it
	// comes up.
	AddrGenMode *AddrGenMode

	// Token is the last 64 bits of the addresses that the link makes from router
	// advertisements, such as ::53. The link must accept advertisements.
	Token netip.Addr

	Disable      *bool // the link has no IPv6
	Forwarding   *bool // the link is a router's: other sysctls follow, see ip-sysctl.rst
	AcceptRA     *int  // accepts router advertisements: 0 never, 1 unless it forwards, 2 always
	Autoconf     *bool // makes addresses from router advertisements
	ProxyNDP     *bool // answers for the addresses of its proxy neighbours
	AcceptDAD    *int  // 0: no duplicate address detection, 2: a duplicate link-local address disables IPv6
	DADTransmits *int  // solicitations that detection sends; 1
}

// AddrGenMode says how a link makes IPv6 addresses by itself, IN6_ADDR_GEN_MODE_*
// in linux/if_link.h.
type AddrGenMode uint8

// The values of AddrGenMode.
const (
	AddrGenEUI64         AddrGenMode = 0 // from the hardware address
	AddrGenNone          AddrGenMode = 1 // not at all
	AddrGenStablePrivacy AddrGenMode = 2 // RFC 7217, with the secret of the sysctl stable_secret
	AddrGenRandom        AddrGenMode = 3 // RFC 7217, with a secret drawn at random
)

// attributes are those that go over netlink, as they stand in
// IFLA_AF_SPEC/AF_INET6.
func (c *IPv6Conf) attributes() []field {
	c = c.unmet()
	return []field{
		{8, "IFLA_INET6_ADDR_GEN_MODE", &c.AddrGenMode, sureU8},
		{7, "IFLA_INET6_TOKEN", &c.Token, ip6{}},
	}
}

// sysctls are the others: DEVCONF_* in linux/ipv6.h and the name of the file.
func (c *IPv6Conf) sysctls() []field {
	c = c.unmet()
	return []field{
		{26, "disable_ipv6", &c.Disable, u32},
		{0, "forwarding", &c.Forwarding, u32},
		{3, "accept_ra", &c.AcceptRA, u32},
		{5, "autoconf", &c.Autoconf, u32},
		{22, "proxy_ndp", &c.ProxyNDP, u32},
		{27, "accept_dad", &c.AcceptDAD, u32},
		{6, "dad_transmits", &c.DADTransmits, u32},
	}
}

// unmet are the settings that a kernel has to be asked for: all, if it has IPv6.
func (c *IPv6Conf) unmet() *IPv6Conf {
	if kernel.HasIPv6() {
		return c
	}
	left := *c
	if c.AddrGenMode != nil && *c.AddrGenMode == AddrGenNone {
		left.AddrGenMode = nil
	}
	if c.Disable != nil && *c.Disable {
		left.Disable = nil
	}
	for _, off := range []**bool{&left.Forwarding, &left.Autoconf, &left.ProxyNDP} {
		if *off != nil && !**off {
			*off = nil
		}
	}
	if c.AcceptRA != nil && *c.AcceptRA == 0 {
		left.AcceptRA = nil
	}
	return &left
}

func (c *IPv6Conf) check() error {
	if c.Token.IsValid() && (!c.Token.Is6() || c.Token.Is4In6()) {
		return refuse.Input("IPv6.Token %s is no IPv6 address", c.Token)
	}
	return nil
}
