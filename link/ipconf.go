package link

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/refuse"
)

// IPv4Conf are a link's IPv4 settings. Nil fields are left alone; a new link
// takes them from net.ipv4.conf.default. Read from the kernel all are set that it
// has.
//
// They are the sysctls net.ipv4.conf.LINK.x of
// Documentation/networking/ip-sysctl.rst in the kernel's source, but set over
// netlink (IPV4_DEVCONF_* in linux/ip.h): that works without /proc too, takes one
// message for all, and costs the same however many namespaces there are.
type IPv4Conf struct {
	Forwarding           *bool // packets that come in here are routed on
	MulticastForwarding  *bool // read only: a multicast routing daemon runs
	BroadcastForwarding  *bool // directed broadcasts are routed on; Linux 5.0
	RouteLocalnet        *bool // 127.0.0.0/8 is routed as any other network
	RPFilter             *int  // 1: packets must come in where their source is reached, 2: be reached at all
	AcceptLocal          *bool // packets with a source address of this host are taken
	SourceValidMark      *bool // RPFilter looks at the packet's mark
	AcceptSourceRoute    *bool // packets may name their way
	LogMartians          *bool
	IgnoreLinkDownRoutes *bool // routes through it count only with a carrier

	ProxyARP             *bool // answers for addresses that it has a route to
	ProxyARPPVLAN        *bool // even where that goes out here again
	ARPFilter            *bool // answers only where it would send to the asker
	ARPAnnounce          *int  // 0 to 2: which source address its questions carry
	ARPIgnore            *int  // 0 to 8: which questions it answers
	ARPAccept            *int  // 1: gratuitous ARP makes entries, 2: within the subnet (Linux 5.19)
	ARPNotify            *bool // announces itself when it comes up
	ARPEvictNoCarrier    *bool // entries go with the carrier; Linux 5.16
	DropGratuitousARP    *bool
	DropUnicastInL2Mcast *bool // drops IP unicast in Ethernet multicast

	SendRedirects      *bool
	AcceptRedirects    *bool
	SecureRedirects    *bool // only from gateways
	SharedMedia        *bool // other networks are on the same wire
	PromoteSecondaries *bool // when an address goes, another of its subnet takes its place
	NoXfrm             *bool // no IPsec on what goes out (disable_xfrm)
	NoPolicy           *bool // nor on what comes in (disable_policy)
	IGMPVersion        *int  // forced; 0: not (force_igmp_version)
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

// IPv6Conf are a link's IPv6 settings. Nil fields are left alone; a new link
// takes them from net.ipv6.conf.default. Read from the kernel all are set.
//
// AddrGenMode and Token go over netlink. For the others the kernel has only the
// sysctls net.ipv6.conf.LINK.x (Documentation/networking/ip-sysctl.rst in its
// source), which need a writable /proc and cost more the more namespaces there
// are; a box that must start fast is better off with AddrGenMode.
//
// Where the kernel has no IPv6 (ipv6.disable=1), what asks for the absence of
// something is met and not sent: AddrGenNone, Disable true, and Forwarding,
// Autoconf, ProxyNDP and AcceptRA off. Any other setting fails there.
type IPv6Conf struct {
	// AddrGenMode says how the link makes addresses by itself. With
	// AddrGenNone it makes none, not even a link-local one: no multicast
	// then leaves a link when it comes up.
	AddrGenMode *AddrGenMode

	// Token are the last 64 bits of the addresses it makes from router
	// advertisements, such as ::53. The link must accept them.
	Token netip.Addr

	Disable      *bool // no IPv6 at all
	Forwarding   *bool // packets that come in here are routed on: all sysctls of a router follow
	AcceptRA     *int  // router advertisements are accepted: 0 never, 1 unless it forwards, 2 always
	Autoconf     *bool // makes addresses from them
	ProxyNDP     *bool // answers for the addresses in its table of proxies
	AcceptDAD    *int  // 0: no duplicate address detection, 2: a duplicate link-local address disables IPv6
	DADTransmits *int  // questions asked by it; 1
}

// AddrGenMode says how a link makes IPv6 addresses by itself,
// IN6_ADDR_GEN_MODE_* in linux/if_link.h.
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
