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

// The places of a link message where a set of options stands.
const (
	placeLink  = iota // the message itself
	placeData         // IFLA_LINKINFO/IFLA_INFO_DATA
	placeSlave        // IFLA_LINKINFO/IFLA_INFO_SLAVE_DATA
	placeIPv4         // IFLA_AF_SPEC/AF_INET/IFLA_INET_CONF
	placeIPv6         // IFLA_AF_SPEC/AF_INET6
	placeConf6        // IFLA_AF_SPEC/AF_INET6/IFLA_INET6_CONF, for reading only
	places
)

// state is what the kernel said of a link, by place. It points into the message.
type state struct {
	at        [places]attrs
	slaveData []byte // IFLA_INFO_SLAVE_DATA as a whole
}

// fields are options, by place.
type fields [places]attrSet

// message is a request about a link that is being put together.
type message struct {
	b      []byte
	have   *state   // what the link has already, which is left out; nil: nothing
	only   *fields  // what may stand in it; nil: everything
	zero   bool     // zeros stand in it, too
	sent   fields   // what stands in it
	names  []string // the same by name, with have
	unsure bool     // there may be kernels that ignore part of it
}

// put appends fields, which stand in that place, to the end of the message.
func (m *message) put(place int, list []field) {
	for i := range list {
		f := &list[i]
		t, s := f.attrType(), f.special()
		if !f.form.isSet(f.value, m.zero) || m.only != nil && !m.only[place].has(t) || s.newOnly && m.have != nil {
			continue
		}
		b, at := nl.Open(append(m.b, s.lead...), f.typ)
		b = f.form.append(b, f.value)
		if m.have != nil {
			if has := m.have.at[place][t]; has != nil && f.form.equal(nl.Payload(b, at), has) {
				continue
			}
			m.names = append(m.names, f.name)
		}
		m.b = nl.Close(b, at)
		m.sent[place].add(t)
		m.unsure = m.unsure || !s.sure
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
