package link

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Neighbour is an entry of the neighbour tables, ARP's for IPv4 and neighbour
// discovery's for IPv6: the hardware address of a host on the link
// (ip-neighbour(8)).
type Neighbour struct {
	Link int              // index of the link; ignored by methods of a Link
	Addr netip.Addr       // the host's address
	MAC  net.HardwareAddr // the host's hardware address; nil while it is unknown, and in a proxy entry

	// State is one of the states. In a new entry zero is NeighbourPermanent if
	// there is a MAC; without one the kernel resolves the entry when it is used.
	State NeighbourState

	Flags NeighbourFlags

	// Protocol says what made the entry, by the numbers of routes: RTPROT_* in
	// linux/rtnetlink.h (NDA_PROTOCOL).
	Protocol uint8

	// How long ago the host last answered, and the entry was last used and last
	// changed, in steps of 10 ms. Read only, and zero in a proxy entry.
	Confirmed, Used, Updated time.Duration

	Probes int // requests sent without an answer; read only
}

// NeighbourState says what the kernel knows of a neighbour (NUD_* in
// linux/neighbour.h, RFC 4861 section 7.3.2). The values are bits, so that a filter
// may name several.
type NeighbourState uint16

// The values of NeighbourState.
const (
	NeighbourIncomplete NeighbourState = 0x01 // being resolved
	NeighbourReachable  NeighbourState = 0x02 // heard from lately
	NeighbourStale      NeighbourState = 0x04 // not heard from lately; checked when used
	NeighbourDelay      NeighbourState = 0x08 // used while stale, to be checked soon
	NeighbourProbe      NeighbourState = 0x10 // being checked
	NeighbourFailed     NeighbourState = 0x20 // does not answer
	NeighbourNoARP      NeighbourState = 0x40 // needs no resolution: a multicast address, say
	NeighbourPermanent  NeighbourState = 0x80 // set by the administrator, never checked
)

// NeighbourFlags are the bits NTF_* of linux/neighbour.h, from bit 8 on NTF_EXT_*.
type NeighbourFlags uint32

// The values of NeighbourFlags.
const (
	NeighbourUse         NeighbourFlags = 0x01  // in a new entry: the kernel resolves it at once
	NeighbourProxy       NeighbourFlags = 0x08  // the link answers for this address
	NeighbourExtLearned  NeighbourFlags = 0x10  // a program has learned it and manages it
	NeighbourOffloaded   NeighbourFlags = 0x20  // in the hardware as well; read only
	NeighbourRouter      NeighbourFlags = 0x80  // an IPv6 router
	NeighbourManaged     NeighbourFlags = 0x100 // the kernel keeps it resolved; Linux 5.16
	NeighbourExtValidate NeighbourFlags = 0x400 // a program has learned it, the kernel checks it; Linux 6.18
)

// NeighbourFilter selects neighbours of a list. The zero value selects all but
// proxy entries. The kernel filters by Link, Master, Proxy and Family.
type NeighbourFilter struct {
	Link   Ref            // entries of this link
	Master Ref            // entries of the ports of this bridge, bond or VRF
	Proxy  bool           // proxy entries only
	States NeighbourState // entries in one of these states; 0: any
	Family netns.Family   // entries of this family; 0: both
}

// String returns the neighbour as the line of ip-neighbour(8) begins: "10.0.0.5
// lladdr 02:00:00:00:00:01".
func (n Neighbour) String() string {
	switch {
	case n.Flags&NeighbourProxy != 0:
		return fmt.Sprintf("%s proxy", n.Addr)
	case n.MAC != nil:
		return fmt.Sprintf("%s lladdr %s", n.Addr, n.MAC)
	}
	return n.Addr.String()
}

