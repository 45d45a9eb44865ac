package link

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Geneve carries Ethernet frames over UDP to one other host (RFC 8926). The UDP
// packets pass through the namespace given to Create, also if Spec.NS puts the link
// into another one.
//
// It needs the kernel's module geneve. A comment on a field gives its default last,
// and IFLA_GENEVE_* of linux/if_link.h in parentheses. See ip-link(8).
type Geneve struct {
	ID     *uint32    // network identifier, 0 to 16777215; required without External (ID)
	Remote netip.Addr // the other host; required without External (REMOTE, REMOTE6)
	Local  netip.Addr // source address; the route decides; newer than Linux 7.2 (LOCAL, LOCAL6)

	Port               uint16    // UDP port of the other host; 6081 (PORT)
	SourcePorts        PortRange // UDP source ports, chosen by a hash of the inner flow; Linux 6.16 (PORT_RANGE)
	TTL                uint8     // of the UDP packets, 0: the route's; 0 (TTL)
	TTLInherit         bool      // the TTL is the inner packet's (TTL_INHERIT)
	TOS                uint8     // of the UDP packets, 1: the inner packet's; 0 (TOS)
	DF                 TunnelDF  // the "don't fragment" bit, IPv4 (DF)
	FlowLabel          uint32    // IPv6 flow label, 0 to 1048575 (LABEL)
	UDPChecksum        *bool     // sends checksums, IPv4; on (UDP_CSUM)
	UDPZeroChecksum6Tx bool      // sends no checksums, IPv6 (UDP_ZERO_CSUM6_TX)
	UDPZeroChecksum6Rx bool      // accepts packets without a checksum, IPv6 (UDP_ZERO_CSUM6_RX)
	InnerProtoInherit  bool      // carries IP packets without an Ethernet header; Linux 6.0 (INNER_PROTO_INHERIT)

	// External takes identifier and addresses from each packet's metadata
	// (COLLECT_METADATA).
	External bool
}

func (Geneve) name() string { return "geneve" }

func (k Geneve) check(*Spec) error {
	switch {
	case k.External && (k.ID != nil || k.Remote.IsValid()):
		return refuse.Input("an external Geneve takes ID and Remote from each packet: leave them out")
	case !k.External && (k.ID == nil || !k.Remote.IsValid()):
		return refuse.Input("a Geneve needs an ID and a Remote, or External")
	case k.ID != nil && *k.ID >= 1<<24:
		return refuse.Input("Geneve ID %d is out of range (0 to 16777215)", *k.ID)
	case k.Remote.IsMulticast():
		return refuse.Input("the remote address %s is a multicast address", k.Remote)
	}
	return checkTunnel(k.Remote, k.Local, k.SourcePorts, k.FlowLabel)
}

func (k Geneve) fields() (Kind, []field) {
	ttl := field{3, "IFLA_GENEVE_TTL", &k.TTL, u8}
	if k.TTLInherit { // the kernel ignores a TTL beside it; one alone would end it
		ttl.form = skipped{}
	}
	return &k, []field{
		{1, "IFLA_GENEVE_ID", &k.ID, u32},
		{2, "IFLA_GENEVE_REMOTE", &k.Remote, ip4{}},
		{7, "IFLA_GENEVE_REMOTE6", &k.Remote, ip6{}},
		{17, "IFLA_GENEVE_LOCAL", &k.Local, ip4{}},
		{18, "IFLA_GENEVE_LOCAL6", &k.Local, ip6{}},
		ttl,
		{12, "IFLA_GENEVE_TTL_INHERIT", &k.TTLInherit, u8},
		{4, "IFLA_GENEVE_TOS", &k.TOS, u8},
		{13, "IFLA_GENEVE_DF", &k.DF, u8},
		{11, "IFLA_GENEVE_LABEL", &k.FlowLabel, be32},
		{5, "IFLA_GENEVE_PORT", &k.Port, be16},
		{15, "IFLA_GENEVE_PORT_RANGE", &k.SourcePorts, portRange{}},
		{6, "IFLA_GENEVE_COLLECT_METADATA", &k.External, flagAttr{}},
		{8, "IFLA_GENEVE_UDP_CSUM", &k.UDPChecksum, u8},
		{9, "IFLA_GENEVE_UDP_ZERO_CSUM6_TX", &k.UDPZeroChecksum6Tx, u8},
		{10, "IFLA_GENEVE_UDP_ZERO_CSUM6_RX", &k.UDPZeroChecksum6Rx, u8},
		{14, "IFLA_GENEVE_INNER_PROTO_INHERIT", &k.InnerProtoInherit, flagAttr{}},
	}
}
