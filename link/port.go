package link

import (
	"fmt"
	"net"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// PortOptions has the settings of a bridge port. A nil field keeps the port's
// value, so the zero value changes nothing; new(false) switches a setting off. In
// what [Link.Port] reads, a field is nil if the kernel lacks it, and BackupPort and
// BackupNextHop also if there is none.
//
// The meaning is that of the option in bridge(8), "bridge link set". A comment on a
// field gives the default last, and IFLA_BRPORT_* of linux/if_link.h in
// parentheses.
type PortOptions struct {
	// State is the port's state in the spanning tree (STATE). It can be set only
	// if the bridge does not run the protocol itself, and to other values than
	// PortDisabled only while the port has a carrier. A bridge without the
	// protocol makes a blocking port forward at once.
	State *PortState

	Priority *int // in the spanning tree, 0 to 63; 32 (PRIORITY)
	Cost     *int // of the path through the port, 1 to 65535; follows the speed, 2 for a veth (COST)

	Hairpin   *bool // sends frames out of the port that they came in by; off (MODE)
	Guard     *bool // a BPDU that comes in disables the port; off (GUARD)
	RootBlock *bool // the port cannot become the root port; off (PROTECT)
	Learning  *bool // learns source addresses that come in; on (LEARNING)

	// Which frames the bridge floods to the port; all on.
	UnicastFlood   *bool // to unknown addresses (UNICAST_FLOOD)
	MulticastFlood *bool // to groups without a known member (MCAST_FLOOD)
	BroadcastFlood *bool // to the broadcast address (BCAST_FLOOD)

	// Isolated drops frames between this port and other isolated ports. Other
	// ports reach it. Off (ISOLATED).
	Isolated *bool

	// Locked accepts frames only from addresses that the forwarding database has
	// for this port. Off; Linux 5.18 (LOCKED).
	Locked *bool

	// MAB puts the addresses that Locked rejects into the database as locked
	// entries, which a program may unlock (FDBLocked). It needs Locked and
	// Learning. Off; Linux 6.2 (MAB).
	MAB *bool

	// The bridge answers ARP requests and neighbour solicitations from its own
	// tables and does not send them out of the port; all off.
	ProxyARP              *bool // answers for the port (PROXYARP)
	ProxyARPWiFi          *bool // answers as IEEE 802.11 and Hotspot 2.0 require (PROXYARP_WIFI)
	NeighbourSuppress     *bool // for VXLAN ports (NEIGH_SUPPRESS)
	NeighbourVLANSuppress *bool // set for each VLAN; Linux 6.4 (NEIGH_VLAN_SUPPRESS)

	// VLANTunnel maps the VLANs of the port to tunnel ids, see PortVLAN.Tunnel.
	// Off (VLAN_TUNNEL).
	VLANTunnel *bool

	// GroupForwardMask forwards link-local groups that a bridge drops: bit n is
	// 01:80:c2:00:00:0n. The kernel refuses bits 0 to 2. 0 (GROUP_FWD_MASK).
	GroupForwardMask *uint16

	// Multicast snooping, on kernels that have it.
	MulticastRouter    *MulticastRouter // whether a router is behind it; MulticastRouterAuto (MULTICAST_ROUTER)
	FastLeave          *bool            // ends a membership at once on a leave message; off (FAST_LEAVE)
	MulticastToUnicast *bool            // sends each member a unicast copy; off (MCAST_TO_UCAST)
	EHTHostsLimit      *int             // tracked hosts of the port at most, 1 or more; 512; Linux 5.12 (MCAST_EHT_HOSTS_LIMIT)
	MaxGroups          *int             // memberships of the port at most, 0: no limit; 0; Linux 6.3 (MCAST_MAX_GROUPS)

	// Where the bridge sends frames while the port has no carrier.
	BackupPort    *int    // index of another port of the bridge, 0: none; 0 (BACKUP_PORT)
	BackupNextHop *uint32 // id of a next-hop object, for VXLAN backup ports, 0: none; 0; Linux 6.6 (BACKUP_NHID)
}

// Port is a bridge port: its settings and what the bridge reports about it
// (IFLA_BRPORT_* in linux/if_link.h).
type Port struct {
	PortOptions

	Number int    // of the port in its bridge, from 1 (NO)
	ID     uint16 // priority and number in the spanning tree (ID)

	// Results of the spanning tree protocol, IEEE 802.1D.
	DesignatedRoot   BridgeID
	DesignatedBridge BridgeID
	DesignatedPort   uint16
	DesignatedCost   int
	TopologyChange   bool // a topology change was acknowledged (TOPOLOGY_CHANGE_ACK)
	ConfigPending    bool // a BPDU waits to be sent

	// The rest of each timer, in steps of 10 ms; 0 if it does not run.
	MessageAgeTimer   time.Duration
	ForwardDelayTimer time.Duration
	HoldTimer         time.Duration

	MRPRingOpen         bool // the ring of the media redundancy protocol is open
	MRPInterconnectOpen bool // so is its interconnection
	EHTHosts            int  // tracked hosts; Linux 5.12 (MCAST_EHT_HOSTS_CNT)
	Groups              int  // memberships; Linux 6.3 (MCAST_N_GROUPS)
}

// PortState is a bridge port's state (BR_STATE_* in linux/if_bridge.h).
type PortState uint8

// The values of PortState.
const (
	PortDisabled   PortState = 0 // no frame passes
	PortListening  PortState = 1 // the port receives the protocol's frames alone
	PortLearning   PortState = 2 // the port learns addresses and forwards no frame
	PortForwarding PortState = 3 // frames pass
	PortBlocking   PortState = 4 // the protocol keeps the port out of the tree
)

// MulticastRouter says whether a bridge port, or the host itself, counts as a
// multicast router, to which the bridge sends every group (MDB_RTR_TYPE_* in
// linux/if_bridge.h).
type MulticastRouter uint8

// The values of MulticastRouter.
const (
	MulticastRouterNever     MulticastRouter = 0 // it is none
	MulticastRouterAuto      MulticastRouter = 1 // it is one while queries come from there; the default
	MulticastRouterAlways    MulticastRouter = 2 // it is one
	MulticastRouterTemporary MulticastRouter = 3 // it is one for a while, as after a query; ports only
)

// BridgeID identifies a bridge in the spanning tree: two bytes of priority and its
// hardware address (struct ifla_bridge_id).
type BridgeID [8]byte

// Priority returns the priority.
func (id BridgeID) Priority() uint16 { return uint16(id[0])<<8 | uint16(id[1]) }

// MAC returns the hardware address.
func (id BridgeID) MAC() net.HardwareAddr { return append(net.HardwareAddr(nil), id[2:]...) }

// String returns the id as ip-link(8) prints it: "8000.02:00:00:00:00:01".
func (id BridgeID) String() string {
	return fmt.Sprintf("%x.%s", id.Priority(), net.HardwareAddr(id[2:]))
}

// check refuses what the kernel would truncate, or refuse without a reason.
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
