package link

import "net"

// Details is everything that the kernel reports about a link at one moment.
type Details struct {
	Link

	// Spec is what Create would make such a link from: every option that the
	// kernel reports, with those of the kind. It has no Addrs, and a pair has no
	// Peer: they are not part of the kernel's answer.
	Spec Spec

	// Port is the link as a port of a bridge; zero if it is none.
	Port Port

	// Data are the attributes of IFLA_INFO_DATA for which Spec.Kind has no
	// field: state such as IFLA_BR_BRIDGE_ID, and options newer than this
	// package. Slave are those of a port of another master than a bridge, and
	// SlaveKind is the kind of the master ("bridge", "bond", "vrf"). Unknown are
	// attributes of the message itself without a field.
	Data, Slave, Unknown []Attr
	SlaveKind            string

	Flags uint32 // all IFF_* bits, see netdevice(7)

	// Carrier says whether the link has a carrier. The counts say how often that
	// changed.
	Carrier                                  bool
	CarrierChanges, CarrierUps, CarrierDowns uint32

	MinMTU, MaxMTU int              // limits of the MTU, 0: the driver does not say
	Broadcast      net.HardwareAddr // where broadcasts go
	PermanentMAC   net.HardwareAddr // of the hardware; nil if there is none
	Qdisc          string           // the queueing discipline at its root

	// ProtoDown says that a program, such as a routing daemon, keeps the link
	// down. The bits of ProtoDownReason are the program's.
	ProtoDown       bool
	ProtoDownReason uint32

	Promiscuity  uint32 // number of users that receive every packet: packet sockets, bridges
	AllMulticast uint32 // number of users that receive every multicast packet; Linux 6.0

	TSOMaxSize, TSOMaxSegs int    // the largest GSO packets that the driver accepts; Linux 6.0
	ParentDevice           string // the hardware it belongs to, as sysfs names it ("0000:00:03.0"); Linux 5.14
	ParentBus              string // the bus of that ("pci")
	Immovable              bool   // cannot be moved to another namespace; Linux 6.15

	XDP   XDP
	Stats Stats
}

// XDP says which XDP programs a link has (IFLA_XDP_* in linux/if_link.h).
type XDP struct {
	Mode XDPMode

	// Ids of the programs, 0 for none. Program is the one attached. With
	// XDPMulti the others are those of each mode.
	Program, Driver, Generic, Offload uint32
}

// XDPMode says where an XDP program runs, XDP_ATTACHED_* in linux/if_link.h.
type XDPMode uint8

// The values of XDPMode.
const (
	XDPNone    XDPMode = 0 // there is no program
	XDPDriver  XDPMode = 1 // in the driver
	XDPGeneric XDPMode = 2 // before the network stack
	XDPOffload XDPMode = 3 // on the card
	XDPMulti   XDPMode = 4 // several of these
)

// Stats counts packets, bytes and errors of a link (struct rtnl_link_stats64 in
// linux/if_link.h).
type Stats struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64 // no room, or dropped on purpose
	Multicast            uint64 // received packets
	Collisions           uint64

	// The parts of RxErrors and TxErrors.
	RxLengthErrors, RxOverErrors, RxCRCErrors, RxFrameErrors, RxFIFOErrors, RxMissedErrors uint64
	TxAbortedErrors, TxCarrierErrors, TxFIFOErrors, TxHeartbeatErrors, TxWindowErrors      uint64

	RxCompressed, TxCompressed uint64
	RxNoHandler                uint64 // no protocol handles it
	RxOtherHost                uint64 // for the hardware address of another host; Linux 5.19
}
