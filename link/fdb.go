package link

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// FDBEntry is an entry of a forwarding database: where frames to a hardware
// address go. Bridges have one, which their ports share; a VXLAN has one that
// says behind which host an address is; other links list there the addresses
// that they take in. See bridge(8), "bridge fdb".
type FDBEntry struct {
	Link int              // index of the port or of the link itself; not looked at where the link is given otherwise
	MAC  net.HardwareAddr // six bytes; all zero in a VXLAN is the way for unknown addresses
	VLAN uint16           // 1 to 4094, one of the port's; 0 is none, and in a new entry each of the port's

	// Self says that the entry is in the link's own table, that of a VXLAN
	// or of a bridge for itself (NTF_SELF), and not in that of the bridge
	// that the link is a port of (NTF_MASTER).
	Self bool

	// Type says whether the entry ages. Of links that are neither a bridge
	// port nor a VXLAN the own table takes only FDBLocal.
	Type FDBType

	Flags FDBFlags

	// Where a VXLAN sends frames: to a host, on another UDP port than its
	// own, with another VNI (VXLAN network identifier), through the link with
	// the index Via in the VXLAN's namespace; and, for a VXLAN with external
	// set, the VNI that the entry is for. Zero fields are the VXLAN's own.
	Dst    netip.Addr
	Port   uint16
	VNI    uint32
	SrcVNI uint32
	Via    int

	// NextHop is the id of a next-hop group of hosts, in place of Dst
	// (NDA_NH_ID, Linux >= 5.8).
	NextHop uint32

	Master int // index of the bridge whose table it is in; read only

	// How long ago the address was last used as a destination and last seen
	// as a source, in steps of 10 ms. Read only.
	Used, Updated time.Duration
}

// FDBType says how an entry came to be and how long it stays.
type FDBType uint8

// The values of FDBType.
const (
	FDBStatic  FDBType = 0 // stays until it is deleted
	FDBDynamic FDBType = 1 // ages, as a learned one does
	FDBLocal   FDBType = 2 // stays, and frames to it are for this host (NUD_PERMANENT)
)

// FDBFlags are bits NTF_* and, from the ninth on, NTF_EXT_* of
// linux/neighbour.h.
type FDBFlags uint32

// The values of FDBFlags.
const (
	FDBUse        FDBFlags = 0x01  // of a new entry: as if the address had just been used
	FDBExtLearned FDBFlags = 0x10  // learned by a program, which keeps it
	FDBOffloaded  FDBFlags = 0x20  // known to the hardware; read only
	FDBSticky     FDBFlags = 0x40  // does not move to another port
	FDBRouter     FDBFlags = 0x80  // of a VXLAN: a router, for route short-circuiting
	FDBLocked     FDBFlags = 0x200 // the address waits to be let in at a locked port (PortOptions.MAB); Linux >= 6.2
)

// FDBFilter chooses entries of a list. The zero value chooses all. The kernel
// filters.
type FDBFilter struct {
	Link   Ref // those of this port, or link
	Bridge Ref // those of this bridge and of its ports
}

// String returns the entry as bridge(8) begins its line:
// "02:00:00:00:00:01 vlan 7 dst 10.0.0.9".
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

// checkFDB refuses what the kernel would refuse without saying why.
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
