package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
)

// A claim is what a published port takes of the host: ports of one protocol, on
// one address or, if that is unspecified, on all of its family.
type claim struct {
	proto  Proto
	addr   netip.Addr
	lo, hi uint16
}

func (p Port) claim() claim {
	return claim{p.Proto, p.Host.Addr(), p.Host.Port(), p.last()}
}

func (c claim) wild() bool { return c.addr.IsUnspecified() }

// meets reports whether both claim the same port of the same address.
func (c claim) meets(o claim) bool {
	return c.proto == o.proto && c.addr.Is4() == o.addr.Is4() &&
		c.lo <= o.hi && o.lo <= c.hi &&
		(c.addr == o.addr || c.wild() || o.wild())
}

// overlap returns the indexes of two ports that claim the same, the later one
// second. It sorts, so that thousands of ports are no problem.
func overlap(ports []Port) (i, j int, found bool) {
	if len(ports) < 2 {
		return 0, 0, false
	}
	order := make([]int, len(ports))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := ports[i].claim(), ports[j].claim()
		return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.addr.BitLen(), b.addr.BitLen()), cmp.Compare(a.lo, b.lo), cmp.Compare(i, j))
	})
	// Of what began so far, by protocol and family, the claim that reaches
	// furthest: on each address, on all (key: unspecified), and altogether.
	var far map[netip.Addr]int
	furthest := -1
	for n, at := range order {
		c := ports[at].claim()
		if n > 0 {
			if before := ports[order[n-1]].claim(); before.proto != c.proto || before.addr.BitLen() != c.addr.BitLen() {
				far = nil
			}
		}
		if far == nil {
			far, furthest = make(map[netip.Addr]int), at
		} else {
			rivals := [3]int{furthest, -1, -1}
			if !c.wild() {
				rivals[0] = -1
				if other, ok := far[c.addr]; ok {
					rivals[1] = other
				}
				if other, ok := far[unspecified(c.addr)]; ok {
					rivals[2] = other
				}
			}
			for _, other := range rivals {
				if other >= 0 && ports[other].claim().meets(c) {
					return min(at, other), max(at, other), true
				}
			}
			if c.hi > ports[furthest].last() {
				furthest = at
			}
		}
		if other, ok := far[c.addr]; !ok || c.hi > ports[other].last() {
			far[c.addr] = at
		}
	}
	return 0, 0, false
}

// unspecified stands for all addresses of a's family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// checkPorts checks each port of a call, and that no two of them overlap. It
// returns the port that is at fault.
func checkPorts(ports []Port) (Port, error) {
	for _, p := range ports {
		if err := p.check(); err != nil {
			return p, err
		}
	}
	if i, j, found := overlap(ports); found {
		return ports[j], refuse.Input("the same call has %v, which takes the same host port", ports[i])
	}
	return Port{}, nil
}
