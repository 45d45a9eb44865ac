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

// items returns all elements of a checked network. Only this function makes elements of a Network.
// The records of the host's links (flipped4, flipped6, localnet) are not part of the network.
func (n Network) items() []item {
	key := ifname(n.Interface)
	var all []item
	add := func(set string, e nft.Element) { all = append(all, item{set, e}) }

	add("ifs", nft.Element{Key: key})
	within := slices.Concat(key, key)
	add("within", nft.Element{Key: within, KeyEnd: within})
	add("closed", nft.Element{Key: key})
	add("foreign", nft.Element{Key: key})
	inside := nft.Element{Key: slices.Concat(key, key), Verdict: nft.VerdictAccept}
	if n.Isolated {
		inside.Verdict, inside.Chain = nft.VerdictGoto, "icc_off"
		add("isolated", nft.Element{Key: key})
	}
	add("pair", inside)
	for _, other := range n.AllowTo {
		add("pair", nft.Element{Key: slices.Concat(key, ifname(other)), Verdict: nft.VerdictAccept})
	}
	if n.Internal {
		add("internal", nft.Element{Key: key})
	}
	if n.ClampMSS {
		add("mss", nft.Element{Key: key})
	}
	if n.MSS != 0 {
		add("mss_size", nft.Element{Key: key, Data: binary.BigEndian.AppendUint16(nil, n.MSS)})
	}
	if n.PortGroup != 0 {
		add(setPortGroup, nft.Element{Key: key, Data: host32(n.PortGroup)})
	}
	if n.Flowtable {
		add(setFlowtable, nft.Element{Key: key})
	}
	if n.Random {
		add("random_ports", nft.Element{Key: key})
	}
	for _, s := range n.Subnets {
		all = append(all, n.subnetItems(s)...)
	}
	for _, s := range n.Behind {
		add(familyOf(s.Addr()).behind, rangeOf(s).element(key))
	}
	for _, s := range n.Trusted {
		f := familyOf(s.Addr())
		add(f.trusted, rangeOf(s).element(key))
		if a, ok := n.seenAs(f.v6); ok {
			e := rangeOf(s).element(f.etherType())
			e.Data, e.Comment = a.AsSlice(), n.Interface
			add(f.far, e)
		}
	}
	if n.Strict {
		add("strict", nft.Element{Key: key})
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
		if n.Masquerade && n.has(f.v6) || snat[f.v6] {
			add(f.translated, nft.Element{Key: key})
		}
	}
	for _, o := range n.Pinholes {
		all = append(all, o.item())
	}
	return all
}

// subnetItems returns the elements of one of the network's subnets, without what it trusts.
func (n Network) subnetItems(s netip.Prefix) (all []item) {
	key := ifname(n.Interface)
	add := func(set string, e nft.Element) { all = append(all, item{set, e}) }
	f := familyOf(s.Addr())
	for _, r := range n.rest(s) {
		own, anywhere := r.element(key), r.element(f.etherType())
		if r != rangeOf(s) {
			own.Comment = s.String() // which the range does not say
		}
		anywhere.Comment = n.Interface // which its key does not say
		add(f.same, own)
		for _, it := range nearItems(r, key) {
			add(it.set, it.elem)
		}
		add(f.nets, anywhere)
	}
	return all
}

// element returns the element of the addresses, with rest appended to its keys.
func (r addrRange) element(rest []byte) nft.Element {
	return nft.Element{
		Key:    slices.Concat(r.first.AsSlice(), rest),
		KeyEnd: slices.Concat(r.last.AsSlice(), rest),
	}
}

// item returns the element of a pinhole.
func (p Pinhole) item() item {
	f := familyOf(p.Box.Addr())
	if p.Proto == ICMP {
		return item{f.echo, nft.Element{Key: p.Box.Addr().AsSlice(), Comment: p.Owner}}
	}
	key := func(port uint16) []byte { return appendKey(nil, p.Box.Addr(), p.Proto, port) }
	return item{f.route, nft.Element{
		Key: key(p.Box.Port()), KeyEnd: key(p.last()), Comment: p.Owner,
	}}
}

// pinholeSets are the sets of pinholes.
var pinholeSets = []string{families[0].route, families[0].echo, families[1].route, families[1].echo}

// perInterface are the sets keyed by one interface name that a network may have
// an element in; "ifs", which has all, is the first.
var perInterface = []string{
	"ifs", "closed", "internal", "isolated", "foreign", "mss", "mss_size", "random_ports", "strict", setPortGroup, setFlowtable,
	"masq4", "masq6", "snat4", "snat6", "translated4", "translated6",
}

// manyOf are the sets that a network may have several elements in, or one by another
// key than its interface.
var manyOf = []string{"within", "pair", "same4", "same6", "wide4", "near4", "near6", "nets4", "nets6", "behind4", "behind6", "trusted4", "trusted6", "far4", "far6"}

