package nft

import (
	"iter"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// maxElements is how many bytes of elements go into one message: the list's
// length field has 16 bits.
const maxElements = 32 << 10

// AddElements adds elements to a set; with the key of one of them there already,
// the batch fails with EEXIST.
func (b *Batch) AddElements(set string, elems ...Element) { b.AddEach(set, pointers(elems)) }

// AddEach is AddElements for elements that do not lie together. An element, and what
// it points to, may be another one as soon as yield has returned.
func (b *Batch) AddEach(set string, elems iter.Seq[*Element]) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, set, 0, elems)
}

// EnsureElements adds elements to a set. One that is there with the same data
// stays as it is, comment included; one with other data is EEXIST.
func (b *Batch) EnsureElements(set string, elems ...Element) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set, 0, pointers(elems))
}

// DeleteElements deletes elements by their keys; one that is missing fails the
// batch with ENOENT.
func (b *Batch) DeleteElements(set string, elems ...Element) { b.DeleteEach(set, pointers(elems)) }

// DeleteEach is DeleteElements for elements that do not lie together.
func (b *Batch) DeleteEach(set string, elems iter.Seq[*Element]) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, set, 0, elems)
}

func pointers(elems []Element) iter.Seq[*Element] {
	return func(yield func(*Element) bool) {
		for i := range elems {
			if !yield(&elems[i]) {
				return
			}
		}
	}
}

// elements spreads elements over as many messages as their bytes need.
func (b *Batch) elements(msg, flags uint16, set string, id uint32, elems iter.Seq[*Element]) {
	var m []byte
	var list int
	end := func() {
		if m != nil {
			nl.End(m, list)
			b.add(msg, flags, m, "an element of "+set)
		}
	}
	for e := range elems {
		if m == nil || len(m)-list >= maxElements {
			end()
			size := 256
			if m != nil { // they are many
				size = maxElements + 512
			}
			m = nl.AppendString(append(make([]byte, 0, size), inet[:]...), unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			m = nl.AppendString(m, unix.NFTA_SET_ELEM_LIST_SET, set)
			if id != 0 {
				m = nl.AppendBE32(m, unix.NFTA_SET_ELEM_LIST_SET_ID, id)
			}
			m, list = nl.Begin(m, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		}
		m = e.append(m)
	}
	end()
}
