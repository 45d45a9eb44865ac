package link

import (
	"fmt"
	"net"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Link is a link as the kernel described it at one moment, bound to the
// namespace it was read in. Its methods act on that namespace and find the
// link by Index. The zero Link belongs to no namespace: its methods return
// os.ErrInvalid.
type Link struct {
	Index int    // number in its namespace, from 1
	Name  string // IFLA_IFNAME
	Kind  string // the kernel's name of the kind ("bridge", "veth", ...); "" for hardware and lo

	MTU    int              // bytes
	MAC    net.HardwareAddr // hardware address; nil where the kind has none
	Master int              // index of the bridge (or bond, VRF, ...) it is a port of; 0: none
	Group  uint32           // Spec.Group; 0 by default

	// Up is what the administrator asked for (IFF_UP), Running what the
	// kernel sees: up and with a carrier (IFF_RUNNING, IFF_LOWER_UP).
	// OperState says it in the words of RFC 2863.
	Up        bool
	Running   bool
	OperState OperState

	// PeerIndex is the index of the other end of a veth or netkit pair, in
	// the other end's namespace; ParentIndex that of the link below a VLAN,
	// macvlan and the like. 0: there is none. (IFLA_LINK)
	PeerIndex   int
	ParentIndex int

	// LinkNSID is this namespace's number for the namespace that PeerIndex
	// or ParentIndex belongs to; -1 when it is this namespace itself, or
	// not known. (IFLA_LINK_NETNSID)
	LinkNSID int

	ns *netns.NS
}

// NS returns the namespace the link was read in, nil for the zero Link. It is
// the handle that was given to the call that made or read the link, not a
// duplicate: its owner closes it.
func (l Link) NS() *netns.NS { return l.ns }

// String returns the link's name and index, for messages.
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
