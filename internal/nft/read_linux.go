package nft

import (
	"context"
	"errors"
	"hash/maphash"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// TableComment reads the comment of a table. A table that is
// not there is os.ErrNotExist.
func (c Conn) TableComment(ctx context.Context, table string) (string, error) {
	comment, _, err := c.table(ctx, table)
	return comment, err
}

// table reads the comment and the flags (NFT_TABLE_F_*) of a table.
func (c Conn) table(ctx context.Context, table string) (comment string, flags uint32, err error) {
	req := nl.Request{
		Type: msgType(unix.NFT_MSG_GETTABLE),
		Body: nl.AppendString(header(c.family), unix.NFTA_TABLE_NAME, table),
	}
	var t Table
	err = c.nl.Call(ctx, req, func(m nl.Message) (err error) {
		t, err = decodeTable(m.Body)
		return err
	})
	return t.Comment, t.flags, err
}

// Table is a table of the ruleset.
type Table struct {
	Name    string
	Comment string
	flags   uint32 // NFT_TABLE_F_*
}

// Tables reads the tables of the family.
func (c Conn) Tables(ctx context.Context) ([]Table, error) {
	var all []Table
	req := nl.Request{Type: msgType(unix.NFT_MSG_GETTABLE), Body: header(c.family)}
	err := c.nl.Dump(ctx, req, func() { all = all[:0] }, func(m nl.Message) error {
		t, err := decodeTable(m.Body)
		all = append(all, t)
		return err
	})
	return all, err
}

// decodeTable reads the body of a NEWTABLE message.
func decodeTable(b []byte) (t Table, err error) {
	if len(b) < 4 {
		return t, errShort
	}
	w := nl.Walk(b[4:])
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_TABLE_NAME:
			t.Name = w.String()
		case attrTableUserdata:
			t.Comment = decodeComment(w.Data())
		case unix.NFTA_TABLE_FLAGS:
			t.flags = w.BE32()
		}
	}
	return t, w.Err()
}

// maxReads bounds how often something is read again because the ruleset changed
// meanwhile.
const maxReads = 20

// Steady calls read, and calls it again if the ruleset changed meanwhile. What read has
// read in several queries is thus one state. If the ruleset keeps changing, the error is
// ErrBusy.
func (c Conn) Steady(ctx context.Context, read func(context.Context) error) error {
	for range maxReads {
		before, err := c.Generation(ctx)
		if err != nil {
			return err
		}
		if err := read(ctx); err != nil {
			return err
		}
		after, err := c.Generation(ctx)
		if err != nil || before == after {
			return err
		}
	}
	return ErrBusy
}

// Elements reads all elements of a set of a table.
func (c Conn) Elements(ctx context.Context, table, set string) ([]Element, error) {
	return c.ElementsOf(ctx, c.family, table, set)
}

