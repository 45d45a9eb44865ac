package nat

import (
	"net/netip"
	"strings"
	"unicode"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Network is a network of boxes behind one interface of the host, commonly a
// bridge. With the zero value of every option, its boxes reach each other, the
// host and, with addresses of their own, the outside; from outside and from
// other networks, only published ports are reached.
type Network struct {
	// Interface is the name of the host's interface. It need not exist yet; the
	// package documentation says what has to happen once it does.
	Interface string

	// Subnets are the boxes' addresses, at least one, of either family and not
	// overlapping each other or another network's. Bits behind the prefix are
	// ignored: 10.88.0.1/16 means 10.88.0.0/16.
	Subnets []netip.Prefix

	// Masquerade gives what boxes send to the outside the host's address, that of
	// the link it leaves by, and a random port. False leaves their own, which the
	// outside then needs a route to.
	Masquerade bool

	// SNAT gives what boxes send to the outside this address, whatever link it
	// leaves by: at most one for IPv4 and one for IPv6, each of a family that has
	// a subnet. It goes before Masquerade, which is for the other family then.
	SNAT []netip.Addr

	// Internal closes the way out: boxes open no connection to the outside nor to
	// other networks, their published ports included, except those in Reaches.
	// The host itself they reach, and published ports lead in.
	Internal bool

	// Isolated keeps the network's boxes apart: they reach each other's published
	// ports only. What is forwarded between two ports of one bridge does not pass
	// the host's firewall as long as the setting
	// net.bridge.bridge-nf-call-iptables is 0 or the module br_netfilter is not
	// loaded: the bridge ports have to be isolated as well then, by whoever adds
	// them. [NAT.Networks] names those that are not.
	Isolated bool

	// Reaches are interfaces of other networks to whose boxes the boxes of this one
	// may open connections, published or not. It holds for this direction only.
	// The other network may come later; when it is removed, the way to it goes
	// with it.
	Reaches []string

	// Openings are the ports that are reached at the boxes' own addresses, without
	// translation, from everywhere: for routed networks, whose addresses the
	// outside has a route to. [NAT.AddOpening] adds more.
	Openings []Opening

	// ClampMSS limits the TCP segments of connections that pass the host from or to
	// the network to what the route's MTU takes, for paths on which the ICMP
	// messages that should say so are lost.
	ClampMSS bool
}

// NetworkState is a network that was added, with what the kernel knows about it.
type NetworkState struct {
	Network

	// Drops are the packets that the table has dropped for the network's sake
	// since it was added.
	Drops Drops

	// Unisolated are the bridge ports over which the boxes of an Isolated network
	// reach each other after all, because neither are the ports isolated nor does
	// what is bridged pass the firewall. It is empty when all is well.
	Unisolated []string
}

// Drops counts packets.
type Drops struct {
	In     uint64 // to boxes from elsewhere, neither published nor opened
	Out    uint64 // of an Internal network's boxes to elsewhere
	Inside uint64 // of an Isolated network, from box to box
}

// checked checks the network and returns it with subnets without host bits.
func (n Network) checked() (Network, error) {
	if err := checkInterface(n.Interface); err != nil {
		return n, err
	}
	subnets, err := maskedSubnets(n.Subnets)
	if err != nil {
		return n, err
	}
	n.Subnets = subnets
	for i, a := range n.SNAT {
		switch {
		case !a.IsValid():
			return n, refuse.Input("SNAT address %d is missing", i)
		case a.Is4In6():
			return n, refuse.Input("the SNAT address %v is an IPv4 address in IPv6 form: use Unmap", a)
		case a.Zone() != "":
			return n, refuse.Input("the SNAT address %v has a zone", a)
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
			return n, refuse.Input("the SNAT address %v is unspecified, multicast, loopback or link-local", a)
		case !n.has(a.Is6()):
			return n, refuse.Input("the SNAT address %v is of a family that the network has no subnet of", a)
		}
		for _, other := range n.SNAT[:i] {
			if other.Is6() == a.Is6() {
				return n, refuse.Input("the SNAT addresses %v and %v are of one family", other, a)
			}
		}
	}
	for i, name := range n.Reaches {
		if err := checkInterface(name); err != nil {
			return n, err
		}
		if name == n.Interface {
			return n, refuse.Input("the network reaches itself: %s", name)
		}
		for _, other := range n.Reaches[:i] {
			if other == name {
				return n, refuse.Input("the network reaches %s twice", name)
			}
		}
	}
	if o, err := checkOpenings(n.Openings); err != nil {
		return n, refuse.Input("the opening %v: %v", o, err)
	}
	for _, o := range n.Openings {
		if !n.contains(o.Box.Addr()) {
			return n, refuse.Input("the opening %v is outside the network's subnets", o)
		}
	}
	return n, nil
}

// checkNetworks checks networks that shall stand side by side, as checked does
// each, and returns the one at fault.
func checkNetworks(nets []Network) ([]Network, Network, error) {
	all := make([]Network, len(nets))
	for i, n := range nets {
		var err error
		if all[i], err = n.checked(); err != nil {
			return nil, n, err
		}
		for _, other := range all[:i] {
			if other.Interface == n.Interface {
				return nil, n, refuse.Input("two networks have the interface %s", n.Interface)
			}
			for _, s := range all[i].Subnets {
				for _, o := range other.Subnets {
					if o.Overlaps(s) {
						return nil, n, refuse.Input("the subnet %v overlaps %v of the network %s", s, o, other.Interface)
					}
				}
			}
		}
	}
	return all, Network{}, nil
}

// has reports whether the network has a subnet of IPv6 or else of IPv4.
func (n Network) has(v6 bool) bool {
	for _, s := range n.Subnets {
		if s.Addr().Is6() == v6 {
			return true
		}
	}
	return false
}

// contains reports whether an address is one of the network's.
func (n Network) contains(a netip.Addr) bool {
	for _, s := range n.Subnets {
		if s.Contains(a) {
			return true
		}
	}
	return false
}

// maskedSubnets checks subnets and returns them without host bits.
func maskedSubnets(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	if len(prefixes) == 0 {
		return nil, refuse.Input("the network has no subnet")
	}
	subnets := make([]netip.Prefix, len(prefixes))
	for i, s := range prefixes {
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
