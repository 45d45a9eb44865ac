package route

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// A Query describes the packet that [Lookup] asks about. Only Dst is required.
type Query struct {
	Dst     netip.Addr // where it goes
	Src     netip.Addr // where it comes from; with In, the source that it claims
	In      int        // the index of the link it comes in by; 0 is a packet of this host
	Out     int        // the index of the link it is bound to
	Mark    uint32     // its firewall mark
	UID     *uint32    // its user; nil is that of this program
	IPProto uint8      // its protocol, TCP 6 or UDP 17 or ICMP: IPPROTO_*
	SrcPort uint16     // with IPProto
	DstPort uint16     // with IPProto
	TOS     uint8      // its type of service: the DSCP shifted left by two
}

// A Match is the answer to a [Query].
type Match struct {
	// Route is the entry that the lookup found in a table, with all its hops. For IPv4,
	// Linux 5.10 reports the packet's TOS instead of the entry's.
	Route Route

	// Type is what happens to the packet. Via is the gateway that it leaves by (none if the
	// destination is on the link), Dev the link, and Src the source address. The kernel has
	// chosen one hop of several.
	Type Type
	Via  netip.Addr
	Dev  int
	Src  netip.Addr

	// Metrics are those of the path, including what the kernel has learned, such as a path
	// MTU. nil is none.
	Metrics *Metrics
}

func (q *Query) check() error {
	switch {
	case !q.Dst.IsValid():
		return refuse.Input("no destination is given")
	case q.Dst.Is4In6():
		return refuse.Input("the destination is IPv4 written as IPv6; use %s", q.Dst.Unmap())
	case q.Dst.Zone() != "" || q.Src.Zone() != "":
		return refuse.Input("an address has a zone; give the link as Out")
	case q.Src.Is4In6():
		return refuse.Input("the source is IPv4 written as IPv6; use %s", q.Src.Unmap())
	case q.Src.IsValid() && q.Src.Is4() != q.Dst.Is4():
		return refuse.Input("the source %s is of another family than the destination %s", q.Src, q.Dst)
	case !isIndex(q.In) || !isIndex(q.Out):
		return refuse.Input("in %d or out %d is not the index of a link", q.In, q.Out)
	case (q.SrcPort != 0 || q.DstPort != 0) && q.IPProto == 0:
		return refuse.Input("ports without a protocol")
	}
	return nil
}