// ElementsOf is Elements for a table of any family (unix.NFPROTO_IPV4, ...).
func (c Conn) ElementsOf(ctx context.Context, family byte, table, set string) ([]Element, error) {
	var all []Element
	err := c.dumpElements(ctx, getElements(family, table, set), func() { all = all[:0] }, func(e *Element) error {
		all = append(all, e.Clone())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// EachElement hands each element of a set of a table to each, so that nothing is kept of those
// that the caller does not want. The element and its slices are valid until each returns. The
// set may be read more than once: EachElement calls reset before each attempt, and what earlier
// attempts brought is void.
func (c Conn) EachElement(ctx context.Context, table, set string, reset func(), each func(*Element) error) error {
	return c.dumpElements(ctx, getElements(c.family, table, set), reset, each)
}

// dumpElements reads the elements of a set.
//
// For each reply the kernel walks the hash table from its start and skips as many elements
// as it has dumped. After many insertions it resizes the table in the background. That
// changes the order and not the generation, so a dump may repeat elements and lack as many.
// A set with an element twice is therefore read again.
func (c Conn) dumpElements(ctx context.Context, req nl.Request, reset func(), each func(*Element) error) error {
	known := make(comments)
	for range maxReads {
		var seen places
		err := c.nl.Dump(ctx, req, func() { seen.reset(); reset() }, func(m nl.Message) error {
			return walkElements(m.Body, known, func(e *Element) error {
				seen.add(e)
				return each(e)
			})
		})
		if err != nil || !seen.twice {
			return err
		}
	}
	return nl.ErrInterrupted
}

// places are the places that elements have in their set.
type places struct {
	hash  maphash.Hash
	seen  map[uint64]struct{}
	twice bool // two elements had the same place
}

func (p *places) reset() {
	p.seen, p.twice = make(map[uint64]struct{}), false
}

func (p *places) add(e *Element) {
	p.hash.Reset()
	p.hash.Write(e.Key)
	p.hash.WriteByte(byte(len(e.KeyEnd)))
	p.hash.Write(e.KeyEnd)
	if e.End {
		p.hash.WriteByte(1)
	}
	n := len(p.seen)
	p.seen[p.hash.Sum64()] = struct{}{}
	p.twice = p.twice || len(p.seen) == n
}

// getElements asks for the elements of a set.
func getElements(family byte, table, set string) nl.Request {
	m := nl.AppendString(header(family), unix.NFTA_SET_ELEM_LIST_TABLE, table)
	m = nl.AppendString(m, unix.NFTA_SET_ELEM_LIST_SET, set)
	return nl.Request{Type: msgType(unix.NFT_MSG_GETSETELEM), Body: m}
}

// Query asks for the element of a set with a key.
type Query struct {
	Set string
	Key []byte
}

// Lookup reads single elements. Its cost does not depend on the size of the sets. The
// answer has an entry for each query, in order: nil if the element, set or table is
// missing.
func (c Conn) Lookup(ctx context.Context, table string, queries ...Query) ([]*Element, error) {
	return c.lookup(ctx, table, nil, queries)
}

// lookup reads, unless gen is nil, the generation as well: before the elements, and
// in the same send.
func (c Conn) lookup(ctx context.Context, table string, gen *uint32, queries []Query) ([]*Element, error) {
	reqs := make([]nl.Request, 0, 1+len(queries))
	if gen != nil {
		reqs = append(reqs, getGeneration())
	}
	first := len(reqs) // of the queries
	if first+len(queries) == 0 {
		return nil, nil
	}
	const usual = 96 // bytes of a question
	room := make([]byte, 0, usual*len(queries))
	for _, q := range queries {
		at := len(room)
		room = c.appendLookup(room, table, q.Set, q.Key)
		reqs = append(reqs, nl.Request{Type: msgType(unix.NFT_MSG_GETSETELEM), Body: room[at:len(room):len(room)]})
	}
	found := make([]*Element, len(queries))
	err := c.nl.Find(ctx, reqs, func(i int, m nl.Message) (err error) {
		if i < first {
			*gen, err = decodeGeneration(m)
			return err
		}
		return decodeElements(m.Body, func(e Element) error {
			found[i-first] = &e
			return nil
		})
	})
	var refused *nl.ExecError
	if errors.As(err, &refused) && len(refused.Failed) > 0 {
		if f := refused.Failed[0]; f.Index >= first {
			return nil, f.Err
		}
		return nil, noGeneration(refused.Failed[0].Err)
	}
	return found, err
}

// appendLookup appends the body of a question for the element of a set with a key.
func (c Conn) appendLookup(b []byte, table, set string, key []byte) []byte {
	b, list := c.beginLookup(b, table, set)
	e := Element{Key: key}
	b = e.append(b)
	nl.End(b, list)
	return b
}

// beginLookup begins such a body, up to the elements that are asked for. list is where their list begins.
func (c Conn) beginLookup(b []byte, table, set string) (_ []byte, list int) {
	b = append(b, c.family, unix.NFNETLINK_V0, 0, 0)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b = nl.AppendString(b, unix.NFTA_SET_ELEM_LIST_SET, set)
	return nl.Begin(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

// minSelect is the number of queries from which on find reads the whole sets, unless they
// have more elements.
const minSelect = 32

// find answers queries, and reads the generation first.
func (c Conn) find(ctx context.Context, table string, gen *uint32, queries []Query) (found []*Element, err error) {
	if len(queries) < minSelect || c.elements != nil && *c.elements > len(queries) {
		return c.lookup(ctx, table, gen, queries)
	}
	if *gen, err = c.Generation(ctx); err != nil {
		return nil, err
	}
	found, read, err := c.Select(ctx, table, queries...)
	if err == nil && c.elements != nil {
		*c.elements = read
	}
	return found, err
}

// Select answers queries as Lookup does, by reading whole sets. That is faster where there
// are about as many queries as elements. It also returns the number of elements that it has
// read. In a set of ranges it finds those that begin with the key.
func (c Conn) Select(ctx context.Context, table string, queries ...Query) (found []*Element, read int, err error) {
	found = make([]*Element, len(queries))
	sets := make(map[string]map[string]*Element) // by name, then by key
	for i, q := range queries {
		set, ok := sets[q.Set]
		if !ok {
			elems, err := c.Elements(ctx, table, q.Set)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, 0, err
			}
			set = make(map[string]*Element, len(elems))
			for i := range elems {
				set[string(elems[i].Key)] = &elems[i]
			}
			sets[q.Set] = set
			read += len(elems)
		}
		if len(set) > 0 {
			found[i] = set[string(q.Key)]
		}
	}
	return found, read, nil
}

// HasSet reports whether a table has a set. A missing table has none.
func (c Conn) HasSet(ctx context.Context, table, set string) (bool, error) {
	err := c.nl.Call(ctx, c.getSet(table, set), func(nl.Message) error { return nil })
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// getSet asks for a set.
func (c Conn) getSet(table, set string) nl.Request {
	m := nl.AppendString(header(c.family), unix.NFTA_SET_TABLE, table)
	m = nl.AppendString(m, unix.NFTA_SET_NAME, set)
	return nl.Request{Type: msgType(unix.NFT_MSG_GETSET), Body: m}
}
