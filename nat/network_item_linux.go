package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// items is all that the table holds about a network that was checked: the
// only place where a Network becomes elements. What the host's links were before
// (flipped4, flipped6, localnet) is not the network's and not among them.
func (n Network) items() []item {
	key := ifname(n.Interface)
	var all []item
	add := func(set string, e nft.Element) { all = append(all, item{set, e}) }

	add("ifs", nft.Element{Key: key})
	add("closed", nft.Element{Key: key})
	inside := nft.Element{Key: slices.Concat(key, key), Accept: true}
	if n.Isolated {
		inside.Accept, inside.Goto = false, "icc_off"
		add("isolated", nft.Element{Key: key})
	}
	add("pair", inside)
	for _, other := range n.Reaches {
		add("pair", nft.Element{Key: slices.Concat(key, ifname(other)), Accept: true})
	}
	if n.Internal {
		add("internal", nft.Element{Key: key})
	}
	if n.ClampMSS {
		add("mss", nft.Element{Key: key})
	}
	for _, s := range n.Subnets {
		add(familyOf(s.Addr()).same, nft.Element{
			Key:    slices.Concat(s.Addr().AsSlice(), key),
			KeyEnd: slices.Concat(lastAddr(s).AsSlice(), key),
		})
	}
	snat := map[bool]bool{}
	for _, a := range n.SNAT {
		snat[a.Is6()] = true
		add(familyOf(a).snat, nft.Element{Key: key, Data: a.AsSlice()})
	}
	for _, f := range families {
		if n.Masquerade && n.has(f.v6) && !snat[f.v6] {
			add(f.masq, nft.Element{Key: key})
		}
	}
	for _, o := range n.Openings {
		all = append(all, o.item())
	}
	return all
}

// item is what the table holds about an opening.
func (o Opening) item() item {
	key := func(port uint16) []byte { return appendKey(nil, o.Box.Addr(), o.Proto, port) }
	return item{familyOf(o.Box.Addr()).route, nft.Element{
		Key: key(o.Box.Port()), KeyEnd: key(o.last()), Comment: o.Owner,
	}}
}

// perInterface are the sets keyed by one interface name that a network may have
// an element in; "ifs", which has all, is the first.
var perInterface = []string{"ifs", "closed", "internal", "isolated", "mss", "masq4", "masq6", "snat4", "snat6"}

// held reads what the table holds about the network of an interface: what its
// elements returned when it was added. It is nil if there is none.
func (n *NAT) held(ctx context.Context, c nft.Conn, iface string) ([]item, error) {
	key := ifname(iface)
	ask := make([]nft.Query, len(perInterface))
	for i, set := range perInterface {
		ask[i] = nft.Query{Set: set, Key: key}
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	if err != nil || found[0] == nil {
		return nil, err
	}
	var all []item
	for i, e := range found {
		if e != nil {
			all = append(all, item{perInterface[i], *e})
		}
	}
	gather := func(set string, mine func(nft.Element) (bool, error)) error {
		elems, err := c.Elements(ctx, n.table, set)
		for _, e := range elems {
			var ok bool
			if ok, err = mine(e); err != nil {
				return fmt.Errorf("set %s: %w", set, err)
			}
			if ok {
				all = append(all, item{set, e})
			}
		}
		return err
	}
	err = gather("pair", func(e nft.Element) (bool, error) {
		from, _ := pairOf(e.Key)
		return from == iface, nil
	})
	net := Network{}
	for _, f := range families {
		if err != nil {
			break
		}
		err = gather(f.same, func(e nft.Element) (bool, error) {
			subnet, name, err := decodeSame(e)
			if name == iface {
				net.Subnets = append(net.Subnets, subnet)
			}
			return name == iface, err
		})
	}
	for _, f := range families {
		if err != nil || !net.has(f.v6) {
			continue
		}
		err = gather(f.route, func(e nft.Element) (bool, error) {
			o, err := decodeOpening(e)
			return err == nil && net.contains(o.Box.Addr()), err
		})
	}
	return all, err
}

// changeItems adds to the batch what turns the items that the table has into
// those that are wanted: deletions, then additions, of the difference.
func changeItems(b *nft.Batch, have, want []item) {
	old := make(map[place]nft.Element, len(have))
	for _, it := range have {
		old[it.place()] = it.elem
	}
	var add, del []item
	for _, it := range want {
		e, ok := old[it.place()]
		if ok && e.Equal(&it.elem) {
			delete(old, it.place())
			continue
		}
		add = append(add, it)
	}
	for _, it := range have {
		if _, ok := old[it.place()]; ok {
			del = append(del, item{it.set, nft.Element{Key: it.elem.Key, KeyEnd: it.elem.KeyEnd}})
		}
	}
	deleteItems(b, del)
	addItems(b, add)
}

// pairOf returns the interfaces in a key of pair.
func pairOf(key []byte) (from, to string) {
	if len(key) != 2*unix.IFNAMSIZ {
		return "", ""
	}
	return nameOf(key[:unix.IFNAMSIZ]), nameOf(key[unix.IFNAMSIZ:])
}

// decodeSame returns the subnet and the interface of an element of same4 or same6.
func decodeSame(e nft.Element) (netip.Prefix, string, error) {
	n := len(e.Key) - unix.IFNAMSIZ
	first, ok := netip.AddrFromSlice(e.Key[:max(n, 0)])
	if !ok || len(e.KeyEnd) != len(e.Key) {
		return netip.Prefix{}, "", fmt.Errorf("malformed element: a key of %d and %d bytes", len(e.Key), len(e.KeyEnd))
	}
	last, _ := netip.AddrFromSlice(e.KeyEnd[:n])
	for bits := 0; bits <= first.BitLen(); bits++ {
		if p := netip.PrefixFrom(first, bits); p.Masked() == p && lastAddr(p) == last {
			return p, nameOf(e.Key[n:]), nil
		}
	}
	return netip.Prefix{}, "", fmt.Errorf("malformed element: %v to %v is no prefix", first, last)
}

// decodeOpening returns the opening that an element of route4 or route6 stands for.
func decodeOpening(e nft.Element) (Opening, error) {
	n := len(e.Key) - 8
	a, ok := netip.AddrFromSlice(e.Key[:max(n, 0)])
	if !ok || len(e.KeyEnd) != len(e.Key) {
		return Opening{}, fmt.Errorf("malformed element: a key of %d and %d bytes", len(e.Key), len(e.KeyEnd))
	}
	port := func(key []byte) uint16 { return binary.BigEndian.Uint16(key[n+4:]) }
	o := Opening{Proto: Proto(e.Key[n]), Box: netip.AddrPortFrom(a, port(e.Key)), Owner: e.Comment}
	if last := port(e.KeyEnd); last != o.Box.Port() {
		o.Last = last
	}
	return o, nil
}
