package nat

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// The maps uses4 and uses6 are reference counts. The key is a protocol and a port, the data is the number of single addresses
// that they are published on: of elements of pub. So one lookup says whether a wildcard port conflicts with any of them.

// A portRef is a key of a reference count.
type portRef struct {
	v6    bool
	proto Proto
	port  uint16
}

// set is the map that the count is in.
func (r portRef) set() string {
	if r.v6 {
		return families[1].refs
	}
	return families[0].refs
}

// item is the element for a count, with its key and data appended to room.
func (r portRef) item(room *[]byte, n int) item {
	at := len(*room)
	*room = appendKey(*room, netip.Addr{}, r.proto, r.port)
	*room = binary.NativeEndian.AppendUint32(*room, uint32(n))
	return item{r.set(), nft.Element{Key: (*room)[at : at+8 : at+8], Data: (*room)[at+8 : at+12 : at+12]}}
}

// refCount is the count that an element holds; 0 for no element.
func refCount(e *nft.Element) int {
	if e == nil || len(e.Data) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(e.Data))
}

// refOf returns the key of the count that an element of a set holds. ok is false for another set, and
// for what is no count.
func refOf(set string, e *nft.Element) (r portRef, ok bool) {
	if !isRefSet(set) || len(e.Key) != 8 || len(e.Data) != 4 {
		return r, false
	}
	return portRef{familyOfSet(set).v6, Proto(e.Key[0]), binary.BigEndian.Uint16(e.Key[4:])}, true
}

// isRefSet reports whether a set holds the counts of ports.
func isRefSet(set string) bool { return set == families[0].refs || set == families[1].refs }

// refChange is by how much counts change when the published ports change.
type refChange struct {
	delta map[portRef]int
	all   []portRef // the keys of delta, as they came
}

// add adds n for each port. Ranges and wildcard ports are not counted.
func (c *refChange) add(ports []Port, n int) {
	for i := range ports {
		p := &ports[i]
		if p.isRange() || p.Host.Addr().IsUnspecified() {
			continue
		}
		if c.delta == nil {
			c.delta, c.all = make(map[portRef]int, len(ports)), make([]portRef, 0, len(ports))
		}
		for port := int(p.Host.Port()); port <= int(p.last()); port++ {
			r := portRef{p.Host.Addr().Is6(), p.Proto, uint16(port)}
			if _, ok := c.delta[r]; !ok {
				c.all = append(c.all, r)
			}
			c.delta[r] += n
		}
	}
}

// queries appends the lookups of the counts, in the order of all.
func (c *refChange) queries(ask []nft.Query) []nft.Query {
	room := make([]byte, 0, 8*len(c.all))
	for _, r := range c.all {
		at := len(room)
		room = appendKey(room, netip.Addr{}, r.proto, r.port)
		ask = append(ask, nft.Query{Set: r.set(), Key: tail(room, at)})
	}
	return ask
}

// read looks up the counts that found lacks: those that were added last.
func (c *refChange) read(ctx context.Context, conn nft.Conn, table string, found []*nft.Element) ([]*nft.Element, error) {
	if len(found) == len(c.all) {
		return found, nil
	}
	rest := refChange{all: c.all[len(found):]}
	more, err := conn.Lookup(ctx, table, rest.queries(nil)...)
	return slices.Concat(found, more), err
}

// write replaces the found counts in the batch.
func (c *refChange) write(b *nft.Batch, found []*nft.Element) {
	old, fresh := make([]item, 0, len(c.all)), make([]item, 0, len(c.all))
	room := make([]byte, 0, 12*len(c.all))
	for i, r := range c.all {
		delta := c.delta[r]
		if delta == 0 {
			continue
		}
		if found[i] != nil {
			old = append(old, item{r.set(), *found[i]})
		}
		if n := refCount(found[i]) + delta; n > 0 {
			fresh = append(fresh, r.item(&room, n))
		}
	}
	deleteItems(b, old)
	addItems(b, fresh)
}
