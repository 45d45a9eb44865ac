package nat

import (
	"context"
	"encoding/binary"
	"iter"
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
func (r portRef) item(room *[]byte, n int) item { return item{r.set(), r.element(room, n)} }

func (r portRef) element(room *[]byte, n int) nft.Element {
	at := len(*room)
	*room = appendKey(*room, netip.Addr{}, r.proto, r.port)
	*room = binary.NativeEndian.AppendUint32(*room, uint32(n))
	return nft.Element{Key: (*room)[at : at+8 : at+8], Data: (*room)[at+8 : at+12 : at+12]}
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
	all   []refDelta // as they came
	index map[portRef]int
}

type refDelta struct {
	portRef
	n int
}

// counts reports whether a count is one of the family's.
func (f *family46) counts(r refDelta) bool { return r.v6 == f.v6 }

// add adds n for each port. Ranges and wildcard ports are not counted.
func (c *refChange) add(ports []Port, n int) {
	for i := range ports {
		p := &ports[i]
		if p.isRange() || p.Host.Addr().IsUnspecified() {
			continue
		}
		if c.index == nil {
			c.all, c.index = make([]refDelta, 0, len(ports)), make(map[portRef]int, len(ports))
		}
		for port := int(p.Host.Port()); port <= int(p.last()); port++ {
			r := portRef{p.Host.Addr().Is6(), p.Proto, uint16(port)}
			at, ok := c.index[r]
			if !ok {
				at = len(c.all)
				c.index[r], c.all = at, append(c.all, refDelta{portRef: r})
			}
			c.all[at].n += n
		}
	}
}

// of returns by how much a count changes. ok is false for one that was not added.
func (c *refChange) of(r portRef) (n int, ok bool) {
	at, ok := c.index[r]
	if !ok {
		return 0, false
	}
	return c.all[at].n, true
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
	for _, f := range families {
		if slices.ContainsFunc(c.all, f.counts) {
			b.DeleteEach(f.refs, c.old(f.v6, found))
			b.AddEach(f.refs, c.fresh(f.v6, found))
		}
	}
}

// old are the elements of a family that do not stay.
func (c *refChange) old(v6 bool, found []*nft.Element) iter.Seq[*nft.Element] {
	return func(yield func(*nft.Element) bool) {
		for i, r := range c.all {
			if r.v6 == v6 && r.n != 0 && found[i] != nil && !yield(found[i]) {
				return
			}
		}
	}
}

// fresh are those that come in their place.
func (c *refChange) fresh(v6 bool, found []*nft.Element) iter.Seq[*nft.Element] {
	return func(yield func(*nft.Element) bool) {
		var e nft.Element // one for all
		room := make([]byte, 0, 12)
		for i, r := range c.all {
			n := refCount(found[i]) + r.n
			if r.v6 != v6 || r.n == 0 || n <= 0 {
				continue
			}
			room = room[:0]
			if e = r.element(&room, n); !yield(&e) {
				return
			}
		}
	}
}
