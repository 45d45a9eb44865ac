package link

import (
	"strconv"
	"sync"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

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

// states are for reading: at 18 KiB, one is most of what a creation allocates.
var states = sync.Pool{New: func() any { return new(state) }}

// fields are options, by place.
type fields [places]attrSet

// message is a request about a link that is being put together.
type message struct {
	b     []byte
	have  *state   // what the link has already, which is left out; nil: nothing
	only  *fields  // what may stand in it; nil: everything
	zero  bool     // zeros stand in it, too
	sent  fields   // what stands in it
	names []string // the same by name
}

// put runs a set of options through the message.
func (m *message) put(place int, walk func(*options)) { m.putPeer(place, -1, walk) }

func (m *message) putPeer(place, peerFD int, walk func(*options)) {
	o := options{do: encode, b: m.b, peerFD: peerFD, names: m.names, zero: m.zero}
	if m.have != nil {
		o.have = &m.have.at[place]
	}
	if m.only != nil {
		o.only = &m.only[place]
	}
	walk(&o)
	m.b, m.names = o.b, o.names
	for i, in := range o.sent {
		m.sent[place][i] |= in
	}
}

// nest runs fill inside an attribute, which is left out when nothing is put in.
func (m *message) nest(typ uint16, fill func()) {
	start := len(m.b)
	b, at := nl.Begin(m.b, typ)
	m.b = b
	fill()
	if len(m.b) == len(b) {
		m.b = m.b[:start]
		return
	}
	nl.End(m.b, at)
}

func (m *message) info(fill func()) { m.nest(unix.IFLA_LINKINFO, fill) }

// kind appends the kind and its options.
func (m *message) kind(k Kind, peerFD int) {
	m.b = nl.AppendString(m.b, unix.IFLA_INFO_KIND, k.name())
	m.data(k, peerFD)
}

func (m *message) data(k Kind, peerFD int) {
	m.nest(unix.IFLA_INFO_DATA, func() {
		m.putPeer(placeData, peerFD, func(o *options) { k.options(o) })
	})
}

// later appends what is of no use in the message that makes a link: the kernel
// accepts and ignores it there, or refuses it.
func (m *message) later(s *Spec) {
	m.put(placeLink, s.later)
	m.nest(unix.IFLA_AF_SPEC, func() {
		m.nest(unix.AF_INET, func() {
			m.nest(inetConf, func() { m.put(placeIPv4, s.IPv4.options) })
		})
		m.nest(unix.AF_INET6, func() { m.put(placeIPv6, s.IPv6.attributes) })
	})
}

// all appends everything that can be changed on a link that is there, but its
// master and what it is as a port.
func (m *message) all(s *Spec) {
	m.put(placeLink, s.common)
	m.later(s)
	if s.Kind == nil {
		return
	}
	m.info(func() {
		start := len(m.b)
		m.b = nl.AppendString(m.b, unix.IFLA_INFO_KIND, s.Kind.name())
		empty := len(m.b)
		if m.data(s.Kind, -1); len(m.b) == empty {
			m.b = m.b[:start]
		}
	})
}

// slave appends the options of a bond's port. Any other master would take them,
// too, for options of its own: the caller knows that it is a bond.
func (m *message) slave(s *Spec) {
	m.info(func() {
		m.nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			m.put(placeSlave, func(o *options) { s.BondPort.options(o) })
		})
	})
}

// sysctl is a setting that has no attribute.
type sysctl struct {
	name  string
	value uint32
}

// key is the name of the setting for the link.
func (v sysctl) key(link string) string { return "net/ipv6/conf/" + link + "/" + v.name }

func (v sysctl) text() string { return strconv.Itoa(int(int32(v.value))) }

// sysctls returns those of the spec that the link does not have already.
func (m *message) sysctls(s *Spec) (list []sysctl) {
	c := message{have: m.have, only: m.only, zero: m.zero}
	c.put(placeConf6, s.IPv6.sysctls)
	m.sent[placeConf6] = c.sent[placeConf6]
	for w := nl.Walk(c.b); w.Next(); {
		list = append(list, sysctl{c.names[len(list)], w.U32()})
	}
	return list
}

// parse sorts the attributes of an RTM_NEWLINK message. It keeps b.
func (st *state) parse(b []byte) error {
	if len(b) < unix.SizeofIfInfomsg {
		return errShort
	}
	err := st.at[placeLink].index(b[unix.SizeofIfInfomsg:])
	for w := nl.Walk(st.at[placeLink][unix.IFLA_LINKINFO]); err == nil && w.Next(); {
		switch w.Type() {
		case unix.IFLA_INFO_DATA:
			err = st.at[placeData].index(w.Data())
		case unix.IFLA_INFO_SLAVE_DATA:
			st.slaveData = w.Data()
			err = st.at[placeSlave].index(w.Data())
		}
	}
	for w := nl.Walk(st.at[placeLink][unix.IFLA_AF_SPEC]); err == nil && w.Next(); {
		switch w.Type() {
		case unix.AF_INET:
			for in := w.Nested(); in.Next(); {
				if in.Type() == inetConf {
					st.at[placeIPv4].array(in.Data(), 1)
				}
			}
		case unix.AF_INET6:
			err = st.at[placeIPv6].index(w.Data())
			st.at[placeConf6].array(st.at[placeIPv6][inet6Conf], 0)
		}
	}
	return err
}

// array sorts numbers of 32 bits that stand one behind the other; the first is
// that of the given type.
func (a *attrs) array(b []byte, first int) {
	for t := first; t < maxAttr && len(b) >= 4; t++ {
		a[t], b = b[:4:4], b[4:]
	}
}

const (
	inetConf  = 1 // IFLA_INET_CONF
	inet6Conf = 2 // IFLA_INET6_CONF

	netnsImmutable = 67 // IFLA_NETNS_IMMUTABLE
)
