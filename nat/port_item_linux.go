package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// setOf returns the map that a port belongs in.
func setOf(p *Port) string {
	f := familyOf(p.Host.Addr())
	switch {
	case p.isRange():
		return f.rng
	case p.Host.Addr().IsUnspecified():
		return f.any
	}
	return f.pub
}

// publishedSets are the maps of published ports, and rangeSets those of ranges.
var (
	publishedSets = []string{
		families[0].pub, families[0].any, families[0].rng,
		families[1].pub, families[1].any, families[1].rng,
	}
	rangeSets = []string{families[0].rng, families[1].rng}
)

// isPortSet reports whether the set holds published ports.
func isPortSet(set string) bool { return slices.Contains(publishedSets, set) }

// portItems returns the elements of ports: one for a port or a range, and one for each port of a
// shifted range.
func portItems(ports []Port) []item {
	items := make([]item, 0, len(ports))
	room := make([]byte, 0, 40*len(ports)) // for their keys and data, in one piece
	for _, p := range expand(ports) {
		items = append(items, p.itemIn(&room))
	}
	return items
}

// addPorts adds all elements of the ports.
func addPorts(b *nft.Batch, ports []Port) {
	ports = expand(ports)
	var sets []string
	for i := range ports {
		if set := setOf(&ports[i]); !slices.Contains(sets, set) {
			sets = append(sets, set)
		}
	}
	sortSets(sets)
	for _, set := range sets {
		b.AddEach(set, func(yield func(*nft.Element) bool) {
			var it item // one for all
			room := make([]byte, 0, 64)
			for i := range ports {
				if setOf(&ports[i]) != set {
					continue
				}
				room = room[:0]
				if it = ports[i].itemIn(&room); !yield(&it.elem) {
					return
				}
			}
		})
	}
	addItems(b, ownItems(ports))
}

// expand returns the ports with each shifted range as single ports.
func expand(ports []Port) []Port {
	if !slices.ContainsFunc(ports, Port.isShifted) {
		return ports
	}
	var all []Port
	for _, p := range ports {
		all = append(all, p.singles()...)
	}
	return all
}

// isShifted reports whether the port is a range with other numbers in the box.
func (p Port) isShifted() bool { return p.count() > 1 && !p.isRange() }

// singles returns the ports of a shifted range, or p itself, in the form that ports are listed in.
func (p Port) singles() []Port {
	p = p.normal()
	if !p.isShifted() {
		return []Port{p}
	}
	all := make([]Port, p.count())
	for i := range all {
		all[i] = p
		all[i].HostLast, all[i].BoxLast = 0, 0
		all[i].Host = netip.AddrPortFrom(p.Host.Addr(), p.Host.Port()+uint16(i))
		all[i].Box = netip.AddrPortFrom(p.Box.Addr(), p.Box.Port()+uint16(i))
	}
	return all
}

// itemIn returns the element of a port that is not a shifted range, with the key and the data
// appended to room.
func (p *Port) itemIn(room *[]byte) item {
	e := nft.Element{Comment: p.Owner}
	host, box := p.Host.Addr(), p.Box.Addr()
	at := len(*room)
	if !p.isRange() {
		addr := host
		if host.IsUnspecified() {
			addr = netip.Addr{} // any has no address in its key
		}
		*room = appendKey(*room, addr, p.Proto, p.Host.Port())
		e.Key, at = tail(*room, at), len(*room)
		*room = binary.BigEndian.AppendUint16(appendAddr(*room, box), p.Box.Port())
		*room = append(*room, 0, 0)
		e.Data = tail(*room, at)
		return item{setOf(p), e}
	}
	last := host
	if host.IsUnspecified() { // an interval over all addresses
		last = lastAddr(netip.PrefixFrom(host, 0))
	}
	*room = appendKey(*room, host, p.Proto, p.Host.Port())
	e.Key, at = tail(*room, at), len(*room)
	*room = appendKey(*room, last, p.Proto, p.HostLast)
	e.KeyEnd = tail(*room, at)
	e.Data = box.AsSlice()
	return item{setOf(p), e}
}

// tail returns the end of b, which an append to it leaves alone.
func tail(b []byte, from int) []byte { return b[from:len(b):len(b)] }

