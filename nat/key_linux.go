package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nft"
)

// setOf returns the map that a port belongs in.
func setOf(p Port) string {
	f := familyOf(p.Host.Addr())
	switch {
	case p.isRange():
		return f.rng
	case p.Host.Addr().IsUnspecified():
		return f.any
	}
	return f.pub
}

// isPortSet reports whether the set holds published ports.
func isPortSet(set string) bool {
	for _, f := range families {
		if set == f.pub || set == f.any || set == f.rng {
			return true
		}
	}
	return false
}

// portItems are the elements of the ports: one for a port or a range, and one for
// each port of a range that is shifted.
func portItems(ports []Port) []item {
	items := make([]item, 0, len(ports))
	for _, p := range ports {
		for _, one := range p.singles() {
			items = append(items, one.item())
		}
	}
	return items
}

// singles returns the ports of a range that is shifted, and p itself otherwise.
func (p Port) singles() []Port {
	p = p.normal()
	if p.HostLast == 0 || p.isRange() {
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

// item is the element of a port that is kept as one.
func (p Port) item() item {
	e := nft.Element{Comment: p.Owner}
	a := p.Host.Addr()
	if !p.isRange() {
		e.Key, e.Data = encodeKey(p.Proto, p.Host), encodeData(p.Box)
		return item{setOf(p), e}
	}
	first, last := a, a
	if a.IsUnspecified() { // an interval over all addresses
		last = lastAddr(netip.PrefixFrom(a, 0))
	}
	e.Key = appendKey(nil, first, p.Proto, p.Host.Port())
	e.KeyEnd = appendKey(nil, last, p.Proto, p.HostLast)
	e.Data = p.Box.Addr().AsSlice()
	return item{setOf(p), e}
}

// encodeKey returns the key of pub (address . protocol . port) or, for the
// unspecified address, of any (protocol . port).
func encodeKey(proto Proto, host netip.AddrPort) []byte {
	if host.Addr().IsUnspecified() {
		return appendKey(nil, netip.Addr{}, proto, host.Port())
	}
	return appendKey(nil, host.Addr(), proto, host.Port())
}

// appendKey appends a key; each part is padded to 4 bytes.
func appendKey(b []byte, a netip.Addr, proto Proto, port uint16) []byte {
	if b == nil {
		b = make([]byte, 0, 24)
	}
	b = append(b, a.AsSlice()...)
	b = append(b, byte(proto), 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// encodeData returns the data of pub and any: address . port.
func encodeData(box netip.AddrPort) []byte {
	b := append(make([]byte, 0, 20), box.Addr().AsSlice()...)
	return append(binary.BigEndian.AppendUint16(b, box.Port()), 0, 0)
}

// decodeKey is the reverse of appendKey. A key without an address has the
// unspecified one.
func decodeKey(f *family46, key []byte) (proto Proto, host netip.AddrPort, err error) {
	a := f.unspecified()
	switch n := a.BitLen()/8 + 8; len(key) {
	case 8:
	case n:
		a, _ = netip.AddrFromSlice(key[:n-8])
		key = key[n-8:]
	default:
		return 0, host, fmt.Errorf("malformed element: a key of %d bytes", len(key))
	}
	return Proto(key[0]), netip.AddrPortFrom(a, binary.BigEndian.Uint16(key[4:])), nil
}

// decodePort is the port that an element of a family's pub, any or rng stands
// for.
func decodePort(f *family46, e nft.Element) (Port, error) {
	p := Port{Owner: e.Comment}
	var err error
	if p.Proto, p.Host, err = decodeKey(f, e.Key); err != nil {
		return p, err
	}
	n := f.unspecified().BitLen() / 8
	ranged := len(e.Data) == n
	if !ranged && len(e.Data) != n+4 {
		return p, fmt.Errorf("malformed element: %d bytes of data", len(e.Data))
	}
	box, _ := netip.AddrFromSlice(e.Data[:n])
	if !ranged {
		p.Box = netip.AddrPortFrom(box, binary.BigEndian.Uint16(e.Data[n:]))
		return p, nil
	}
	p.Box = netip.AddrPortFrom(box, p.Host.Port())
	if e.KeyEnd != nil {
		_, last, err := decodeKey(f, e.KeyEnd)
		if err != nil {
			return p, err
		}
		if last.Port() > p.Host.Port() {
			p.HostLast, p.BoxLast = last.Port(), last.Port()
		}
	}
	return p, nil
}

// decodeItem is the port that an item of a port set stands for.
func decodeItem(it item) (Port, error) {
	f := families[0]
	if it.set == families[1].pub || it.set == families[1].any || it.set == families[1].rng {
		f = families[1]
	}
	p, err := decodePort(f, it.elem)
	if err != nil {
		err = fmt.Errorf("map %s: %w", it.set, err)
	}
	return p, err
}

// decodeItems are the ports that items of port sets stand for.
func decodeItems(items []item) ([]Port, error) {
	ports := make([]Port, len(items))
	for i, it := range items {
		var err error
		if ports[i], err = decodeItem(it); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

func (f *family46) unspecified() netip.Addr {
	if f.v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// Uses. The maps uses4 and uses6 count, for a protocol and port, the single
// addresses that it is published on: the elements of pub with that protocol and
// port. So one look tells whether a port is free on all addresses, however many
// ports are published.

// use is a key of uses.
type use struct {
	f   *family46
	key string // protocol . port
}

// useOf is what the items of pub count for.
func useOf(it item) (u use, ok bool) {
	for _, f := range families {
		if it.set == f.pub {
			return use{f, string(it.elem.Key[len(it.elem.Key)-8:])}, true
		}
	}
	return u, false
}

func (u use) query() nft.Query { return nft.Query{Set: u.f.uses, Key: []byte(u.key)} }

// item is the element for a count.
func (u use) item(n int) item {
	return item{u.f.uses, nft.Element{Key: []byte(u.key), Data: host32(uint32(n))}}
}

// count is the number in an element of uses; 0 for none.
func useCount(e *nft.Element) int {
	if e == nil || len(e.Data) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(e.Data))
}

// useItems are the elements of uses for what is published.
func useItems(published []item) []item {
	counts := make(map[use]int)
	for _, it := range published {
		if u, ok := useOf(it); ok {
			counts[u]++
		}
	}
	items := make([]item, 0, len(counts))
	for u, n := range counts {
		items = append(items, u.item(n))
	}
	return items
}
