package nft

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

const (
	attrElemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END, >= 5.6
	attrElemExpressions = 11 // NFTA_SET_ELEM_EXPRESSIONS, >= 5.11
)

// Verdict is what an element of a verdict map decides, as the kernel writes it (enum
// nft_verdicts of linux/netfilter/nf_tables.h, NF_ACCEPT of linux/netfilter.h).
type Verdict int32

// The verdicts that elements have.
const (
	VerdictNone     Verdict = 0 // the element is of no verdict map
	VerdictAccept   Verdict = 1
	VerdictContinue Verdict = -1
	VerdictGoto     Verdict = -4
	VerdictReturn   Verdict = -5
)

// Element is an element of a set or map.
type Element struct {
	Key     []byte
	KeyEnd  []byte  // the last key of a range; nil without one
	Data    []byte  // of a map; nil otherwise
	Verdict Verdict // of a verdict map
	Chain   string  // of VerdictGoto
	Comment string

	// Timeout is how long the element lives from the commit on; 0 is for ever. What is read is
	// the timeout that it was added with.
	Timeout time.Duration

	// Expires is how long the element still lives. It is only read.
	Expires time.Duration

	// Packets is what the element's counter has counted. It is only read.
	Packets uint64

	// End is read of sets that hold ranges of single fields: the range that began
	// with the key below this one ends before it (NFT_SET_ELEM_INTERVAL_END).
	End bool
}

// Equal reports whether both are the same but for what they have counted.
func (e *Element) Equal(o *Element) bool {
	var a, b [256]byte // longer ones are allocated
	return bytes.Equal(e.append(a[:0]), o.append(b[:0]))
}

// append appends the element as one of a list.
func (e *Element) append(m []byte) []byte {
	m, elem := nl.Begin(m, unix.NFTA_LIST_ELEM)
	m = appendValue(m, unix.NFTA_SET_ELEM_KEY, e.Key)
	if e.KeyEnd != nil {
		m = appendValue(m, attrElemKeyEnd, e.KeyEnd)
	}
	switch {
	case e.Verdict != VerdictNone:
		var data, verdict int
		m, data = nl.Begin(m, unix.NFTA_SET_ELEM_DATA)
		m, verdict = nl.Begin(m, unix.NFTA_DATA_VERDICT)
		m = nl.AppendBE32(m, unix.NFTA_VERDICT_CODE, uint32(e.Verdict))
		if e.Chain != "" {
			m = nl.AppendString(m, unix.NFTA_VERDICT_CHAIN, e.Chain)
		}
		nl.End(m, verdict)
		nl.End(m, data)
	case e.Data != nil:
		m = appendValue(m, unix.NFTA_SET_ELEM_DATA, e.Data)
	}
	if e.Timeout != 0 {
		m = nl.AppendBE64(m, unix.NFTA_SET_ELEM_TIMEOUT, uint64(e.Timeout.Milliseconds()))
	}
	if e.Comment != "" {
		var room [2 + MaxComment + 1]byte
		m = nl.AppendAttr(m, unix.NFTA_SET_ELEM_USERDATA, appendComment(room[:0], e.Comment))
	}
	nl.End(m, elem)
	return m
}

func appendValue(m []byte, typ uint16, value []byte) []byte {
	m, at := nl.Begin(m, typ)
	m = nl.AppendAttr(m, unix.NFTA_DATA_VALUE, value)
	nl.End(m, at)
	return m
}

// decodeElements hands each element of a NEWSETELEM message's body to each. The
// element's slices are its own.
func decodeElements(body []byte, each func(Element) error) error {
	return walkElements(body, nil, func(e *Element) error { return each(e.Clone()) })
}

// Clone returns the element with slices of its own.
func (e *Element) Clone() Element {
	c := *e
	c.Key, c.KeyEnd, c.Data = bytes.Clone(e.Key), bytes.Clone(e.KeyEnd), bytes.Clone(e.Data)
	return c
}

// comments are the comments of elements, each of them once: one owner may have thousands. The
// nil map keeps none.
type comments map[string]string

