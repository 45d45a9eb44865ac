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
	byName := map[string]*NetworkState{}
	read := func(set string, each func(nft.Element) error) error {
		elems, err := c.Elements(ctx, n.table, set)
		for _, e := range elems {
			if err := each(e); err != nil {
				return fmt.Errorf("set %s: %w", set, err)
			}
		}
		return err
	}
	err := read("ifs", func(e nft.Element) error {
		byName[nameOf(e.Key)] = &NetworkState{Network: Network{Interface: nameOf(e.Key)}}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// What belongs to no network, which another program wrote, is passed over.
	of := func(set string, each func(*NetworkState, nft.Element)) error {
		return read(set, func(e nft.Element) error {
			if s := byName[nameOf(e.Key)]; s != nil {
				each(s, e)
			}
			return nil
		})
	}
	snat := func(s *NetworkState, e nft.Element) {
		a, _ := netip.AddrFromSlice(e.Data)
		s.SNAT = append(s.SNAT, a)
	}
	same := func(e nft.Element) error {
		subnet, name, err := decodeSame(e)
		if s := byName[name]; s != nil {
			s.Subnets = append(s.Subnets, subnet)
		}
		return err
	}
	masq := func(s *NetworkState, _ nft.Element) { s.Masquerade = true }
	err = cmp.Or(
		of("closed", func(s *NetworkState, e nft.Element) { s.Drops.In = e.Packets }),
		of("internal", func(s *NetworkState, e nft.Element) { s.Internal, s.Drops.Out = true, e.Packets }),
		of("isolated", func(s *NetworkState, e nft.Element) { s.Isolated, s.Drops.Inside = true, e.Packets }),
		of("mss", func(s *NetworkState, _ nft.Element) { s.ClampMSS = true }),
		of("masq4", masq), of("masq6", masq), of("snat4", snat), of("snat6", snat),
		read("same4", same), read("same6", same),
		read("pair", func(e nft.Element) error {
			from, to := pairOf(e.Key)
			if s := byName[from]; s != nil && from != to {
				s.Reaches = append(s.Reaches, to)
			}
			return nil
		}))
	for _, f := range families {
		if err == nil {
			err = read(f.route, func(e nft.Element) error {
				o, err := decodeOpening(e)
				for _, s := range byName {
					if s.contains(o.Box.Addr()) {
						s.Openings = append(s.Openings, o)
					}
				}
				return err
			})
		}
	}
	if err != nil {
		return nil, err
	}
	all := make([]NetworkState, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		s := byName[name]
		slices.SortFunc(s.Subnets, comparePrefix)
		slices.Sort(s.Reaches)
		slices.SortFunc(s.Openings, func(a, b Opening) int {
			return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Box.Compare(b.Box))
		})
		all = append(all, *s)
	}
	return all, nil
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
