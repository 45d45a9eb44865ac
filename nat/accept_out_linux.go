package nat

import (
	"context"
	"fmt"
	"slices"

	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// waysOut returns the names of the links that lead out of the host, for packets of a family
// (unix.NFPROTO_IPV4, ...): those with a default route, and those with a subnet that are no
// bridges. The bridges of other programs have a subnet, and those programs decide who reaches their
// ports. Links in ifs belong to this table and are left out.
func (n *NAT) waysOut(ctx context.Context, family byte, ifs []string) (names []string, err error) {
	links, err := readLinks(ctx, n.ns)
	if err != nil {
		return nil, err
	}
	defaults, subnets, err := n.reached(ctx, family)
	if err != nil {
		return nil, fmt.Errorf("reading the routes: %w", err)
	}
	for _, l := range links {
		if !l.IsPort() && !slices.Contains(ifs, l.Name) && (defaults[l.Index] || subnets[l.Index] && l.Kind != "bridge") {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// reached returns the indexes of links with a default route, and of links with the route of a
// subnet. Routes to a single neighbour, which point-to-point links to boxes have, do not count, and
// neither do link-local ones, which every link has.
func (n *NAT) reached(ctx context.Context, family byte) (defaults, subnets map[int]bool, err error) {
	of := byte(unix.AF_INET)
	if family == unix.NFPROTO_IPV6 {
		of = unix.AF_INET6
	}
	routes, err := rtnl.Routes(ctx, n.ns, of)
	defaults, subnets = make(map[int]bool), make(map[int]bool)
	for _, r := range routes {
		if r.Family != of || r.Type != unix.RTN_UNICAST {
			continue
		}
		for _, link := range r.Links {
			switch bits := r.Dst.Bits(); {
			case bits == 0:
				defaults[link] = true
			case r.Dst.IsValid() && bits < r.Dst.Addr().BitLen() && !r.Dst.Addr().IsLinkLocalUnicast():
				subnets[link] = true
			}
		}
	}
	return defaults, subnets, err
}