// decode returns the comment in userdata.
func (c comments) decode(b []byte) string {
	raw := findComment(b)
	if s, ok := c[string(raw)]; ok { // does not allocate
		return s
	}
	s := string(raw)
	if c != nil {
		c[s] = s
	}
	return s
}

// walkElements is decodeElements without copies: the element and its slices are valid until
// each returns.
func walkElements(body []byte, known comments, each func(*Element) error) error {
	if len(body) < 4 {
		return errShort
	}
	w := nl.Walk(body[4:])
	for w.Next() {
		if w.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		var e Element // one for all
		list := w.Nested()
		for list.Next() {
			var err error
			if e, err = decodeElement(list.Nested(), known); err != nil {
				return err
			}
			if err := each(&e); err != nil {
				return err
			}
		}
		if err := list.Err(); err != nil {
			return err
		}
	}
	return w.Err()
}

func decodeElement(w nl.Walker, known comments) (e Element, err error) {
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key, err = decodeValue(w.Nested(), nil)
		case attrElemKeyEnd:
			e.KeyEnd, err = decodeValue(w.Nested(), nil)
		case unix.NFTA_SET_ELEM_DATA:
			e.Data, err = decodeValue(w.Nested(), &e)
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = w.BE32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = time.Duration(w.BE64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = time.Duration(w.BE64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = known.decode(w.Data())
		case unix.NFTA_SET_ELEM_EXPR:
			e.Packets, err = decodeCounter(w.Nested(), e.Packets)
		case attrElemExpressions:
			list := w.Nested()
			for err == nil && list.Next() {
				e.Packets, err = decodeCounter(list.Nested(), e.Packets)
			}
			if err == nil {
				err = list.Err()
			}
		}
		if err != nil {
			return e, err
		}
	}
	return e, w.Err()
}

// decodeValue returns a value, in place; a verdict instead is set in e, unless that
// is nil.
func decodeValue(w nl.Walker, e *Element) (value []byte, err error) {
	for w.Next() {
		switch {
		case w.Type() == unix.NFTA_DATA_VALUE:
			value = w.Data()
		case w.Type() == unix.NFTA_DATA_VERDICT && e != nil:
			v := w.Nested()
			for v.Next() {
				switch v.Type() {
				case unix.NFTA_VERDICT_CODE:
					e.Verdict = Verdict(v.BE32())
				case unix.NFTA_VERDICT_CHAIN: // of goto and jump
					e.Chain = v.String()
				}
			}
			if err := v.Err(); err != nil {
				return nil, err
			}
		}
	}
	return value, w.Err()
}

// decodeCounter returns the packets of an expression if it is a counter, and
// packets if it is another.
func decodeCounter(w nl.Walker, packets uint64) (uint64, error) {
	counter := false
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_EXPR_NAME:
			counter = isCounter(w.Data())
		case unix.NFTA_EXPR_DATA:
			if !counter { // the name stands first
				continue
			}
			d := w.Nested()
			for d.Next() {
				if d.Type() == unix.NFTA_COUNTER_PACKETS {
					packets = d.BE64()
				}
			}
			if err := d.Err(); err != nil {
				return packets, err
			}
		}
	}
	return packets, w.Err()
}

// isCounter reports whether the name of an expression is that of a counter.
func isCounter(name []byte) bool { return string(bytes.TrimRight(name, "\x00")) == "counter" }

// Userdata is a row of type, length and value, 8 bits each of the first two.

// appendComment appends a comment, which has at most MaxComment bytes.
func appendComment(b []byte, comment string) []byte {
	b = append(b, udataComment, byte(len(comment)+1))
	return append(append(b, comment...), 0)
}

func appendTLV32(b []byte, typ byte, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, typ, 4), v)
}

// decodeComment returns the comment in userdata, "" where there is none. It is
// data that any program may have written: what is malformed is no comment.
func decodeComment(b []byte) string { return string(findComment(b)) }

func findComment(b []byte) []byte {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return nil
		}
		if b[0] == udataComment {
			s, _, _ := bytes.Cut(b[2:n], []byte{0})
			return s
		}
		b = b[n:]
	}
	return nil
}
