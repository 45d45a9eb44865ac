package link

import (
	"fmt"
	"net"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Link is a link as the kernel reported it at one moment, with the namespace it was
// read in. Its methods act in that namespace and find the link by Index, so a rename
// does not matter. It does not change when the link does: Get and ByIndex read it
// again. It does not keep its namespace alive: once the handle is closed, its methods
// return os.ErrClosed. The zero Link belongs to no namespace, and its methods return
// os.ErrInvalid.
type Link struct {
	Index int    // number in its namespace, from 1
	Name  string // name in its namespace
	Kind  string // the kernel's name of the kind ("bridge", "veth", ...); "" for hardware and lo

	MTU    int              // bytes
	MAC    net.HardwareAddr // hardware address; nil if the kind has none
	Master int              // index of the bridge, bond or VRF that it is a port of; 0: none
	Group  uint32           // Spec.Group; 0 by default

	// Up says that the link was set up (IFF_UP). Running says that it is up and
	// has a carrier (IFF_RUNNING, IFF_LOWER_UP). OperState is the state by RFC
	// 2863.
	Up        bool
	Running   bool
	OperState OperState

	// PeerIndex is the index of the other end of a veth or netkit pair, in the
	// other end's namespace. ParentIndex is the index of the link that a VLAN,
	// macvlan or the like lies on. 0 is none. (IFLA_LINK)
	PeerIndex   int
	ParentIndex int

	// LinkNSID is this namespace's id for the namespace that PeerIndex or
	// ParentIndex belongs to. -1 is this namespace itself, or an unknown one.
	// (IFLA_LINK_NETNSID; netns.NS.OpenNSID opens it)
	LinkNSID int

	ns *netns.NS
}

// NS returns the namespace that the link was read in, or nil for the zero Link. It
// is the handle given to the call that made or read the link, and not a duplicate
// of it.
func (l Link) NS() *netns.NS { return l.ns }

// String returns the link's name and index: "web0 (7)".
func (l Link) String() string { return fmt.Sprintf("%s (%d)", l.Name, l.Index) }

// bound refuses a Link that no read gave.
func (l Link) bound() error {
	if l.ns == nil && l.Index > 0 {
		return errUnbound()
	}
	if l.ns == nil || l.Index <= 0 {
		return refuse.Input("the Link is the zero value: it comes from no namespace")
	}
	return nil
}

func errUnbound() error {
	return refuse.Input("the Link is bound to no namespace: it is of another namespace, which WatchAll knows by its id (NS.OpenNSID opens that), or a zero value with an Index")
}

// OperState is the operational state of a link, RFC 2863 (IF_OPER_* in
// linux/if.h).
type OperState uint8

// The values of OperState.
const (
	OperUnknown        OperState = 0 // the driver does not say; usual for lo
	OperNotPresent     OperState = 1 // hardware is missing
	OperDown           OperState = 2 // not up, or no carrier
	OperLowerLayerDown OperState = 3 // the link below, or the other end, is down
	OperTesting        OperState = 4 // in test mode
	OperDormant        OperState = 5 // waits for an outside event, such as 802.1X
	OperUp             OperState = 6 // passes packets
)
