package link

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// VXLAN carries Ethernet frames over UDP (RFC 7348). The UDP packets pass through
// the namespace in which it was made, also where Spec.NS puts the link itself into
// another.
//
// Where frames go is the link's forwarding database: entries with a destination,
// learned or added; Remote is the entry for everything else.
//
// Needs the kernel's module "vxlan". See ip-link(8), IFLA_VXLAN_* in
// linux/if_link.h (in parentheses).
type VXLAN struct {
	ID     *uint32    // network identifier, 0 to 16777215; required without External (ID)
	Remote netip.Addr // where unknown frames go: a host, or a multicast group with Underlay (GROUP, GROUP6)
	Local  netip.Addr // source address (LOCAL, LOCAL6)

	// Underlay is the index of the link that the UDP packets leave by, in the
	// namespace given to Create (LINK).
	Underlay int

	Port                uint16         // UDP port of the other ends; the kernel's default is 8472, IANA's is 4789 (PORT)
	SourcePorts         PortRange      // UDP source ports, chosen by the inner flow; the local port range (PORT_RANGE)
	TTL                 uint8          // of the UDP packets; the route's, and 1 for multicast (TTL)
	TTLInherit          bool           // TTL of the inner packet; Linux 4.18 (TTL_INHERIT)
	TOS                 uint8          // 1: of the inner packet (TOS)
	DF                  TunnelDF       // the "don't fragment" bit, IPv4; Linux 5.1 (DF)
	FlowLabel           uint32         // IPv6, 0 to 1048575 (LABEL)
	FlowLabelInherit    bool           // that of the inner packet; Linux 6.8 (LABEL_POLICY)
	Learning            *bool          // remote addresses are learned from what arrives; on, off with External (LEARNING)
	Ageing              *time.Duration // learned addresses are forgotten after it, whole seconds; 5 min, 0: never (AGEING)
	MaxAddresses        uint32         // learned at most; any number (LIMIT)
	Proxy               bool           // answers ARP and neighbour solicitations from its own table (PROXY)
	RouteShortCircuit   bool           // (RSC)
	L2Miss, L3Miss      bool           // tells listeners of unknown addresses (L2MISS, L3MISS)
	UDPChecksum         *bool          // sends checksums, IPv4; on (UDP_CSUM)
	UDPZeroChecksum6Tx  bool           // sends none, IPv6 (UDP_ZERO_CSUM6_TX)
	UDPZeroChecksum6Rx  bool           // takes packets without, IPv6 (UDP_ZERO_CSUM6_RX)
	RemoteChecksumTx    bool           // remote checksum offload (REMCSUM_TX)
	RemoteChecksumRx    bool           // (REMCSUM_RX)
	RemoteChecksumWhole bool           // no partial ones (REMCSUM_NOPARTIAL)

	External       bool  // takes identifier and addresses from each packet's metadata: routes with encapsulation, BPF (COLLECT_METADATA)
	VNIFilter      bool  // with External: takes only the identifiers it was given; Linux 5.18 (VNIFILTER)
	GBP            bool  // group policy extension (GBP)
	GPE            bool  // generic protocol extension: IP packets without a MAC; needs External (GPE)
	LocalBypass    *bool // packets to this host's own VXLANs take a short way; on; Linux 6.5 (LOCALBYPASS)
	MulticastRoute *bool // multicast UDP packets are routed; Linux 6.17 (MC_ROUTE)
}

// PortRange is a range of UDP ports, both ends included; the zero value is none.
type PortRange struct{ Low, High uint16 }

// TunnelDF says what a tunnel does about the "don't fragment" bit of its IPv4
// packets, VXLAN_DF_* and GENEVE_DF_* in linux/if_link.h.
type TunnelDF uint8

