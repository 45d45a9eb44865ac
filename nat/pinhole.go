package nat

import (
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Pinhole lets any host reach ports of a box at the box's own address, without translation. It is
// for networks that the outside has a route to. A port of [NAT.Publish] needs none. Pinholes
// compare with ==.
type Pinhole struct {
	Proto Proto

	// Box is the address and port that the box listens on: an address in a subnet of a network, and
	// the port or the first port of a range. For ICMP the port is 0.
	Box netip.AddrPort

	// Last is the last port of a range. 0 or Box's port mean a single port.
	Last uint16

	// Owner names whose pinhole this is. The kernel stores it as the element's comment. The limits
	// are those of [Port.Owner].
	Owner string
}

// String returns the pinhole as "tcp 10.88.0.2:80", "tcp 10.88.0.2:80-90" or
// "icmp 10.88.0.2".
func (p Pinhole) String() string {
	if p.Proto == ICMP && p.Box.Port() == 0 {
		return fmt.Sprintf("%v %v", p.Proto, p.Box.Addr())
	}
	if p.last() == p.Box.Port() {
		return fmt.Sprintf("%v %v", p.Proto, p.Box)
	}
	return fmt.Sprintf("%v %v-%d", p.Proto, p.Box, p.Last)
}

// last is the last port.
func (p Pinhole) last() uint16 { return max(p.Last, p.Box.Port()) }

// overlaps reports whether two pinholes have a port in common.
func (p Pinhole) overlaps(other Pinhole) bool {
	return p.Proto == other.Proto && p.Box.Addr() == other.Box.Addr() &&
		p.Box.Port() <= other.last() && other.Box.Port() <= p.last()
}

func (p Pinhole) check() error {
	if p.Proto == ICMP {
		if p.Box.Port() != 0 || p.Last != 0 {
			return refuse.Input("ICMP has no ports: Box has to have port 0, and Last to be 0")
		}
		if err := checkEnd("box", netip.AddrPortFrom(p.Box.Addr(), 1), false); err != nil {
			return err
		}
		return checkOwner(p.Owner)
	}
	if p.Proto.check() != nil {
		return refuse.Input("the protocol is neither TCP, UDP, SCTP nor ICMP (%d); ICMP stands for ICMPv6, too", uint8(p.Proto))
	}
	if err := checkEnd("box", p.Box, false); err != nil {
		return err
	}
	if p.Last != 0 && p.Last < p.Box.Port() {
		return refuse.Input("the last port %d is below the first, %d", p.Last, p.Box.Port())
	}
	return checkOwner(p.Owner)
}

// checkPinholes checks each pinhole, and that no two of them overlap. It returns
// the one at fault.
func checkPinholes(pinholes []Pinhole) (Pinhole, error) {
	for i, p := range pinholes {
		if err := p.check(); err != nil {
			return p, err
		}
		for _, other := range pinholes[:i] {
			if other.overlaps(p) {
				return p, refuse.Input("the same call has %v, which it overlaps", other)
			}
		}
	}
	return Pinhole{}, nil
}
