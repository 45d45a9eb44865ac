package nat

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

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
	room := make([]byte, 0, 40*len(ports)) // for their keys and data, in one piece
	for p := range eachSingle(ports) {
		items = append(items, p.itemIn(&room))
	}
	return items
}

// elements is how many elements the ports are.
func elements(ports []Port) int {
	n := 0
	for _, p := range ports {
		if p.isRange() {
			n++
		} else {
			n += p.count()
		}
	}
	return n
}

// addPorts adds the elements of the ports.
func addPorts(b *nft.Batch, ports []Port) {
	for _, set := range setsOf(ports, setOf) {
		b.AddEach(set, func(yield func(*nft.Element) bool) {
			var it item // one for all
			room := make([]byte, 0, 64)
			for i := range ports {
				if setOf(&ports[i]) != set {
					continue
				}
				for p := range eachSingle(ports[i : i+1]) {
					room = room[:0]
					if it = p.itemIn(&room); !yield(&it.elem) {
						return
					}
				}
			}
		})
	}
}

// eachSingle yields the ports as they are given, and of a range that is shifted each
// port.
func eachSingle(ports []Port) iter.Seq[*Port] {
	return func(yield func(*Port) bool) {
		for i := range ports {
			all := ports[i : i+1]
			if p := &ports[i]; p.last() != p.Host.Port() && !p.isRange() {
				all = p.singles()
			}
			for i := range all {
				if !yield(&all[i]) {
					return
				}
			}
		}
	}
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
func (p Port) item() item { return p.itemIn(new([]byte)) }

// itemIn is item with the key and the data appended to room.
func (p *Port) itemIn(room *[]byte) item {
	e := nft.Element{Comment: p.Owner}
	host, box := p.Host.Addr(), p.Box.Addr()
	keep := func(from int) []byte { return (*room)[from:len(*room):len(*room)] }
	at := len(*room)
	if !p.isRange() {
		addr := host
		if host.IsUnspecified() {
			addr = netip.Addr{} // any has no address in its key
		}
		*room = appendKey(*room, addr, p.Proto, p.Host.Port())
		e.Key, at = keep(at), len(*room)
		*room = binary.BigEndian.AppendUint16(appendAddr(*room, box), p.Box.Port())
		*room = append(*room, 0, 0)
		e.Data = keep(at)
		return item{setOf(p), e}
	}
	last := host
	if host.IsUnspecified() { // an interval over all addresses
		last = lastAddr(netip.PrefixFrom(host, 0))
	}
	*room = appendKey(*room, host, p.Proto, p.Host.Port())
	e.Key, at = keep(at), len(*room)
	*room = appendKey(*room, last, p.Proto, p.HostLast)
	e.KeyEnd = keep(at)
	e.Data = box.AsSlice()
	return item{setOf(p), e}
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