const (
	TunnelDFUnset   TunnelDF = 0
	TunnelDFSet     TunnelDF = 1
	TunnelDFInherit TunnelDF = 2 // as the inner packet has it
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
	case k.Remote.IsValid() && k.Remote.IsMulticast() && k.Underlay == 0:
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

func (k VXLAN) options(o *options) Kind {
	if o.do == encode && o.have == nil && k.External && k.Learning == nil {
		k.Learning = new(false) // which the kernel does not see by itself, and then refuses GPE
	}
	numberp(o, 1, "IFLA_VXLAN_ID", 4, &k.ID)
	address(o, 2, "IFLA_VXLAN_GROUP", 16, "IFLA_VXLAN_GROUP6", &k.Remote)
	address(o, 4, "IFLA_VXLAN_LOCAL", 17, "IFLA_VXLAN_LOCAL6", &k.Local)
	number(o, 3, "IFLA_VXLAN_LINK", 4, &k.Underlay)
	number(o, 5, "IFLA_VXLAN_TTL", 1, &k.TTL)
	flagAttr(o, 28, "IFLA_VXLAN_TTL_INHERIT", &k.TTLInherit)
	number(o, 6, "IFLA_VXLAN_TOS", 1, &k.TOS)
	number(o, 29, "IFLA_VXLAN_DF", 1, &k.DF)
	number(o, 26, "IFLA_VXLAN_LABEL", 4|bigEndian, &k.FlowLabel)
	flag(o, 32, "IFLA_VXLAN_LABEL_POLICY", 4, &k.FlowLabelInherit)
	onoff(o, 7, "IFLA_VXLAN_LEARNING", 1, &k.Learning)
	intervalp(o, 8, "IFLA_VXLAN_AGEING", 4, time.Second, &k.Ageing)
	number(o, 9, "IFLA_VXLAN_LIMIT", 4, &k.MaxAddresses)
	number(o, 15, "IFLA_VXLAN_PORT", 2|bigEndian, &k.Port)
	portRange(o, 10, "IFLA_VXLAN_PORT_RANGE", &k.SourcePorts)
	flag(o, 11, "IFLA_VXLAN_PROXY", 1, &k.Proxy)
	flag(o, 12, "IFLA_VXLAN_RSC", 1, &k.RouteShortCircuit)
	flag(o, 13, "IFLA_VXLAN_L2MISS", 1, &k.L2Miss)
	flag(o, 14, "IFLA_VXLAN_L3MISS", 1, &k.L3Miss)
	onoff(o, 18, "IFLA_VXLAN_UDP_CSUM", 1, &k.UDPChecksum)
	flag(o, 19, "IFLA_VXLAN_UDP_ZERO_CSUM6_TX", 1, &k.UDPZeroChecksum6Tx)
	flag(o, 20, "IFLA_VXLAN_UDP_ZERO_CSUM6_RX", 1, &k.UDPZeroChecksum6Rx)
	flag(o, 21, "IFLA_VXLAN_REMCSUM_TX", 1, &k.RemoteChecksumTx)
	flag(o, 22, "IFLA_VXLAN_REMCSUM_RX", 1, &k.RemoteChecksumRx)
	flagAttr(o, 24, "IFLA_VXLAN_REMCSUM_NOPARTIAL", &k.RemoteChecksumWhole)
	flag(o, 25, "IFLA_VXLAN_COLLECT_METADATA", 1, &k.External)
	flag(o, 30, "IFLA_VXLAN_VNIFILTER", 1, &k.VNIFilter)
	flagAttr(o, 23, "IFLA_VXLAN_GBP", &k.GBP)
	flagAttr(o, 27, "IFLA_VXLAN_GPE", &k.GPE)
	onoff(o, 31, "IFLA_VXLAN_LOCALBYPASS", 1, &k.LocalBypass)
	onoff(o, 34, "IFLA_VXLAN_MC_ROUTE", 1, &k.MulticastRoute)
	return k
}

// portRange is a struct of two ports in network byte order.
func portRange(o *options, typ uint16, name string, p *PortRange) {
	o.custom(typ, name, *p != PortRange{},
		func() []byte { return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.Low), p.High) },
		func(b []byte) {
			if len(b) >= 4 {
				*p = PortRange{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
			}
		}, nil)
}
