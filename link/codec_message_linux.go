package link

import (
	"context"
	"strconv"
	"sync"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// states are for reading: at 18 KiB, one is most of what a creation allocates.
var states = sync.Pool{New: func() any { return new(state) }}

// begin opens an attribute.
func (m *message) begin(typ uint16) (at int) {
	m.b, at = nl.Begin(m.b, typ)
	return at
}

// end closes an attribute that begin opened. One with nothing in it is left out.
func (m *message) end(at int) {
	const header = 4
	if len(m.b) == at+header {
		m.b = m.b[:at]
		return
	}
	nl.End(m.b, at)
}

// kind appends the kind and its options, and reports whether there are any.
func (m *message) kind(o *options) bool {
	info := m.begin(unix.IFLA_LINKINFO)
	m.b = nl.AppendString(m.b, unix.IFLA_INFO_KIND, o.kind.name())
	empty := len(m.b)
	m.data(o)
	m.end(info)
	return len(m.b) > empty
}

func (m *message) data(o *options) {
	data := m.begin(unix.IFLA_INFO_DATA)
	m.put(placeData, o.fields)
	m.end(data)
}

// late appends what is of no use in the message that makes a link: the kernel
// accepts and ignores it there, or refuses it.
func (m *message) late(set *settings) {
	m.put(placeLink, set.alias())
	spec := m.begin(unix.IFLA_AF_SPEC)
	inet := m.begin(unix.AF_INET)
	conf := m.begin(inetConf)
	m.put(placeIPv4, set.ipv4)
	m.end(conf)
	m.end(inet)
	inet6 := m.begin(unix.AF_INET6)
	m.put(placeIPv6, set.ipv6)
	m.end(inet6)
	m.end(spec)
}

// options appends those of the kind, with its name if there are any.
func (m *message) options(o *options) {
	before := len(m.b)
	if o.kind != nil && !m.kind(o) {
		m.b = m.b[:before]
	}
}

// slave appends the options of a bond's port. Any other master would take them,
// too, for options of its own: the caller knows that it is a bond.
func (m *message) slave(set *settings) {
	info := m.begin(unix.IFLA_LINKINFO)
	data := m.begin(unix.IFLA_INFO_SLAVE_DATA)
	m.put(placeSlave, set.bondPort)
	m.end(data)
	m.end(info)
}

// sysctl is a setting that has no attribute.
type sysctl struct {
	name  string
	value uint32
}

// key is the name of the setting for the link.
func (v sysctl) key(link string) string { return "net/ipv6/conf/" + link + "/" + v.name }

func (v sysctl) text() string { return strconv.Itoa(int(int32(v.value))) }

// sysctls returns those that the link does not have already.
func (m *message) sysctls(set *settings) (list []sysctl) {
	c := message{have: m.have, only: m.only, zero: m.zero}
	c.put(placeConf6, set.sysctls)
	m.sent[placeConf6] = c.sent[placeConf6]
	for w := nl.Walk(c.b); w.Next(); {
		list = append(list, sysctl{nameOf(set.sysctls, w.Type()), w.U32()})
	}
	return list
}

func setSysctls(ctx context.Context, ns *netns.NS, link string, list []sysctl) error {
	for _, v := range list {
		if err := ns.SetSysctl(ctx, v.key(link), v.text()); err != nil {
			return err
		}
	}
	return nil
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