// checkNeighbours refuses what the kernel would refuse without a reason.
func checkNeighbours(list []Neighbour) error {
	for i := range list {
		n := &list[i]
		proxy := n.Flags&NeighbourProxy != 0
		switch {
		case !n.Addr.IsValid():
			return refuse.Input("neighbour %d of the list has no address", i)
		case n.Addr.Is4In6() || n.Addr.Zone() != "":
			return refuse.Input("neighbour %s: give the address without a zone, IPv4 not as IPv6", n)
		case n.Addr.IsUnspecified():
			return refuse.Input("neighbour %s is the unspecified address", n)
		case len(n.MAC) > 32:
			return refuse.Input("neighbour %s has a hardware address of %d bytes; at most 32 are possible", n, len(n.MAC))
		case proxy && (n.MAC != nil || n.State != 0):
			return refuse.Input("neighbour %s is a proxy entry: it has neither a hardware address nor a state", n)
		case n.State&(n.State-1) != 0 || n.State > NeighbourPermanent:
			return refuse.Input("neighbour %s has the state %#x, which is not one state", n, uint16(n.State))
		case n.MAC == nil && n.State&(NeighbourPermanent|NeighbourReachable|NeighbourStale|NeighbourDelay|NeighbourProbe|NeighbourNoARP) != 0:
			return refuse.Input("neighbour %s is in a state that needs a hardware address", n)
		}
	}
	return nil
}

// checkSyncNeighbours refuses what SyncNeighbours cannot keep.
func checkSyncNeighbours(owner uint8, list []Neighbour) error {
	if owner <= 3 {
		return refuse.Input("the protocol %d cannot be an owner: linux/rtnetlink.h reserves 0 to 3", owner)
	}
	if err := checkNeighbours(list); err != nil {
		return err
	}
	seen := make(map[neighPlace]bool, len(list))
	for i := range list {
		n := &list[i]
		switch {
		case n.Protocol != 0 && n.Protocol != owner:
			return refuse.Input("neighbour %s: its protocol is %d, not the owner's %d", n, n.Protocol, owner)
		case n.State&^(NeighbourReachable|NeighbourStale|NeighbourNoARP|NeighbourPermanent) != 0:
			return refuse.Input("neighbour %s is in the state %#x, which the kernel alone begins and ends", n, uint16(n.State))
		case n.Flags&NeighbourUse != 0:
			return refuse.Input("neighbour %s has the flag NeighbourUse, which an entry does not keep", n)
		case seen[n.place()]:
			return refuse.Input("neighbour %s appears twice", n)
		}
		seen[n.place()] = true
	}
	return nil
}

// neighPlace identifies a neighbour of a link.
type neighPlace struct {
	addr  netip.Addr
	proxy bool
}

func (n *Neighbour) place() neighPlace { return neighPlace{n.Addr, n.Flags&NeighbourProxy != 0} }

// lasting are the flags that an entry keeps as long as it is there.
const lasting = NeighbourProxy | NeighbourExtLearned | NeighbourManaged | NeighbourExtValidate

// strangeTo reports whether another program than the owner has made the entry.
func (n *Neighbour) strangeTo(owner uint8) bool {
	if n.Protocol != 0 {
		return n.Protocol != owner
	}
	return n.State == NeighbourPermanent || n.Flags&lasting != 0
}

// satisfies reports whether an entry is the wanted one. What the kernel finds out by
// itself is not compared: other states, a hardware address that is not given, and
// which host is a router.
func (n *Neighbour) satisfies(want *Neighbour) bool {
	const fixed = NeighbourPermanent | NeighbourNoARP
	flags := lasting
	if want.State&fixed != 0 {
		flags |= NeighbourRouter
	}
	switch {
	case n.Flags&flags != want.Flags&flags:
		return false
	case want.Flags&NeighbourProxy != 0:
		return true
	}
	return n.State&fixed == want.State&fixed && (want.MAC == nil || bytes.Equal(n.MAC, want.MAC))
}

// checkIndex refuses an index that no link has.
func checkIndex(what string, index int) error {
	if index < 0 || index > 1<<31-1 {
		return refuse.Input("%s %d is not the index of a link", what, index)
	}
	return nil
}
