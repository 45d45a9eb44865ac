package nat

import (
	"net/netip"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Network is a network of boxes behind one interface of the host, commonly a
// bridge.
type Network struct {
	// Interface is the name of the host's interface; it must exist.
	Interface string

	// Subnets are the boxes' addresses, at least one, of either family and not
	// overlapping. Bits behind the prefix are ignored: 10.88.0.1/16 means
	// 10.88.0.0/16.
	Subnets []netip.Prefix

	// Masquerade gives what boxes send to the outside the host's address. False
	// leaves their own, which the outside then needs a route to.
	Masquerade bool
}

// masked checks the network and returns its subnets without host bits.
func (n Network) masked() ([]netip.Prefix, error) {
	if err := checkInterface(n.Interface); err != nil {
		return nil, err
	}
	if len(n.Subnets) == 0 {
		return nil, refuse.Input("the network has no subnet")
	}
	subnets := make([]netip.Prefix, len(n.Subnets))
	for i, s := range n.Subnets {
		switch a := s.Addr(); {
		case !s.IsValid():
			return nil, refuse.Input("subnet %d is not a valid prefix", i)
		case a.Is4In6():
			return nil, refuse.Input("the subnet %v is IPv4 in IPv6 form", s)
		case s.Bits() == 0:
			return nil, refuse.Input("the subnet %v holds every address", s)
		case a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
			return nil, refuse.Input("the subnet %v is multicast, loopback or link-local", s)
		}
		subnets[i] = s.Masked()
		for _, other := range subnets[:i] {
			if other.Overlaps(s) {
				return nil, refuse.Input("the subnets %v and %v overlap", other, s)
			}
		}
	}
	return subnets, nil
}

// checkInterface refuses what is no interface name (dev_valid_name in the
// kernel), and names that mean something else here.
func checkInterface(name string) error {
	switch {
	case name == "":
		return refuse.Input("the interface name is empty")
	case len(name) > 15:
		return refuse.Input("the interface name %q has %d bytes, 15 is the most", name, len(name))
	case name == "." || name == "..":
		return refuse.Input("the interface name %q is a folder's", name)
	case name == "lo":
		return refuse.Input("lo is no interface that boxes are behind")
	case strings.ContainsAny(name, "/:"):
		return refuse.Input("the interface name %q contains '/' or ':'", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return refuse.Input("the interface name %q contains whitespace or a control character", name)
	}
	return nil
}

// lastAddr is the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
