package nat

import (
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/rtnl"
)

// ListNetworks lists the networks, sorted by interface, with the packets that they dropped. Options
// without effect are left out: Masquerade where SNAT has an address for every family of the network.
//
// Errors: os.ErrNotExist for a table that is gone.
func (n *NAT) ListNetworks(ctx context.Context) ([]NetworkState, error) {
	all, err := n.networks(ctx)
	return all, n.fail("nat.ListNetworks", n.String(), err)
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
	return all, n.readLeakyPorts(ctx, all)
}

// readNetworks reads the networks from the table.
func (n *NAT) readNetworks(ctx context.Context, c nft.Conn) ([]NetworkState, error) {
	items, err := n.readItems(ctx, c, append(setsOfKind(kindNetwork), pinholeSets...)...)
	if err != nil {
		return nil, err
	}
	return networksOf(items)
}

// networksOf returns the networks of the items, sorted. It ignores elements without a network,
// which another program added.
func networksOf(items []item) ([]NetworkState, error) {
	l := networkList{byName: map[string]*NetworkState{}}
	for _, it := range items {
		if it.set == "ifs" {
			name := nameOf(it.elem.Key)
			l.byName[name] = &NetworkState{Network: Network{Interface: name}}
		}
	}
	for _, it := range items {
		if k := kindOf(it.set); k == kindDerived || k == kindFact || k == kindPolicy || isPortSet(it.set) { // there may be many
			continue
		}
		if err := l.add(it); err != nil {
			return nil, err
		}
	}
	return l.sorted(), nil
}

// networkList collects networks from elements.
type networkList struct {
	byName   map[string]*NetworkState
	pinholes []Pinhole
}

// add decodes an element of a network.
func (l *networkList) add(it item) error {
	switch it.set {
	case "wide4", "near4", "near6", "nets4", "nets6", "within": // they follow from the others
	case "same4", "same6", "behind4", "behind6", "trusted4", "trusted6":
		return l.addPrefix(it)
	case "far4", "far6":
		s := l.byName[it.network()]
		a, ok := netip.AddrFromSlice(it.elem.Data)
		if s != nil && ok && !slices.Contains(s.VisitorSNAT, a) {
			s.VisitorSNAT = append(s.VisitorSNAT, a)
		}
	case "route4", "route6", "echo4", "echo6":
		o, err := decodePinhole(it)
		if err != nil {
			return err
		}
		l.pinholes = append(l.pinholes, o)
	case "pair":
		from, to := pairOf(it.elem.Key)
		if s := l.byName[from]; s != nil && from != to {
			s.AllowTo = append(s.AllowTo, to)
		}
	default:
		if s := l.byName[nameOf(it.elem.Key)]; s != nil {
			s.option(it)
		}
	}
	return nil
}

// addPrefix decodes a subnet, or a prefix behind a network.
func (l *networkList) addPrefix(it item) error {
	e, err := decodeAddrs(it)
	if err != nil {
		return err
	}
	s := l.byName[e.iface]
	switch {
	case s == nil:
	case strings.HasPrefix(it.set, "same"):
		if !slices.Contains(s.Subnets, e.prefix) { // trusted prefixes may have divided it
			s.Subnets = append(s.Subnets, e.prefix)
		}
	case strings.HasPrefix(it.set, "trusted"):
		s.Trusted = append(s.Trusted, e.prefix)
	default:
		s.Behind = append(s.Behind, e.prefix)
	}
	return nil
}

// sorted returns the networks by name, each with its pinholes and sorted lists.
func (l *networkList) sorted() []NetworkState {
	all := make([]NetworkState, 0, len(l.byName))
	for _, name := range slices.Sorted(maps.Keys(l.byName)) {
		s := l.byName[name]
		slices.SortFunc(s.Subnets, comparePrefix)
		slices.SortFunc(s.Behind, comparePrefix)
		slices.SortFunc(s.Trusted, comparePrefix)
		for _, o := range l.pinholes {
			if s.contains(o.Box.Addr()) {
				s.Pinholes = append(s.Pinholes, o)
			}
		}
		slices.SortFunc(s.SNAT, netip.Addr.Compare)
		slices.SortFunc(s.VisitorSNAT, netip.Addr.Compare)
		slices.Sort(s.AllowTo)
		slices.SortFunc(s.Pinholes, func(a, b Pinhole) int {
			return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Box.Compare(b.Box))
		})
		all = append(all, *s)
	}
	return all
}

// option decodes an element whose key is the interface.
func (s *NetworkState) option(it item) {
	switch it.set {
	case "closed":
		s.Drops.In = it.elem.Packets
	case "internal":
		s.Internal, s.Drops.Out = true, it.elem.Packets
	case "isolated":
		s.Isolated, s.Drops.InterBox = true, it.elem.Packets
	case "foreign":
		s.Drops.Source = it.elem.Packets
	case "translated4", "translated6":
		s.Drops.Invalid += it.elem.Packets
	case "mss":
		s.ClampMSS = true
	case "mss_size":
		if len(it.elem.Data) == 2 {
			s.MSS = binary.BigEndian.Uint16(it.elem.Data)
		}
	case setPortGroup:
		if len(it.elem.Data) == 4 {
			s.PortGroup = binary.NativeEndian.Uint32(it.elem.Data)
		}
	case setFlowtable:
		s.Flowtable = true
	case "strict":
		s.Strict = true
	case "random_ports":
		s.Random = true
	case "masq4", "masq6":
		s.Masquerade = true
	case "snat4", "snat6":
		a, _ := netip.AddrFromSlice(it.elem.Data)
		s.SNAT = append(s.SNAT, a)
	}
}

// readLeakyPorts finds the bridge ports of Isolated networks that lack both the flag "isolated" and a
// guard.
func (n *NAT) readLeakyPorts(ctx context.Context, all []NetworkState) error {
	links, err := readLinks(ctx, n.ns)
	if err != nil {
		return err
	}
	guarded, err := n.guardedPorts(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		s := &all[i]
		if !s.Isolated {
			continue
		}
		at := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == s.Interface })
		for _, l := range links {
			if at >= 0 && l.Master == links[at].Index && !l.Isolated && !guarded[l.Name] {
				s.LeakyPorts = append(s.LeakyPorts, l.Name)
			}
		}
	}
	return nil
}
