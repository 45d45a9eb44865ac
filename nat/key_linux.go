package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nft"
)

// setOf returns the map that a host key belongs in.
func setOf(k hostKey) string {
	f := familyOf(k.host.Addr())
	if k.isWild() {
		return f.any
	}
	return f.pub
}

func queries(ports []Port) []nft.Query {
	q := make([]nft.Query, len(ports))
	for i, p := range ports {
		q[i] = nft.Query{Set: setOf(p.key()), Key: encodeKey(p.key())}
	}
	return q
}

// portItems are the elements of the ports.
func portItems(ports []Port) []item {
	items := make([]item, len(ports))
	for i, p := range ports {
		items[i] = item{setOf(p.key()), nft.Element{Key: encodeKey(p.key()), Data: encodeData(p.Box), Comment: p.Owner}}
	}
	return items
}

// encodeKey returns the key of pub (address . protocol . port) or, for the
// unspecified address, of any (protocol . port). Each part is padded to 4 bytes.
func encodeKey(k hostKey) []byte {
	b := make([]byte, 0, 24)
	if !k.isWild() {
		b = append(b, k.host.Addr().AsSlice()...)
	}
	b = append(b, byte(k.proto), 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(b, k.host.Port()), 0, 0)
}

// encodeData returns the data of a map: address . port.
func encodeData(box netip.AddrPort) []byte {
	b := append(make([]byte, 0, 20), box.Addr().AsSlice()...)
	return append(binary.BigEndian.AppendUint16(b, box.Port()), 0, 0)
}

func decodeData(b []byte) (netip.AddrPort, error) {
	if len(b) != 8 && len(b) != 20 {
		return netip.AddrPort{}, fmt.Errorf("malformed element: %d bytes of data", len(b))
	}
	a, _ := netip.AddrFromSlice(b[:len(b)-4])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[len(b)-4:])), nil
}

// decodePort is the port that an element of a family's pub or any stands for.
func decodePort(f *family46, e nft.Element) (Port, error) {
	a := netip.IPv4Unspecified()
	if f.v6 {
		a = netip.IPv6Unspecified()
	}
	key := e.Key
	switch n := a.BitLen()/8 + 8; len(key) {
	case 8:
	case n:
		a, _ = netip.AddrFromSlice(key[:n-8])
		key = key[n-8:]
	default:
		return Port{}, fmt.Errorf("malformed element: a key of %d bytes", len(key))
	}
	box, err := decodeData(e.Data)
	return Port{
		Proto: Proto(key[0]),
		Host:  netip.AddrPortFrom(a, binary.BigEndian.Uint16(key[4:])),
		Box:   box,
		Owner: e.Comment,
	}, err
}
