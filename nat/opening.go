package nat

import (
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Opening lets everybody reach ports of a box at the box's own address, without
// translation. It is for networks that the outside has a route to; what is
// published by [NAT.Publish] needs none. Openings compare with ==.
type Opening struct {
	Proto Proto

	// Box is where the box listens: an address in a subnet of a network, and the
	// port, or the first of a range.
	Box netip.AddrPort

	// Last is the last port of a range; 0, or Box's port again, means one port.
	Last uint16

	// Owner says whose opening this is; it is kept in the kernel as the element's
	// comment. 1 to [MaxOwner] bytes, as that of [Port].
	Owner string
}

// String returns the opening as "tcp 10.88.0.2:80" or "tcp 10.88.0.2:80-90".
func (o Opening) String() string {
	if o.last() == o.Box.Port() {
		return fmt.Sprintf("%v %v", o.Proto, o.Box)
	}
	return fmt.Sprintf("%v %v-%d", o.Proto, o.Box, o.Last)
}

// last is the last port.
func (o Opening) last() uint16 { return max(o.Last, o.Box.Port()) }

// overlaps reports whether two openings have a port in common.
func (o Opening) overlaps(other Opening) bool {
	return o.Proto == other.Proto && o.Box.Addr() == other.Box.Addr() &&
		o.Box.Port() <= other.last() && other.Box.Port() <= o.last()
}

func (o Opening) check() error {
	if err := o.Proto.check(); err != nil {
		return err
	}
	if err := checkEnd("box", o.Box, false); err != nil {
		return err
	}
	if o.Last != 0 && o.Last < o.Box.Port() {
		return refuse.Input("the last port %d is below the first, %d", o.Last, o.Box.Port())
	}
	return checkOwner(o.Owner)
}

// checkOpenings checks each opening, and that no two of them overlap. It returns
// the one at fault.
func checkOpenings(openings []Opening) (Opening, error) {
	for i, o := range openings {
		if err := o.check(); err != nil {
			return o, err
		}
		for _, other := range openings[:i] {
			if other.overlaps(o) {
				return o, refuse.Input("the same call has %v, which it overlaps", other)
			}
		}
	}
	return Opening{}, nil
}
