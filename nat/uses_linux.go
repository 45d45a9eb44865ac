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

// use is a key of uses.
type use struct {
	f     *family46
	proto Proto
	port  uint16
}

// useOf is what the items of pub count for.
func useOf(it item) (u use, ok bool) {
	for _, f := range families {
		if it.set == f.pub {
			key := it.elem.Key[len(it.elem.Key)-8:]
			return use{f, Proto(key[0]), binary.BigEndian.Uint16(key[4:])}, true
		}
	}
	return u, false
}

// itemIn is the element for a count, with its key and data appended to room.
func (u use) itemIn(room *[]byte, n int) item {
	at := len(*room)
	*room = appendKey(*room, netip.Addr{}, u.proto, u.port)
	*room = binary.NativeEndian.AppendUint32(*room, uint32(n))
	return item{u.f.uses, nft.Element{Key: (*room)[at : at+8 : at+8], Data: (*room)[at+8 : at+12 : at+12]}}
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
		items[i] = u.itemIn(&room, u.delta)
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

func (c *useChange) add(items []item, n int) {
	for i := range items {
		u, ok := useOf(items[i])
		if !ok {
			continue
		}
		at, ok := c.at[u]
		if !ok {
			if c.at == nil {
				c.at, c.all = make(map[use]int, len(items)), make([]usesOf, 0, len(items))
			}
			at = len(c.all)
			c.at[u], c.all = at, append(c.all, usesOf{use: u})
		}
		c.all[at].delta += n
	}
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
		room = appendKey(room, netip.Addr{}, u.proto, u.port)
		ask = append(ask, nft.Query{Set: u.f.uses, Key: room[at:len(room):len(room)]})
	}
	return ask
}

// found notes what queries have found.
func (c *useChange) found(elems []*nft.Element) {
	for i, e := range elems {
		c.all[i].found, c.all[i].known = e, true
	}
}

// recount returns the counts that a change replaces, and by which.
func (n *NAT) recount(ctx context.Context, c nft.Conn, uses useChange) (old, fresh []item, err error) {
	var rest useChange // what is not known
	for _, u := range uses.all {
		if !u.known {
			rest.all = append(rest.all, u)
		}
	}
	if len(rest.all) > 0 {
		found, err := c.Lookup(ctx, n.table, rest.queries(nil)...)
		if err != nil {
			return nil, nil, err
		}
		rest.found(found)
	}
	fresh = make([]item, 0, len(uses.all))
	room := make([]byte, 0, 12*len(uses.all))
	for _, u := range uses.all {
		if !u.known {
			u, rest.all = rest.all[0], rest.all[1:]
		}
		if u.delta == 0 {
			continue
		}
		if u.found != nil {
			old = append(old, item{u.f.uses, *u.found})
		}
		if count := useCount(u.found) + u.delta; count > 0 {
			fresh = append(fresh, u.itemIn(&room, count))
		}
	}
	return old, fresh, nil
}
