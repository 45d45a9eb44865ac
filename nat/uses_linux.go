package nat

import (
	"context"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// The maps uses4 and uses6 count, for a protocol and port, the single addresses that
// it is published on: the elements of pub with that protocol and port. So one look
// tells whether a port is free on all addresses, however many ports are published.

// use is a key of uses: the index of its family (bit 24), the protocol (16 to 23) and
// the port (0 to 15) in one number, which a map finds in a third of the time that it
// takes for a struct.
type use uint32

// useFor is the key that a port counts under; ok is false for one that does not count:
// a range, or one on all addresses.
func useFor(p *Port) (u use, ok bool) {
	if p.isRange() || p.Host.Addr().IsUnspecified() {
		return 0, false
	}
	return newUse(familyOf(p.Host.Addr()), p.Proto, p.Host.Port()), true
}

// useOf is what an item of a port set counts for.
func useOf(it *item) (u use, ok bool) {
	for _, f := range families {
		if it.set == f.pub {
			key := it.elem.Key[len(it.elem.Key)-8:]
			return newUse(f, Proto(key[0]), binary.BigEndian.Uint16(key[4:])), true
		}
	}
	return 0, false
}

func newUse(f *family46, proto Proto, port uint16) use {
	u := use(proto)<<16 | use(port)
	if f.v6 {
		u |= 1 << 24
	}
	return u
}

func (u use) family() *family46 { return families[u>>24] }

// appendKey appends the key.
func (u use) appendKey(b []byte) []byte {
	return appendKey(b, netip.Addr{}, Proto(u>>16), uint16(u))
}

// element is the element for a count, with its key and data appended to room.
func (u use) element(room *[]byte, n int) nft.Element {
	at := len(*room)
	*room = u.appendKey(*room)
	*room = binary.NativeEndian.AppendUint32(*room, uint32(n))
	return nft.Element{Key: (*room)[at : at+8 : at+8], Data: (*room)[at+8 : at+12 : at+12]}
}

// useCount is the number in an element of uses; 0 for none.
func useCount(e *nft.Element) int {
	if e == nil || len(e.Data) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(e.Data))
}

// useItems are the elements of uses for what is published.
func useItems(published []item) []item {
	var c useChange
	c.add(published, 1)
	items := make([]item, len(c.all))
	room := make([]byte, 0, 12*len(items))
	for i, u := range c.all {
		items[i] = item{u.family().uses, u.element(&room, u.delta)}
	}
	return items
}

// useChange is what becomes of the counts when what is published changes.
type useChange struct {
	at  map[use]int // index of all
	all []usesOf
}

// usesOf is one count: by how much it changes, and what it is.
type usesOf struct {
	use
	delta int
	found *nft.Element
	known bool // found was read
}

// add counts items of port sets n times.
func (c *useChange) add(items []item, n int) {
	for i := range items {
		if u, ok := useOf(&items[i]); ok {
			c.count(u, n, len(items))
		}
	}
}

// addPorts counts ports once.
func (c *useChange) addPorts(ports []Port) {
	for p := range eachSingle(ports) {
		if u, ok := useFor(p); ok {
			c.count(u, 1, len(ports))
		}
	}
}

// count counts a key, of about so many.
func (c *useChange) count(u use, n, many int) {
	at, ok := c.at[u]
	if !ok {
		if c.at == nil {
			c.at, c.all = make(map[use]int, many), make([]usesOf, 0, many)
		}
		at = len(c.all)
		c.at[u], c.all = at, append(c.all, usesOf{use: u})
	}
	c.all[at].delta += n
}

// with is the change and more of it.
func (c useChange) with(items []item, n int) useChange {
	if len(items) > 0 {
		c.at, c.all = maps.Clone(c.at), slices.Clone(c.all)
		c.add(items, n)
	}
	return c
}

// queries appends the questions for the counts, in their order.
func (c *useChange) queries(ask []nft.Query) []nft.Query {
	room := make([]byte, 0, 8*len(c.all))
	for _, u := range c.all {
		at := len(room)
		room = u.appendKey(room)
		ask = append(ask, nft.Query{Set: u.family().uses, Key: room[at:len(room):len(room)]})
	}
	return ask
}

// found notes what queries have found.
func (c *useChange) found(elems []*nft.Element) {
	for i, e := range elems {
		c.all[i].found, c.all[i].known = e, true
	}
}

// look reads the counts that are not known: those that were added last.
func (c *useChange) look(ctx context.Context, conn nft.Conn, table string) error {
	first := slices.IndexFunc(c.all, func(u usesOf) bool { return !u.known })
	if first < 0 {
		return nil
	}
	rest := useChange{all: c.all[first:]}
	elems, err := conn.Lookup(ctx, table, rest.queries(nil)...)
	if err == nil {
		rest.found(elems)
	}
	return err
}

// write puts the counts into the batch in place of those that are there. All are
// known.
func (c *useChange) write(b *nft.Batch) {
	for _, f := range families {
		if !slices.ContainsFunc(c.all, func(u usesOf) bool { return u.family() == f }) {
			continue
		}
		changed := func(yield func(*usesOf) bool) {
			for i := range c.all {
				if u := &c.all[i]; u.delta != 0 && u.family() == f && !yield(u) {
					return
				}
			}
		}
		b.DeleteEach(f.uses, func(yield func(*nft.Element) bool) {
			for u := range changed {
				if u.found != nil && !yield(u.found) {
					return
				}
			}
		})
		b.AddEach(f.uses, func(yield func(*nft.Element) bool) {
			var e nft.Element // one for all
			room := make([]byte, 0, 12)
			for u := range changed {
				n := useCount(u.found) + u.delta
				if n <= 0 {
					continue
				}
				room = room[:0]
				if e = u.element(&room, n); !yield(&e) {
					return
				}
			}
		})
	}
}
