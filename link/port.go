package link

import (
	"fmt"
	"net"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// PortOptions are the settings of a bridge port. Nil fields are left alone, so
// that the zero value changes nothing; to switch one off, write new(false).
// Read from the kernel, a field is nil when the kernel does not have it, and
// BackupPort and BackupNextHop also when there is none.
//
// The meaning of each is that of the option in bridge(8), "bridge link set"
// (in parentheses: IFLA_BRPORT_* in linux/if_link.h), there in every kernel
// that the package supports unless a newer one is named.
type PortOptions struct {
	// State is the port's state for the spanning tree (STATE). It can be set
	// only where the bridge does not run the protocol itself, and to
	// another one than PortDisabled only while the port has a carrier. A
	// bridge without the protocol makes a blocking port forward at once.
	State *PortState

	Priority *int // of the port in the spanning tree, 0 to 63; the default is 32 (PRIORITY)
	Cost     *int // of the path through the port, 1 to 65535; the default follows the speed, 2 for a veth (COST)

	Hairpin   *bool // frames may go out where they came in; off (MODE)
	Guard     *bool // a BPDU that comes in disables the port; off (GUARD)
	RootBlock *bool // the port cannot become the root port; off (PROTECT)
	Learning  *bool // source addresses that come in are learned; on (LEARNING)

	// What is sent to every port is sent to this one, too; all on.
	UnicastFlood   *bool // frames to unknown addresses (UNICAST_FLOOD)
	MulticastFlood *bool // to groups that no port is known to have joined (MCAST_FLOOD)
	BroadcastFlood *bool // (BCAST_FLOOD)

	// Isolated keeps the port from exchanging frames with other isolated
	// ports; it reaches those that are not. Off (ISOLATED).
	Isolated *bool

	// Locked takes frames only from addresses that are in the forwarding
	// database for this port. Off (LOCKED; Linux >= 5.18).
	Locked *bool

	// MAB lets the addresses that Locked keeps out appear in the database
	// as locked entries, for a program to let in. It needs Locked and
	// Learning. Off (MAB; Linux >= 6.2).
	MAB *bool

	// The bridge answers ARP requests and neighbour solicitations, from what
	// it knows, instead of sending them out of the port; all off.
	ProxyARP              *bool // for the port's neighbours (PROXYARP)
	ProxyARPWiFi          *bool // as IEEE 802.11 and Hotspot 2.0 want it (PROXYARP_WIFI)
	NeighbourSuppress     *bool // for VXLAN ports (NEIGH_SUPPRESS)
	NeighbourVLANSuppress *bool // chosen for each VLAN (NEIGH_VLAN_SUPPRESS; Linux >= 6.4)

	// VLANTunnel maps the VLANs of the port to tunnel ids, see
	// Link.AddVLANs. Off (VLAN_TUNNEL).
	VLANTunnel *bool

	// GroupForwardMask lets link-local groups pass that a bridge keeps:
	// bit n is 01:80:c2:00:00:0n. Bits 0 to 2 are refused by the kernel. None
	// (GROUP_FWD_MASK).
	GroupForwardMask *uint16

	// How the port takes part in multicast snooping; for kernels that have it.
	MulticastRouter    *MulticastRouter // whether a router is behind it; MulticastRouterAuto (MULTICAST_ROUTER)
	FastLeave          *bool            // a leave message ends a membership at once; off (FAST_LEAVE)
	MulticastToUnicast *bool            // each member gets a unicast copy; off (MCAST_TO_UCAST)
	EHTHostsLimit      *int             // tracked hosts of the port, at least 1; 512 (MCAST_EHT_HOSTS_LIMIT; Linux >= 5.12)
	MaxGroups          *int             // memberships of the port, 0 is no limit; 0 (MCAST_MAX_GROUPS; Linux >= 6.3)

	// Where frames go while the port has no carrier.
	BackupPort    *int    // the index of another port of the bridge, 0 for none (BACKUP_PORT)
	BackupNextHop *uint32 // the id of a next-hop object, for VXLAN backup ports; 0 for none (BACKUP_NHID; Linux >= 6.6)
}

// Port is a bridge port: its settings and what the bridge reports about it.
type Port struct {
	PortOptions

	Number int    // of the port within its bridge, from 1 (NO)
	ID     uint16 // priority and number as the spanning tree has them (ID)

	// What the spanning tree protocol found out, IEEE 802.1D.
	DesignatedRoot   BridgeID
	DesignatedBridge BridgeID
	DesignatedPort   uint16
	DesignatedCost   int
	TopologyChange   bool // a change was acknowledged (TOPOLOGY_CHANGE_ACK)
	ConfigPending    bool // a BPDU waits to be sent

	// What is left on the timers, in steps of 10 ms; 0 for one that does not run.
	MessageAgeTimer   time.Duration
	ForwardDelayTimer time.Duration
	HoldTimer         time.Duration

	MRPRingOpen         bool // no ring, as the media redundancy protocol sees it
	MRPInterconnectOpen bool
	EHTHosts            int // tracked hosts (MCAST_EHT_HOSTS_CNT; Linux >= 5.12)
	Groups              int // memberships (MCAST_N_GROUPS; Linux >= 6.3)
}

// PortState is a bridge port's state (BR_STATE_* in linux/if_bridge.h).
type PortState uint8

// The values of PortState.
const (
	PortDisabled   PortState = 0 // nothing passes
	PortListening  PortState = 1 // only the protocol's frames are looked at
	PortLearning   PortState = 2 // addresses are learned, nothing is forwarded
	PortForwarding PortState = 3 // everything passes
	PortBlocking   PortState = 4 // kept out by the protocol
)

// MulticastRouter says whether a bridge, or one of its ports, counts as leading
// to a multicast router, which gets every group (MDB_RTR_TYPE_* in
// linux/if_bridge.h).
type MulticastRouter uint8

// The values of MulticastRouter.
const (
	MulticastRouterNever     MulticastRouter = 0
	MulticastRouterAuto      MulticastRouter = 1 // as long as queries come from there
	MulticastRouterAlways    MulticastRouter = 2
	MulticastRouterTemporary MulticastRouter = 3 // for a while, as if one had been heard; of ports only
)

// BridgeID is what the spanning tree knows a bridge by: two bytes of priority
// and its hardware address (struct ifla_bridge_id).
type BridgeID [8]byte

// Priority returns the priority.
func (id BridgeID) Priority() uint16 { return uint16(id[0])<<8 | uint16(id[1]) }

// MAC returns the hardware address.
func (id BridgeID) MAC() net.HardwareAddr { return append(net.HardwareAddr(nil), id[2:]...) }

// String returns the id as ip-link(8) prints it: "8000.02:00:00:00:00:01".
func (id BridgeID) String() string {
	return fmt.Sprintf("%x.%s", id.Priority(), net.HardwareAddr(id[2:]))
}

// check refuses what the kernel would cut off or refuse without a word.
func (o *PortOptions) check() error {
	for _, r := range []struct {
		name     string
		v        *int
		min, max int
	}{
		{"Priority", o.Priority, 0, 63},
		{"Cost", o.Cost, 1, 65535},
		{"EHTHostsLimit", o.EHTHostsLimit, 1, 1<<31 - 1},
		{"MaxGroups", o.MaxGroups, 0, 1<<31 - 1},
		{"BackupPort", o.BackupPort, 0, 1<<31 - 1},
	} {
		if r.v != nil && (*r.v < r.min || *r.v > r.max) {
			return refuse.Input("%s %d is out of range (%d to %d)", r.name, *r.v, r.min, r.max)
		}
	}
	if o.State != nil && *o.State > PortBlocking {
		return refuse.Input("State %d does not exist", *o.State)
	}
	if o.MulticastRouter != nil && *o.MulticastRouter > MulticastRouterTemporary {
		return refuse.Input("MulticastRouter %d does not exist", *o.MulticastRouter)
	}
	if o.GroupForwardMask != nil && *o.GroupForwardMask&7 != 0 {
		return refuse.Input("GroupForwardMask %#x has a bit that no bridge may forward (0 to 2)", *o.GroupForwardMask)
	}
	return nil
}
