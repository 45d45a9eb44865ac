package link

import "net"

// Details are everything that the kernel says about a link at one moment.
type Details struct {
	Link

	// Spec is what Create would make such a link from: every option that the
	// kernel reports, those of the kind included. It has no Addrs, and
	// neither has a pair its Peer, as they are not part of the answer.
	Spec Spec

	// Port is what the link is as the port of a bridge.
	Port Port

	// Data are the attributes of IFLA_INFO_DATA that Spec.Kind has no field
	// for: state such as IFLA_BR_BRIDGE_ID, and options newer than this
	// package. Slave are those of the link's role as a port of anything but
	// a bridge, SlaveKind says as whose ("bridge", "bond", "vrf"). Unknown
	// are attributes of the message itself that no other field has.
	Data, Slave, Unknown []Attr
	SlaveKind            string

	Flags uint32 // all IFF_* bits, see netdevice(7)

	// Carrier is whether the link sees the other end; the counts are how
	// often that changed.
	Carrier                                  bool
	CarrierChanges, CarrierUps, CarrierDowns uint32

	MinMTU, MaxMTU int              // limits of the MTU, 0: the driver does not say
	Broadcast      net.HardwareAddr // where broadcasts go
	PermanentMAC   net.HardwareAddr // burnt into hardware, nil where there is none; Linux 5.6
	Qdisc          string           // the queueing discipline at its root

	// ProtoDown is what a routing daemon or the like uses to keep a link
	// down; the reasons are bits of its own choice. Linux 4.4, 5.10.
	ProtoDown       bool
	ProtoDownReason uint32

	Promiscuity  uint32 // users that want every packet: packet sockets, bridges
	AllMulticast uint32 // users that want every multicast packet; Linux 6.0

	TSOMaxSize, TSOMaxSegs int    // the most that the driver takes as GSO sizes; Linux 6.0
	ParentDevice           string // the hardware it belongs to, as sysfs names it ("0000:00:03.0"); Linux 5.14
	ParentBus              string // the bus of that ("pci")
	Immovable              bool   // cannot be moved to another namespace; Linux 6.15

	XDP   XDP
	Stats Stats
}

// XDP says what program looks at packets before the network stack does
// (IFLA_XDP_* in linux/if_link.h).
type XDP struct {
	Mode XDPMode

	// IDs of the programs, 0 where there is none: the one attached, or with
	// XDPMulti those in each mode.
	Program, Driver, Generic, Offload uint32
}

// XDPMode says where an XDP program runs, XDP_ATTACHED_* in linux/if_link.h.
type XDPMode uint8

// The values of XDPMode.
const (
	XDPNone    XDPMode = 0 // there is none
	XDPDriver  XDPMode = 1 // in the driver
	XDPGeneric XDPMode = 2 // before the network stack
	XDPOffload XDPMode = 3 // on the card
	XDPMulti   XDPMode = 4 // several
)

// Stats count what passed the link, struct rtnl_link_stats64 in linux/if_link.h.
type Stats struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64 // for want of room, or by rule
	Multicast            uint64 // received
	Collisions           uint64

	// What RxErrors and TxErrors are made of.
	RxLengthErrors, RxOverErrors, RxCRCErrors, RxFrameErrors, RxFIFOErrors, RxMissedErrors uint64
	TxAbortedErrors, TxCarrierErrors, TxFIFOErrors, TxHeartbeatErrors, TxWindowErrors      uint64

	RxCompressed, TxCompressed uint64
	RxNoHandler                uint64 // no handler wanted it
	RxOtherHost                uint64 // meant for another; Linux 5.19
}
