package portlock

import (
	"fmt"
	"net/netip"
)

// Range is ports of one protocol on one address of the host, or on all addresses of its
// family if it is unspecified.
type Range struct {
	Proto       uint8 // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Addr        netip.Addr
	First, Last uint16
}

// Wildcard reports whether the range is on all addresses of its family.
func (r Range) Wildcard() bool { return r.Addr.IsUnspecified() }

// Overlaps reports whether both have the same port of the same address.
func (r Range) Overlaps(o Range) bool {
	return r.Proto == o.Proto && r.Addr.Is4() == o.Addr.Is4() &&
		r.First <= o.Last && o.First <= r.Last &&
		(r.Addr == o.Addr || r.Wildcard() || o.Wildcard())
}

// Count is the number of ports.
func (r Range) Count() int { return int(r.Last) - int(r.First) + 1 }

// HostPort is what one socket is bound to.
type HostPort struct {
	Proto uint8
	Host  netip.AddrPort
}

// ports yields the single ports of a range, if each is to have a socket.
func (r Range) ports(yield func(HostPort) bool) {
	if r.Count() > MaxRange {
		return
	}
	for i := range r.Count() {
		if !yield(HostPort{r.Proto, netip.AddrPortFrom(r.Addr, r.First+uint16(i))}) {
			return
		}
	}
}

// MaxRange is the number of ports of the longest range that is bound.
const MaxRange = 256

// protoName is the name of a protocol.
func protoName(p uint8) string {
	switch p {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", p)
}