// The sets own and owns, and spans, decide about source ports of packets from boxes (see the chain
// box_out): own and owns hold the boxes that may send from their published port, spans holds the
// port numbers of ranges. Single ports are looked up in pub and any.

// ownItem returns the element that lets a box send from its published port. ok is false if there is
// none: for TCP, because a box does not connect from a port that it listens on; for a port with
// another number in the box; and for a port on a single address, because the source address outside
// is not known yet.
func (p *Port) ownItem() (it item, ok bool) {
	if p.Proto == TCP || !p.Host.Addr().IsUnspecified() || p.Host.Port() != p.Box.Port() {
		return it, false
	}
	f := familyOf(p.Box.Addr())
	e := nft.Element{Key: appendKey(nil, p.Box.Addr(), p.Proto, p.Host.Port())}
	if !p.isRange() {
		return item{f.own, e}, true
	}
	e.KeyEnd = appendKey(nil, p.Box.Addr(), p.Proto, p.last())
	return item{f.owns, e}, true
}

// ownItems returns the elements of own and owns for the ports.
func ownItems(ports []Port) (items []item) {
	for _, p := range expand(ports) {
		if it, ok := p.ownItem(); ok {
			items = append(items, it)
		}
	}
	return items
}

// appendKey appends a key: address . protocol . port, each part padded to 4 bytes,
// without the address if that is the zero Addr.
func appendKey(b []byte, a netip.Addr, proto Proto, port uint16) []byte {
	if b == nil {
		b = make([]byte, 0, 24)
	}
	b = append(appendAddr(b, a), byte(proto), 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// appendAddr appends the bytes of an address.
func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		raw := a.As4()
		return append(b, raw[:]...)
	case a.Is6():
		raw := a.As16()
		return append(b, raw[:]...)
	}
	return b
}

// decodeKey decodes a key that appendKey made. Without an address in the key, it returns the
// wildcard address of the family.
func decodeKey(f *family46, key []byte, hasAddr bool) (proto Proto, host netip.AddrPort, err error) {
	a, n := f.unspecified(), 0
	if hasAddr {
		n = a.BitLen() / 8
	}
	if len(key) != n+8 {
		return 0, host, fmt.Errorf("malformed element: a key of %d bytes", len(key))
	}
	if hasAddr {
		a, _ = netip.AddrFromSlice(key[:n])
	}
	return Proto(key[n]), netip.AddrPortFrom(a, binary.BigEndian.Uint16(key[n+4:])), nil
}

// decodeItem returns the port of an item of a port set.
func decodeItem(it item) (Port, error) {
	p, err := decodePort(familyOfSet(it.set), it)
	if err != nil {
		err = fmt.Errorf("map %s: %w", it.set, err)
	}
	return p, err
}

func decodePort(f *family46, it item) (Port, error) {
	e := it.elem
	p := Port{Owner: e.Comment}
	var err error
	if p.Proto, p.Host, err = decodeKey(f, e.Key, it.set != f.any); err != nil {
		return p, err
	}
	n := f.unspecified().BitLen() / 8
	size := n + 4
	if it.set == f.rng {
		size = n
	}
	if len(e.Data) != size {
		return p, fmt.Errorf("malformed element: %d bytes of data", len(e.Data))
	}
	box, _ := netip.AddrFromSlice(e.Data[:n])
	if it.set != f.rng {
		p.Box = netip.AddrPortFrom(box, binary.BigEndian.Uint16(e.Data[n:]))
		return p, nil
	}
	p.Box = netip.AddrPortFrom(box, p.Host.Port())
	if e.KeyEnd != nil {
		_, last, err := decodeKey(f, e.KeyEnd, true)
		if err != nil {
			return p, err
		}
		if last.Port() > p.Host.Port() {
			p.HostLast, p.BoxLast = last.Port(), last.Port()
		}
	}
	return p, nil
}

// decodeItems returns the ports of items of port sets.
func decodeItems(items []item) ([]Port, error) {
	ports := make([]Port, 0, len(items))
	for _, it := range items {
		if !isPortSet(it.set) {
			continue
		}
		p, err := decodeItem(it)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func (f *family46) unspecified() netip.Addr {
	if f.v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
