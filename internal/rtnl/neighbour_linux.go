package rtnl

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Neighbour is an entry of the neighbour table.
type Neighbour struct {
	Link  int // index
	Addr  netip.Addr
	MAC   net.HardwareAddr // nil if it is not known
	State uint16           // unix.NUD_REACHABLE, ...
}

// Neighbours reads the neighbour tables of the namespace.
func Neighbours(ctx context.Context, ns nsconn.NS) ([]Neighbour, error) {
	return dump(ctx, ns, unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg), DecodeNeighbour)
}

// NeighbourOf reads the entry of an address on a link. A missing one is
// os.ErrNotExist.
func NeighbourOf(ctx context.Context, ns nsconn.NS, link int, a netip.Addr) (Neighbour, error) {
	body := make([]byte, unix.SizeofNdMsg, 64)
	body[0] = familyOf(a)
	binary.NativeEndian.PutUint32(body[4:], uint32(link)) // struct ndmsg
	return get(ctx, ns, unix.RTM_GETNEIGH, nl.AppendAttr(body, unix.NDA_DST, a.AsSlice()), DecodeNeighbour)
}

var neighbourSizes = sizes{unix.NDA_DST: 0, unix.NDA_LLADDR: 0}

// DecodeNeighbour decodes the body of a RTM_NEWNEIGH message.
func DecodeNeighbour(body []byte) (n Neighbour, err error) {
	var m rtnetlink.NeighMessage
	if err := decode(&m, body, unix.SizeofNdMsg, neighbourSizes, nil); err != nil {
		return n, err
	}
	n = Neighbour{Link: int(int32(m.Index)), State: m.State}
	if a := m.Attributes; a != nil {
		n.Addr, n.MAC = addr(a.Address), a.LLAddress
	}
	return n, nil
}
