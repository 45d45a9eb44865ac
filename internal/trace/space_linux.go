package trace

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/xtables"
	"golang.org/x/sys/unix"
)

// space is the first packets of connections that a rule is about: by family, protocol,
// destination address and port. A nil list is all.
type space struct {
	family byte // unix.NFPROTO_IPV4 or _IPV6; 0 is both
	protos []byte
	addrs  []addrRange
	ports  []xtables.Range
	local  bool // destinations that are the namespace's own addresses

	// only are rules with other conditions; odd is that one of them is about something
	// else than where a packet comes from.
	only []*nft.Rule
	odd  bool
}

// addrRange is addresses of one family, both ends included.
type addrRange struct{ first, last netip.Addr }

// setFamily reports whether something is left.
func (s *space) setFamily(f byte) bool {
	if s.family != 0 && s.family != f {
		return false
	}
	s.family = f
	return true
}

func (s *space) setProtos(protos ...byte) bool {
	if s.protos != nil {
		protos = slices.DeleteFunc(slices.Clone(protos), func(p byte) bool { return !slices.Contains(s.protos, p) })
	}
	s.protos = protos
	return len(protos) > 0
}

func (s *space) setPorts(ports []xtables.Range) bool {
	if s.ports != nil {
		var both []xtables.Range
		for _, a := range s.ports {
			for _, b := range ports {
				if r := (xtables.Range{First: max(a.First, b.First), Last: min(a.Last, b.Last)}); r.First <= r.Last {
					both = append(both, r)
				}
			}
		}
		ports = both
	}
	s.ports = ports
	return len(ports) > 0
}

func (s *space) setAddrs(addrs []addrRange) bool {
	if s.addrs != nil {
		var both []addrRange
		for _, a := range s.addrs {
			for _, b := range addrs {
				if r, ok := a.and(b); ok {
					both = append(both, r)
				}
			}
		}
		addrs = both
	}
	s.addrs = addrs
	return len(addrs) > 0
}

func (a addrRange) and(b addrRange) (r addrRange, ok bool) {
	r = a
	if b.first.Compare(r.first) > 0 {
		r.first = b.first
	}
	if b.last.Compare(r.last) < 0 {
		r.last = b.last
	}
	return r, r.first.Compare(r.last) <= 0
}

// otherPorts are all ports but these.
func otherPorts(ports []xtables.Range) (all []xtables.Range) {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b xtables.Range) int { return int(a.First) - int(b.First) })
	next := 0
	for _, r := range ports {
		if int(r.First) > next {
			all = append(all, xtables.Range{First: uint16(next), Last: r.First - 1})
		}
		next = max(next, int(r.Last)+1)
	}
	if next <= 65535 {
		all = append(all, xtables.Range{First: uint16(next), Last: 65535})
	}
	return all
}

// prefixes are the addresses as few prefixes; of all of a family it is one of zero bits.
func (s *space) prefixes(v6 bool) (all []netip.Prefix) {
	if s.addrs == nil {
		if v6 {
			return []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
		}
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	}
	for _, r := range s.addrs {
		if r.first.Is6() != v6 {
			continue
		}
		for a := r.first; a.IsValid() && a.Compare(r.last) <= 0; {
			bits := a.BitLen()
			for bits > 0 {
				p := netip.PrefixFrom(a, bits-1)
				if p.Masked().Addr() != a || lastOf(p).Compare(r.last) > 0 {
					break
				}
				bits--
			}
			p := netip.PrefixFrom(a, bits)
			all = append(all, p)
			a = lastOf(p).Next()
		}
	}
	return all
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// exclusions are what rules before have decided about.
type exclusions struct {
	one  map[uint16][]exclusion // those of a single port
	wide []exclusion

	count int
}

type exclusion struct {
	space
	perhaps bool // it holds for some of these packets only
	forward bool // it is a Forward itself
}

// size is how many decisions a look at them goes through, at most.
func (x *exclusions) size() int { return x.count }

func (x *exclusions) add(e exclusion) {
	x.count += 1 + len(e.addrs)
	if r := e.ports; len(r) == 1 && r[0].First == r[0].Last {
		if x.one == nil {
			x.one = make(map[uint16][]exclusion)
		}
		x.one[r[0].First] = append(x.one[r[0].First], e)
		return
	}
	x.wide = append(x.wide, e)
}

// left takes the ports of a space about which something was decided from it. doubt is that a part
// of what is left may have been decided about, too, by what is no Forward.
func (x *exclusions) left(s *space) (ports []xtables.Range, doubt bool) {
	ports = s.ports
	if ports == nil {
		ports = []xtables.Range{everyPort}
	}
	look := func(list []exclusion) {
		for i := range list {
			e := &list[i]
			if !e.overlaps(s) {
				continue
			}
			if !e.perhaps && e.coversButPorts(s) {
				ports = without(ports, e.ports)
				continue
			}
			doubt = doubt || e.odd && e.perhaps || !e.perhaps && !e.forward
		}
	}
	look(x.wide)
	if len(s.ports) == 1 && s.ports[0].First == s.ports[0].Last {
		look(x.one[s.ports[0].First])
		return ports, doubt
	}
	for _, port := range slices.Sorted(maps.Keys(x.one)) {
		look(x.one[port])
	}
	return ports, doubt
}

var everyPort = xtables.Range{First: 0, Last: 65535}

// without are the ports without others, of which nil is all.
func without(ports, others []xtables.Range) []xtables.Range {
	if others == nil {
		return nil
	}
	s := space{ports: ports}
	s.setPorts(otherPorts(others))
	return s.ports
}

func (s *space) overlaps(o *space) bool {
	if s.family != 0 && o.family != 0 && s.family != o.family {
		return false
	}
	if s.protos != nil && o.protos != nil && !slices.ContainsFunc(s.protos, func(p byte) bool { return slices.Contains(o.protos, p) }) {
		return false
	}
	if s.ports != nil && o.ports != nil && !slices.ContainsFunc(s.ports, func(a xtables.Range) bool {
		return slices.ContainsFunc(o.ports, func(b xtables.Range) bool { return a.First <= b.Last && b.First <= a.Last })
	}) {
		return false
	}
	return s.addrs == nil || o.addrs == nil || slices.ContainsFunc(s.addrs, func(a addrRange) bool {
		return slices.ContainsFunc(o.addrs, func(b addrRange) bool { _, ok := a.and(b); return ok })
	})
}

// coversButPorts reports whether all packets of o would be in s if both were about all ports.
func (s *space) coversButPorts(o *space) bool {
	if s.local && !o.local || s.family != 0 && s.family != o.family {
		return false
	}
	if s.protos != nil && (o.protos == nil || slices.ContainsFunc(o.protos, func(p byte) bool { return !slices.Contains(s.protos, p) })) {
		return false
	}
	return s.addrs == nil || o.addrs != nil && !slices.ContainsFunc(o.addrs, func(b addrRange) bool {
		return !slices.ContainsFunc(s.addrs, func(a addrRange) bool {
			return a.first.Compare(b.first) <= 0 && b.last.Compare(a.last) <= 0 && a.first.Is6() == b.first.Is6()
		})
	})
}

// familyOf is the family of the addresses of a rule of a table of any family: 0 is both.
func familyOf(table byte) byte {
	switch table {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6:
		return table
	}
	return 0
}
