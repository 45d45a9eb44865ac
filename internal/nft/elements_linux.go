package nft

import (
	"iter"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// maxElements is how many bytes of elements go into one message: the list's
// length field has 16 bits.
const maxElements = 32 << 10

// AddEach adds elements to a set; with the key of one of them there already, the batch
// fails with EEXIST. An element, and what it points to, may be another one as soon as
// yield has returned.
func (b *Batch) AddEach(set string, elems iter.Seq[*Element]) {
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, set, 0, elems)
}

// DeleteEach deletes elements by their keys; one that is missing fails the batch with
// ENOENT.
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
	l := elementList{b: b, msg: msg, flags: flags, set: set, id: id}
	step := 1
	switch {
	case b.family != unix.NFPROTO_INET:
		step = 0
	case msg == unix.NFT_MSG_DELSETELEM:
		step = -1
	}
	for e := range elems {
		l.add(e)
		b.grows += step
	}
	l.end()
}

// elementList is a message with elements that is being written.
type elementList struct {
	b          *Batch
	msg, flags uint16
	set        string
	id         uint32
	m          []byte
	list       int // where the list begins in m
}

func (l *elementList) add(e *Element) {
	if l.m == nil || len(l.m)-l.list >= maxElements {
		l.end()
		size := 256
		if l.m != nil { // they are many
			size = maxElements + 512
		}
		l.m = nl.AppendString(append(make([]byte, 0, size), l.b.family, unix.NFNETLINK_V0, 0, 0), unix.NFTA_SET_ELEM_LIST_TABLE, l.b.table)
		l.m = nl.AppendString(l.m, unix.NFTA_SET_ELEM_LIST_SET, l.set)
		if l.id != 0 {
			l.m = nl.AppendBE32(l.m, unix.NFTA_SET_ELEM_LIST_SET_ID, l.id)
		}
		l.m, l.list = nl.Begin(l.m, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	l.m = e.append(l.m)
}

// end completes the message, if there is one.
func (l *elementList) end() {
	if l.m != nil {
		nl.End(l.m, l.list)
		l.b.add(l.msg, l.flags, l.m, "an element of "+l.set)
	}
}
