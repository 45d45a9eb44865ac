package rtnl

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Route is a route, or the answer to a lookup.
type Route struct {
	Family   byte         // unix.AF_INET, ...; of another family nothing else but Table and Type is known
	Type     byte         // unix.RTN_UNICAST, RTN_LOCAL, ...
	Dst      netip.Prefix // of the default route, the prefix of length 0
	Table    uint32
	Links    []int // indexes; several of a route with several next hops
	Multi    bool  // it has several next hops
	Gateway  netip.Addr
	Source   netip.Addr // preferred source address
	Priority uint32
}

// Link is the index of the link that the route leads by, or 0. Of several it is the
// first.
func (r *Route) Link() int {
	if len(r.Links) == 0 {
		return 0
	}
	return r.Links[0]
}

// Routes reads the routes of a family in the namespace.
func Routes(ctx context.Context, ns nsconn.NS, family byte) ([]Route, error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = family
	return dump(ctx, ns, unix.RTM_GETROUTE, body, DecodeRoute)
}

// Lookup asks for the route to an address, from one of the namespace's own if src is
// valid.
func Lookup(ctx context.Context, ns nsconn.NS, dst, src netip.Addr) (Route, error) {
	body := make([]byte, unix.SizeofRtMsg, 64)
	body[0], body[1] = familyOf(dst), byte(dst.BitLen())
	body = nl.AppendAttr(body, unix.RTA_DST, dst.AsSlice())
	if src.IsValid() {
		body[2] = byte(src.BitLen())
		body = nl.AppendAttr(body, unix.RTA_SRC, src.AsSlice())
	}
	return get(ctx, ns, unix.RTM_GETROUTE, body, DecodeRoute)
}

var routeSizes = sizes{unix.RTA_DST: 0, unix.RTA_PREFSRC: 0, unix.RTA_GATEWAY: 0, unix.RTA_MULTIPATH: 0, unix.RTA_OIF: 4, unix.RTA_TABLE: 4, unix.RTA_PRIORITY: 4}

// DecodeRoute decodes the body of a RTM_NEWROUTE message.
func DecodeRoute(body []byte) (r Route, err error) {
	var m rtnetlink.RouteMessage
	known := routeSizes
	if !isIP(body) {
		known = nil
	}
	if err := decode(&m, body, unix.SizeofRtMsg, known, nil); err != nil {
		return r, err
	}
	a := &m.Attributes
	r = Route{Family: m.Family, Type: m.Type, Table: uint32(m.Table), Gateway: addr(a.Gateway), Source: addr(a.Src), Priority: a.Priority}
	if a.Table != 0 { // all 32 bits
		r.Table = a.Table
	}
	switch dst := addr(a.Dst); {
	case dst.IsValid():
		r.Dst = netip.PrefixFrom(dst, int(m.DstLength))
	case m.DstLength == 0 && m.Family == unix.AF_INET:
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case m.DstLength == 0 && m.Family == unix.AF_INET6:
		r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if a.OutIface != 0 {
		r.Links = append(r.Links, int(a.OutIface))
	}
	r.Multi = len(a.Multipath) > 0
	for _, hop := range a.Multipath {
		r.Links = append(r.Links, int(hop.Hop.IfIndex))
	}
	return r, nil
}
