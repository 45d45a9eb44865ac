package link

import (
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// VXLAN carries Ethernet frames over UDP (RFC 7348). The UDP packets pass through
// the namespace given to Create, also if Spec.NS puts the link into another one.
//
// The link's forwarding database says which host a frame is sent to. Entries are
// learned, or added by [Link.AddFDBEntries]; Remote is the entry for all other
// addresses.
//
// It needs the kernel's module vxlan. A comment on a field gives its default last,
// and IFLA_VXLAN_* of linux/if_link.h in parentheses. See ip-link(8).
type VXLAN struct {
	ID     *uint32    // network identifier, 0 to 16777215; required without External (ID)
	Remote netip.Addr // host for addresses without an entry, or a multicast group, which needs Underlay (GROUP, GROUP6)
	Local  netip.Addr // source address; the route decides (LOCAL, LOCAL6)

	// Underlay is the link that the UDP packets leave by. It is in the namespace
	// given to Create. (LINK)
	Underlay Ref

	Port                uint16         // UDP port of all ends, by IANA 4789; 8472 (PORT)
	SourcePorts         PortRange      // UDP source ports, chosen by a hash of the inner flow; the local port range (PORT_RANGE)
	TTL                 uint8          // of the UDP packets, 0: the route's, for multicast 1; 0 (TTL)
	TTLInherit          bool           // the TTL is the inner packet's (TTL_INHERIT)
	TOS                 uint8          // of the UDP packets, 1: the inner packet's; 0 (TOS)
	DF                  TunnelDF       // the "don't fragment" bit, IPv4 (DF)
	FlowLabel           uint32         // IPv6 flow label, 0 to 1048575 (LABEL)
	FlowLabelInherit    bool           // the flow label is the inner packet's; Linux 6.8 (LABEL_POLICY)
	Learning            *bool          // learns remote addresses from what arrives; on, off with External (LEARNING)
	Ageing              *time.Duration // after it a learned address expires, whole seconds, 0: never; 5 min (AGEING)
	MaxAddresses        uint32         // how many entries the database has at most, 0: no limit; 0 (LIMIT)
	Proxy               bool           // answers ARP and neighbour solicitations from its own table (PROXY)
	RouteShortCircuit   bool           // routes to the next hop itself where the database names it a router (RSC)
	L2Miss, L3Miss      bool           // reports unknown hardware and IP addresses as events (L2MISS, L3MISS)
	UDPChecksum         *bool          // sends checksums, IPv4; on (UDP_CSUM)
	UDPZeroChecksum6Tx  bool           // sends no checksums, IPv6 (UDP_ZERO_CSUM6_TX)
	UDPZeroChecksum6Rx  bool           // accepts packets without a checksum, IPv6 (UDP_ZERO_CSUM6_RX)
	RemoteChecksumTx    bool           // sends with remote checksum offload (REMCSUM_TX)
	RemoteChecksumRx    bool           // accepts remote checksum offload (REMCSUM_RX)
	RemoteChecksumWhole bool           // completes the checksum on receipt and leaves no partial one (REMCSUM_NOPARTIAL)

	External       bool  // each packet's metadata has identifier and addresses: route.IPEncap, BPF (COLLECT_METADATA)
	VNIFilter      bool  // accepts listed identifiers only; needs External; Linux 5.18 (VNIFILTER)
	GBP            bool  // group policy extension (GBP)
	GPE            bool  // generic protocol extension: IP packets without an Ethernet header; needs External (GPE)
	LocalBypass    *bool // packets to this host's own VXLANs skip the UDP stack; on; Linux 6.5 (LOCALBYPASS)
	MulticastRoute *bool // routes its multicast UDP packets; off; Linux 6.17 (MC_ROUTE)
}

// PortRange is a range of UDP ports, both ends included. The zero value is no
// range.
type PortRange struct{ Low, High uint16 }

// TunnelDF says how a tunnel sets the "don't fragment" bit of its IPv4 packets,
// VXLAN_DF_* and GENEVE_DF_* in linux/if_link.h.
type TunnelDF uint8

// The values of TunnelDF.
const (
	TunnelDFUnset   TunnelDF = 0 // clear
	TunnelDFSet     TunnelDF = 1 // set
	TunnelDFInherit TunnelDF = 2 // that of the inner packet
)

func (VXLAN) name() string { return "vxlan" }

func (k VXLAN) check(*Spec) error {
	switch {
	case k.ID == nil && !k.External:
		return refuse.Input("a VXLAN needs an ID, or External")
	case k.ID != nil && *k.ID >= 1<<24:
		return refuse.Input("VXLAN ID %d is out of range (0 to 16777215)", *k.ID)
	case k.ID != nil && *k.ID != 0 && k.External:
		return refuse.Input("an external VXLAN takes its ID from each packet: ID must be nil")
	case k.Remote.IsValid() && k.Remote.IsMulticast() && k.Underlay == (Ref{}):
		return refuse.Input("the multicast group %s needs an Underlay", k.Remote)
	case k.Local.IsValid() && k.Local.IsMulticast():
		return refuse.Input("the source address %s is a multicast address", k.Local)
	case k.VNIFilter && !k.External:
		return refuse.Input("VNIFilter needs External")
	}
	return checkTunnel(k.Remote, k.Local, k.SourcePorts, k.FlowLabel)
}

// checkTunnel checks what VXLAN and Geneve have in common.
func checkTunnel(remote, local netip.Addr, ports PortRange, label uint32) error {
	switch {
	case remote.IsValid() && local.IsValid() && remote.Is4() != local.Is4():
		return refuse.Input("%s and %s are of different families", remote, local)
	case ports.Low > ports.High:
		return refuse.Input("the port range %d-%d is empty", ports.Low, ports.High)
	case label >= 1<<20:
		return refuse.Input("flow label %d is out of range (0 to 1048575)", label)
	}
	return nil
}

func (k VXLAN) fields() (Kind, []field) {
	return &k, []field{
		{1, "IFLA_VXLAN_ID", &k.ID, u32},
		{2, "IFLA_VXLAN_GROUP", &k.Remote, ip4{}},
		{16, "IFLA_VXLAN_GROUP6", &k.Remote, ip6{}},
		{4, "IFLA_VXLAN_LOCAL", &k.Local, ip4{}},
		{17, "IFLA_VXLAN_LOCAL6", &k.Local, ip6{}},
		{3, "IFLA_VXLAN_LINK", &k.Underlay, refIndex{}},
		{5, "IFLA_VXLAN_TTL", &k.TTL, u8},
		{28, "IFLA_VXLAN_TTL_INHERIT", &k.TTLInherit, flagAttr{}},
		{6, "IFLA_VXLAN_TOS", &k.TOS, u8},
		{29, "IFLA_VXLAN_DF", &k.DF, u8},
		{26, "IFLA_VXLAN_LABEL", &k.FlowLabel, be32},
		{32, "IFLA_VXLAN_LABEL_POLICY", &k.FlowLabelInherit, u32},
		{7, "IFLA_VXLAN_LEARNING", &k.Learning, u8},
		{8, "IFLA_VXLAN_AGEING", &k.Ageing, seconds32},
		{9, "IFLA_VXLAN_LIMIT", &k.MaxAddresses, u32},
		{15, "IFLA_VXLAN_PORT", &k.Port, be16},
		{10, "IFLA_VXLAN_PORT_RANGE", &k.SourcePorts, portRange{}},
		{11, "IFLA_VXLAN_PROXY", &k.Proxy, u8},
		{12, "IFLA_VXLAN_RSC", &k.RouteShortCircuit, u8},
		{13, "IFLA_VXLAN_L2MISS", &k.L2Miss, u8},
		{14, "IFLA_VXLAN_L3MISS", &k.L3Miss, u8},
		{18, "IFLA_VXLAN_UDP_CSUM", &k.UDPChecksum, u8},
		{19, "IFLA_VXLAN_UDP_ZERO_CSUM6_TX", &k.UDPZeroChecksum6Tx, u8},
		{20, "IFLA_VXLAN_UDP_ZERO_CSUM6_RX", &k.UDPZeroChecksum6Rx, u8},
		{21, "IFLA_VXLAN_REMCSUM_TX", &k.RemoteChecksumTx, u8},
		{22, "IFLA_VXLAN_REMCSUM_RX", &k.RemoteChecksumRx, u8},
		{24, "IFLA_VXLAN_REMCSUM_NOPARTIAL", &k.RemoteChecksumWhole, flagAttr{}},
		{25, "IFLA_VXLAN_COLLECT_METADATA", &k.External, u8},
		{30, "IFLA_VXLAN_VNIFILTER", &k.VNIFilter, u8},
		{23, "IFLA_VXLAN_GBP", &k.GBP, flagAttr{}},
		{27, "IFLA_VXLAN_GPE", &k.GPE, flagAttr{}},
		{31, "IFLA_VXLAN_LOCALBYPASS", &k.LocalBypass, u8},
		{34, "IFLA_VXLAN_MC_ROUTE", &k.MulticastRoute, u8},
	}
}

// forNew adds what a new link needs: the kernel does not conclude that an external VXLAN
// learns nothing, and then refuses GPE.
func (o *options) forNew() {
	if v, ok := o.kind.(*VXLAN); ok && v.External && v.Learning == nil {
		v.Learning = new(false)
	}
}
