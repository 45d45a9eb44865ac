package link

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Geneve carries Ethernet frames over UDP to one other host (RFC 8926). The UDP
// packets pass through the namespace in which it was made, also where Spec.NS
// puts the link itself into another.
//
// Needs the kernel's module "geneve". See ip-link(8), IFLA_GENEVE_* in
// linux/if_link.h (in parentheses).
type Geneve struct {
	ID     *uint32    // network identifier, 0 to 16777215; required without External (ID)
	Remote netip.Addr // the other host; required without External (REMOTE, REMOTE6)
	Local  netip.Addr // source address; newer than Linux 7.2 (LOCAL, LOCAL6)

	Port               uint16    // UDP port of the other host; 6081 (PORT)
	SourcePorts        PortRange // UDP source ports, chosen by the inner flow; Linux 6.16 (PORT_RANGE)
	TTL                uint8     // of the UDP packets; the route's (TTL)
	TTLInherit         bool      // TTL of the inner packet; Linux 4.20 (TTL_INHERIT)
	TOS                uint8     // 1: of the inner packet (TOS)
	DF                 TunnelDF  // the "don't fragment" bit, IPv4; Linux 5.1 (DF)
	FlowLabel          uint32    // IPv6, 0 to 1048575 (LABEL)
	UDPChecksum        *bool     // sends checksums, IPv4; on (UDP_CSUM)
	UDPZeroChecksum6Tx bool      // sends none, IPv6 (UDP_ZERO_CSUM6_TX)
	UDPZeroChecksum6Rx bool      // takes packets without, IPv6 (UDP_ZERO_CSUM6_RX)
	InnerProtoInherit  bool      // IP packets without a MAC; Linux 6.0 (INNER_PROTO_INHERIT)

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

func (k Geneve) options(o *options) Kind {
	numberp(o, 1, "IFLA_GENEVE_ID", 4, &k.ID)
	address(o, 2, "IFLA_GENEVE_REMOTE", 7, "IFLA_GENEVE_REMOTE6", &k.Remote)
	address(o, 17, "IFLA_GENEVE_LOCAL", 18, "IFLA_GENEVE_LOCAL6", &k.Local)
	if !k.TTLInherit {
		number(o, 3, "IFLA_GENEVE_TTL", 1, &k.TTL)
	}
	flag(o, 12, "IFLA_GENEVE_TTL_INHERIT", 1, &k.TTLInherit)
	if k.TTLInherit {
		k.TTL = 0 // the kernel shows the one from before, which is not in use
	}
	number(o, 4, "IFLA_GENEVE_TOS", 1, &k.TOS)
	number(o, 13, "IFLA_GENEVE_DF", 1, &k.DF)
	number(o, 11, "IFLA_GENEVE_LABEL", 4|bigEndian, &k.FlowLabel)
	number(o, 5, "IFLA_GENEVE_PORT", 2|bigEndian, &k.Port)
	portRange(o, 15, "IFLA_GENEVE_PORT_RANGE", &k.SourcePorts)
	flagAttr(o, 6, "IFLA_GENEVE_COLLECT_METADATA", &k.External)
	onoff(o, 8, "IFLA_GENEVE_UDP_CSUM", 1, &k.UDPChecksum)
	flag(o, 9, "IFLA_GENEVE_UDP_ZERO_CSUM6_TX", 1, &k.UDPZeroChecksum6Tx)
	flag(o, 10, "IFLA_GENEVE_UDP_ZERO_CSUM6_RX", 1, &k.UDPZeroChecksum6Rx)
	flagAttr(o, 14, "IFLA_GENEVE_INNER_PROTO_INHERIT", &k.InnerProtoInherit)
	return k
}
