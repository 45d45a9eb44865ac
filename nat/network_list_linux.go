package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// Networks returns the networks of the table, sorted by interface, with what they
// have dropped. An option that is of no effect is not listed: Masquerade where
// SNAT has an address for every family.
func (n *NAT) Networks(ctx context.Context) ([]NetworkState, error) {
	all, err := n.networks(ctx)
	return all, n.fail("nat.Networks", n.String(), err)
}

func (n *NAT) networks(ctx context.Context) ([]NetworkState, error) {
	c, err := n.conn()
	if err != nil {
		return nil, err
	}
	var all []NetworkState
	err = c.Steady(ctx, func(ctx context.Context) error {
		all, err = n.readNetworks(ctx, c)
		return err
	})
	if err != nil {
		return nil, n.explain(ctx, c, err)
	}
	if !slices.ContainsFunc(all, func(s NetworkState) bool { return s.Isolated }) {
		return all, nil
	}
	return all, n.readUnisolated(ctx, all)
}

// readNetworks reads the networks, without what the table does not hold.
func (n *NAT) readNetworks(ctx context.Context, c nft.Conn) ([]NetworkState, error) {
	items, err := n.readItems(ctx, c, func(set string) bool {
		return kindOf(set) == kindNetwork || set == families[0].route || set == families[1].route
	})
	if err != nil {
		return nil, err
	}
	return networksOf(items)
}

// networksOf returns the networks that items are of, sorted. What belongs to no
// network, which another program wrote, is passed over.
func networksOf(items []item) ([]NetworkState, error) {
	byName := map[string]*NetworkState{}
	for _, it := range items {
		if it.set == "ifs" {
			name := nameOf(it.elem.Key)
			byName[name] = &NetworkState{Network: Network{Interface: name}}
		}
	}
	var openings []Opening
	for _, it := range items {
		e := it.elem
		switch it.set {
		case "same4", "same6":
			subnet, name, err := decodeSame(e)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", it.set, err)
			}
			if s := byName[name]; s != nil {
				s.Subnets = append(s.Subnets, subnet)
			}
			continue
		case "route4", "route6":
			o, err := decodeOpening(e)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", it.set, err)
			}
			openings = append(openings, o)
			continue
		case "pair":
			from, to := pairOf(e.Key)
			if s := byName[from]; s != nil && from != to {
				s.Reaches = append(s.Reaches, to)
			}
			continue
		}
		if s := byName[nameOf(e.Key)]; s != nil {
			s.option(it)
		}
	}
	all := make([]NetworkState, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		s := byName[name]
		for _, o := range openings {
			if s.contains(o.Box.Addr()) {
				s.Openings = append(s.Openings, o)
			}
		}
		slices.SortFunc(s.Subnets, comparePrefix)
		slices.SortFunc(s.SNAT, netip.Addr.Compare)
		slices.Sort(s.Reaches)
		slices.SortFunc(s.Openings, func(a, b Opening) int {
			return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Box.Compare(b.Box))
		})
		all = append(all, *s)
	}
	return all, nil
}

// option takes in what an element keyed by the interface says.
func (s *NetworkState) option(it item) {
	switch it.set {
	case "closed":
		s.Drops.In = it.elem.Packets
	case "internal":
		s.Internal, s.Drops.Out = true, it.elem.Packets
	case "isolated":
		s.Isolated, s.Drops.Inside = true, it.elem.Packets
	case "mss":
		s.ClampMSS = true
	case "masq4", "masq6":
		s.Masquerade = true
	case "snat4", "snat6":
		a, _ := netip.AddrFromSlice(it.elem.Data)
		s.SNAT = append(s.SNAT, a)
	}
}

// comparePrefix orders by family, then by address.
func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// readUnisolated finds the bridge ports over which boxes of isolated networks
// reach each other.
func (n *NAT) readUnisolated(ctx context.Context, all []NetworkState) error {
	links, err := readLinks(ctx, n.ns)
	if err != nil {
		return err
	}
	var passes [2]bool // the firewall, whatever is bridged, by family
	for i, name := range []string{"iptables", "ip6tables"} {
		v, err := n.ns.Sysctl(ctx, "net/bridge/bridge-nf-call-"+name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		passes[i] = err == nil && v != "0"
	}
	for i := range all {
		s := &all[i]
		if !s.Isolated || (passes[0] || !s.has(false)) && (passes[1] || !s.has(true)) {
			continue
		}
		at := slices.IndexFunc(links, func(l linkConf) bool { return l.name == s.Interface })
		for _, l := range links {
			if at >= 0 && l.master == links[at].index && !l.isolated {
				s.Unisolated = append(s.Unisolated, l.name)
			}
		}
	}
	return nil
}
