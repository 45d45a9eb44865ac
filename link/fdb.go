package link

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// FDBEntry is an entry of a forwarding database, which says where frames to a
// hardware address go. The ports of a bridge share one. That of a VXLAN says which
// host has an address. In that of any other link are the addresses that the link
// accepts. See bridge(8), "bridge fdb".
type FDBEntry struct {
	Link int              // index of the port or link; ignored by methods of a Link
	MAC  net.HardwareAddr // six bytes; all zero in a VXLAN: for addresses without an entry
	VLAN uint16           // 1 to 4094; 0: none, and in a new entry each VLAN of the port

	// Self says that the entry is in the link's own table (NTF_SELF), that of a
	// VXLAN or of a bridge itself. Otherwise it is in the table of the bridge
	// that the link is a port of (NTF_MASTER).
	Self bool

	// Type says whether the entry ages. A link that is neither a bridge port nor
	// a VXLAN takes FDBLocal only.
	Type FDBType

	Flags FDBFlags

	// Where a VXLAN sends frames: to the host Dst, on the UDP port Port, with
	// the VNI (VXLAN network identifier) VNI, through the link with the index
	// Via in the VXLAN's namespace. SrcVNI is the VNI that the entry is for, in
	// an external VXLAN. A zero field is the VXLAN's own value.
	Dst    netip.Addr
	Port   uint16
	VNI    uint32
	SrcVNI uint32
	Via    int

	// NextHop is the id of a next-hop group of hosts, in place of Dst
	// (NDA_NH_ID).
	NextHop uint32

	Master int // index of the bridge whose table it is in; read only

	// How long ago the address was last a destination, and last a source, in
	// steps of 10 ms. Read only.
	Used, Updated time.Duration
}

// FDBType says how an entry is kept.
type FDBType uint8

// The values of FDBType.
const (
	FDBStatic  FDBType = 0 // stays until it is deleted
	FDBDynamic FDBType = 1 // ages, as a learned entry does
	FDBLocal   FDBType = 2 // stays, and frames to it are for this host (NUD_PERMANENT)
)

// FDBFlags are the bits NTF_* of linux/neighbour.h, from bit 8 on NTF_EXT_*.
type FDBFlags uint32

// The values of FDBFlags.
const (
	FDBUse        FDBFlags = 0x01  // in a new entry: the address counts as just used
	FDBExtLearned FDBFlags = 0x10  // a program has learned it and manages it
	FDBOffloaded  FDBFlags = 0x20  // in the hardware as well; read only
	FDBSticky     FDBFlags = 0x40  // does not move to another port
	FDBRouter     FDBFlags = 0x80  // in a VXLAN: a router, see VXLAN.RouteShortCircuit
	FDBLocked     FDBFlags = 0x200 // a locked port has not let the address in, see PortOptions.MAB; Linux 6.2
)

// FDBFilter selects entries of a list. The zero value selects all. The kernel
// filters.
type FDBFilter struct {
	Link   Ref // entries of this port or link
	Bridge Ref // entries of this bridge and its ports
}

// String returns the entry as the line of bridge(8) begins: "02:00:00:00:00:01 vlan
// 7 dst 10.0.0.9".
func (e FDBEntry) String() string {
	var b strings.Builder
	b.WriteString(e.MAC.String())
	if e.VLAN != 0 {
		fmt.Fprintf(&b, " vlan %d", e.VLAN)
	}
	if e.Dst.IsValid() {
		fmt.Fprintf(&b, " dst %s", e.Dst)
	}
	return b.String()
}

// checkFDB refuses what the kernel would refuse without a reason.
func checkFDB(list []FDBEntry) error {
	for i := range list {
		e := &list[i]
		switch {
		case len(e.MAC) != 6:
			return refuse.Input("entry %d of the list has a hardware address of %d bytes, not 6", i, len(e.MAC))
		case e.VLAN > maxVLAN:
			return refuse.Input("entry %s: VLANs are 1 to %d", e, maxVLAN)
		case e.Type > FDBLocal:
			return refuse.Input("entry %s has the type %d, which does not exist", e, uint8(e.Type))
		case e.VNI >= 1<<24 || e.SrcVNI >= 1<<24:
			return refuse.Input("entry %s: a VNI has 24 bits", e)
		case e.Dst.Is4In6() || e.Dst.Zone() != "":
			return refuse.Input("entry %s: give the destination without a zone (Via names the link), IPv4 not as IPv6", e)
		case e.Dst.IsValid() && e.NextHop != 0:
			return refuse.Input("entry %s has a destination and a next hop", e)
		case !e.Self && (e.Dst.IsValid() || e.NextHop != 0 || e.Port != 0 || e.VNI != 0 || e.SrcVNI != 0 || e.Via != 0):
			return refuse.Input("entry %s has a VXLAN's destination, which only a link's own table can have: set Self", e)
		}
		if err := checkIndex("Via", e.Via); err != nil {
			return err
		}
	}
	return nil
}
