package nft

import (
	"context"
	"iter"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const (
	attrSetCount = 20 // NFTA_SET_COUNT: 5.10 does not have it, 6.18 has
	elemCatchAll = 2  // NFT_SET_ELEM_CATCHALL, >= 5.13
)

// maxAsked is how many elements EachOf asks for at once: as many as one send of package nl takes.
const maxAsked = 100

// EachOf hands to each the elements of a set that have one of n different keys, with the number that
// came with the key, and reports whether the set has no other element. If it reports false, what it
// has handed over is void, and may lack elements. The element and its slices are valid until each
// returns. A key may be another one as soon as yield has returned.
//
// EachOf looks the keys up, so that its time grows with their number. The time of EachElement grows
// with the square of the number, because for each reply the kernel walks the set from its beginning.
// EachElement is the faster one for less than some 50,000. EachOf reports false, too, where the kernel
// does not say how many elements the set has, where the set has less than half as many as there are
// keys, and if the ruleset changes meanwhile. It is not for sets of ranges.
func (c Conn) EachOf(ctx context.Context, table, set string, n int, keys iter.Seq2[int, []byte], each func(int, *Element) error) (bool, error) {
	before, err := c.Generation(ctx)
	if err != nil {
		return false, err
	}
	// The kernel counts an element from when a transaction adds it, before the commit, until it is
	// removed, after the commit. What is found later, in the same generation, has been counted: if
	// it is as many, there is no other.
	count, err := c.count(ctx, table, set)
	if err != nil || count > n || count < n/2 {
		return false, err
	}
	l := keyLookup{c: c, table: table, set: set, each: each, known: make(comments)}
	for i, key := range keys {
		if l.ask(i, key); len(l.reqs) < maxAsked {
			continue
		}
		if err := l.answer(ctx); err != nil || l.asked-l.found > n-count {
			return false, err
		}
	}
	if err := l.answer(ctx); err != nil || l.found != count {
		return false, err
	}
	other, err := c.hasCatchAll(ctx, table, set)
	if err != nil || other {
		return false, err
	}
	after, err := c.Generation(ctx)
	return before == after, err
}

// count returns how many elements a set has, or -1 where the kernel does not say. It does not count
// one for all keys.
func (c Conn) count(ctx context.Context, table, set string) (n int, err error) {
	n = -1
	err = c.nl.Call(ctx, c.getSet(table, set), func(m nl.Message) error {
		if len(m.Body) < 4 {
			return errShort
		}
		w := nl.Walk(m.Body[4:])
		for w.Next() {
			if w.Type() == attrSetCount {
				n = int(w.BE32())
			}
		}
		return w.Err()
	})
	return n, err
}

// hasCatchAll reports whether a set has an element for all keys that it lacks.
func (c Conn) hasCatchAll(ctx context.Context, table, set string) (has bool, err error) {
	m, list := c.beginLookup(nil, table, set)
	m, elem := nl.Begin(m, unix.NFTA_LIST_ELEM)
	m = nl.AppendBE32(m, unix.NFTA_SET_ELEM_FLAGS, elemCatchAll)
	nl.End(m, elem)
	nl.End(m, list)
	err = c.nl.Find(ctx, []nl.Request{{Type: msgType(unix.NFT_MSG_GETSETELEM), Body: m}}, func(int, nl.Message) error {
		has = true
		return nil
	})
	return has, err
}

// keyLookup looks elements up, many in one send.
type keyLookup struct {
	c          Conn
	table, set string
	each       func(int, *Element) error
	known      comments

	reqs         []nl.Request // of the next send
	ids          []int        // of each, the number of its key
	room         []byte       // that they lie in
	asked, found int
}

// ask adds a key to the next send.
func (l *keyLookup) ask(i int, key []byte) {
	at := len(l.room)
	l.room = l.c.appendLookup(l.room, l.table, l.set, key)
	l.ids = append(l.ids, i)
	l.reqs = append(l.reqs, nl.Request{Type: msgType(unix.NFT_MSG_GETSETELEM), Body: l.room[at:len(l.room):len(l.room)]})
}

// answer makes the send.
func (l *keyLookup) answer(ctx context.Context) error {
	l.asked += len(l.reqs)
	err := l.c.nl.Find(ctx, l.reqs, func(i int, m nl.Message) error {
		return walkElements(m.Body, l.known, func(e *Element) error {
			l.found++
			return l.each(l.ids[i], e)
		})
	})
	l.reqs, l.ids, l.room = l.reqs[:0], l.ids[:0], l.room[:0]
	return err
}