// held reads the items of the network of an interface: those that its items method returned when it
// was added. It is nil if there is no network.
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
	for _, set := range manyOf {
		elems, err := c.Elements(ctx, n.table, set)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			if it := (item{set, e}); it.network() == iface {
				all = append(all, it)
			}
		}
	}
	var net Network
	for _, it := range all {
		if it.set == "same4" || it.set == "same6" {
			e, err := decodeAddrs(it)
			if err != nil {
				return nil, err
			}
			net.Subnets = append(net.Subnets, e.prefix)
		}
	}
	open, err := n.readItems(ctx, c, pinholeSets...)
	if err != nil {
		return nil, err
	}
	for _, it := range open {
		o, err := decodePinhole(it)
		if err != nil {
			return nil, err
		}
		if net.contains(o.Box.Addr()) {
			all = append(all, it)
		}
	}
	return all, nil
}

// changeItems adds to the batch what turns the items in have into want: set by set, in the order of
// the skeleton's, deletions and additions of the difference.
//
// The kernel activates interval sets one after the other, in the order in which the batch first
// names them (nf_tables_commit). With all deletions before all additions, a network that goes could
// activate the set within before the addresses of a network that comes are active in same.
func changeItems(b *nft.Batch, have, want []item) {
	if len(have) == 0 {
		addItems(b, want)
		return
	}
	old := byKey(have)
	var add, del []item
	for _, it := range want {
		e, ok := old[it.setKey()]
		if ok && e.Equal(&it.elem) {
			delete(old, it.setKey())
			continue
		}
		add = append(add, it)
	}
	for _, it := range have {
		if _, ok := old[it.setKey()]; ok {
			del = append(del, item{it.set, nft.Element{Key: it.elem.Key, KeyEnd: it.elem.KeyEnd}})
		}
	}
	for _, set := range setsOf(del, add) {
		b.DeleteEach(set, elementsIn(set, del))
		b.AddEach(set, elementsIn(set, add))
	}
}

// pairOf returns the interfaces in a key of pair or bridged.
func pairOf(key []byte) (from, to string) {
	if len(key) != 2*unix.IFNAMSIZ {
		return "", ""
	}
	return nameOf(key[:unix.IFNAMSIZ]), nameOf(key[unix.IFNAMSIZ:])
}

// addrElement is what an element of same4, same6, behind4, behind6, trusted4 or trusted6 says.
type addrElement struct {
	addrRange
	prefix netip.Prefix // that the addresses are, or the subnet that they are left of
	iface  string
}

// lastKey is the last key of an element of intervals. The kernel takes one that another program added
// without it for the interval of the first.
func lastKey(e nft.Element) []byte {
	if e.KeyEnd == nil {
		return e.Key
	}
	return e.KeyEnd
}

// decodeRange returns the addresses in the keys of an element, which end with rest bytes of something
// else.
func decodeRange(it item, rest int) (r addrRange, err error) {
	n := familyOfSet(it.set).unspecified().BitLen() / 8
	key, end := it.elem.Key, lastKey(it.elem)
	if len(key) != n+rest || len(end) != len(key) {
		return r, fmt.Errorf("set %s: malformed element: a key of %d and %d bytes", it.set, len(key), len(end))
	}
	r.first, _ = netip.AddrFromSlice(key[:n])
	r.last, _ = netip.AddrFromSlice(end[:n])
	return r, nil
}

// decodeAddrs decodes such an element.
func decodeAddrs(it item) (e addrElement, err error) {
	if e.addrRange, err = decodeRange(it, unix.IFNAMSIZ); err != nil {
		return e, err
	}
	e.iface = it.network()
	divided := it.set == families[0].same || it.set == families[1].same
	if of, err := netip.ParsePrefix(it.elem.Comment); divided && err == nil && rangeOf(of).covers(e.addrRange) {
		e.prefix = of.Masked()
		return e, nil
	}
	var ok bool
	if e.prefix, ok = e.addrRange.prefix(); !ok {
		return e, fmt.Errorf("set %s: malformed element: %v to %v is no prefix", it.set, e.first, e.last)
	}
	return e, nil
}

// decodePinhole returns the pinhole of an item.
func decodePinhole(it item) (Pinhole, error) {
	f, e := familyOfSet(it.set), it.elem
	n := f.unspecified().BitLen() / 8
	o, end := Pinhole{Proto: ICMP, Owner: e.Comment}, lastKey(e)
	switch {
	case it.set == f.echo && len(e.Key) == n:
		a, _ := netip.AddrFromSlice(e.Key)
		o.Box = netip.AddrPortFrom(a, 0)
		return o, nil
	case it.set != f.route || len(e.Key) != n+8 || len(end) != len(e.Key):
		return Pinhole{}, fmt.Errorf("set %s: malformed element: a key of %d and %d bytes", it.set, len(e.Key), len(end))
	}
	a, _ := netip.AddrFromSlice(e.Key[:n])
	port := func(key []byte) uint16 { return binary.BigEndian.Uint16(key[n+4:]) }
	o.Proto, o.Box = Proto(e.Key[n]), netip.AddrPortFrom(a, port(e.Key))
	if last := port(end); last != o.Box.Port() {
		o.Last = last
	}
	return o, nil
}
