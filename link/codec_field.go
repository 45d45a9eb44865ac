package link

import (
	"bytes"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// field declares one netlink attribute: its type, its uapi name, a pointer to its
// value, and its form. A set of options, such as those of a kind, declares its fields
// once, in a method that returns them; everything else reads the declarations:
// checking, encoding, decoding, comparing and naming.
//
// Types are numbers, so that declarations compile everywhere.
type field struct {
	typ   uint16 // with the flag bits of nested attributes
	name  string
	value any
	form  codec
}

// codec is the form of an attribute. v is always the pointer to a value.
type codec interface {
	// check returns why the value cannot be sent, "" if it can.
	check(v any) string
	// isSet reports whether there is a value to send. With zero, that is so for a
	// zero that would be left to the kernel otherwise.
	isSet(v any, zero bool) bool
	// append appends the payload.
	append(b []byte, v any) []byte
	// parse reads a payload. One that is too short changes nothing.
	parse(b []byte, v any, s *store)
	// equal reports whether the link has what is wanted.
	equal(want, have []byte) bool
}

// special is a form with a peculiarity of the attribute.
type special struct {
	codec
	sure    bool   // every kernel takes the attribute or refuses it: none ignores it
	newOnly bool   // it is for a new link: one that is there keeps it to itself
	noZero  bool   // the kernel reports no zero
	since   string // the kernel that brought it, where that is newer than the package needs
	lead    []byte // an attribute that has to stand before it
}

var plain special

func (f *field) special() *special {
	if s, ok := f.form.(*special); ok {
		return s
	}
	return &plain
}

// attrType is the type of the attribute without the flag bits.
func (f *field) attrType() uint16 { return f.typ &^ 0xc000 }

// nested marks an attribute's type as holding attributes (NLA_F_NESTED).
const nested = 1 << 15

// maxAttr is above the type of every attribute in linux/if_link.h.
const maxAttr = 128

// attrs are the payloads of a message's attributes by their type; those of a
// higher type are dropped. A missing one is nil.
type attrs [maxAttr][]byte

// attrSet is a set of attribute types.
type attrSet [maxAttr / 64]uint64

func (s *attrSet) has(t uint16) bool { return s[t/64]&(1<<(t%64)) != 0 }
func (s *attrSet) add(t uint16)      { s[t/64] |= 1 << (t % 64) }

// index sorts the attributes in b by type. It keeps b.
func (a *attrs) index(b []byte) error {
	w := nl.Walk(b)
	for w.Next() {
		if t := w.Type(); t < maxAttr {
			if a[t] = w.Data(); a[t] == nil {
				a[t] = []byte{}
			}
		}
	}
	return w.Err()
}

// rest returns copies of the attributes that are not in the set.
func (a *attrs) rest(read *attrSet) (list []Attr) {
	for t, data := range a {
		if data != nil && !read.has(uint16(t)) {
			list = append(list, Attr{Type: uint16(t), Data: bytes.Clone(data)})
		}
	}
	return list
}

// decode reads the fields, and returns the types of their attributes.
func (a *attrs) decode(fields []field) (read attrSet) { return a.decodeInto(fields, nil) }

// decodeInto does so with room for what the values point to.
func (a *attrs) decodeInto(fields []field, s *store) (read attrSet) {
	for i := range fields {
		f := &fields[i]
		t := f.attrType()
		read.add(t)
		if a[t] != nil {
			f.form.parse(a[t], f.value, s)
		}
	}
	return read
}

// checkFields returns the first value that is out of range.
func checkFields(fields []field) error {
	for i := range fields {
		f := &fields[i]
		if why := f.form.check(f.value); why != "" {
			return refuse.Input("%s is %s", f.name, why)
		}
	}
	return nil
}

// nameOf returns the name of an attribute, "" for one that is no field.
func nameOf(fields []field, typ uint16) string {
	for i := range fields {
		if fields[i].attrType() == typ {
			return fields[i].name
		}
	}
	return ""
}

// encoder appends fields to a message.
type encoder struct {
	b      []byte
	have   *attrs   // what the link has already, which is left out; nil: nothing
	only   *attrSet // the fields to append; nil: all
	zero   bool     // zeros are not left out
	sent   attrSet  // the fields that were appended
	names  []string // their names, if it is known what the link has
	unsure bool     // there may be kernels that ignore one of them
}

func (e *encoder) put(fields []field) {
	for i := range fields {
		f := &fields[i]
		t := f.attrType()
		s := f.special()
		if !f.form.isSet(f.value, e.zero) || e.only != nil && !e.only.has(t) || s.newOnly && e.have != nil {
			continue
		}
		b, at := nl.Open(append(e.b, s.lead...), f.typ)
		b = f.form.append(b, f.value)
		if e.have != nil {
			if e.have[t] != nil && f.form.equal(nl.Payload(b, at), e.have[t]) {
				continue
			}
			e.names = append(e.names, f.name)
		}
		e.b = nl.Close(b, at)
		e.sent.add(t)
		e.unsure = e.unsure || !s.sure
	}
}

// store is room for what the settings of a bridge port point to, in one allocation.
type store struct {
	flags   [17]bool
	ints    [5]int
	state   PortState
	router  MulticastRouter
	mask    uint16
	nextHop uint32

	numFlags, numInts int
}

// room returns room for what v, a pointer to a pointer, is to point to; nil for none.
func (s *store) room(v any) any {
	if s == nil {
		return nil
	}
	switch v.(type) {
	case **bool:
		s.numFlags++
		return &s.flags[s.numFlags-1]
	case **int:
		s.numInts++
		return &s.ints[s.numInts-1]
	case **PortState:
		return &s.state
	case **MulticastRouter:
		return &s.router
	case **uint16:
		return &s.mask
	case **uint32:
		return &s.nextHop
	}
	return nil
}
