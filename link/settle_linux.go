package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// bare reports whether the spec has nothing, but alternative names, that has to be
// there before the link comes up.
func (s *Spec) bare() bool {
	return s.Alias == "" && s.IPv4 == (IPv4Conf{}) && s.IPv6 == (IPv6Conf{}) && s.BondPort == (BondPort{}) && s.Port == (PortOptions{})
}

// needsDown reports whether the link must not be up before it is settled.
func (s *Spec) needsDown() bool {
	if s.bare() {
		return false
	}
	var m message
	m.later(s)
	m.slave(s)
	return len(m.names) > 0 || len(m.sysctls(s)) > 0 || s.Port != (PortOptions{})
}

// settle does to an end what the message that made it could not do, in one send
// in its namespace (two with sysctls), and reads back what a kernel may have passed
// over.
func (c *creation) settle(e *end) error {
	s := e.spec
	// First everything that has to be there when the link comes up.
	m := message{b: appendIfInfo(make([]byte, 0, 128), e.index, 0, 0)}
	if e.common {
		m.put(placeLink, s.common)
	}
	if e.mtu {
		m.put(placeLink, s.mtu)
	}
	if e.master {
		m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(s.Master))
	}
	var slave message
	var sysctls []sysctl
	if !s.bare() {
		m.later(s)
		slave.b = appendIfInfo(nil, e.index, 0, 0)
		slave.slave(s)
		sysctls = m.sysctls(s)
	}
	if len(slave.names) > 0 {
		if l, ok := c.look(e, s.Master); ok && l.Kind != "bond" {
			return fail.New(c.op, e.ns, subject(s.Name), refuse.Input("master %d (%s) is no bond: BondPort must be zero", s.Master, l.Name))
		}
	}
	port := s.Port != (PortOptions{})
	compare := port || len(slave.names) > 0 || slices.ContainsFunc(m.names, mayBePassedOver)
	// A link without another end may have its carrier by now.
	look := compare || e.common || e == &c.end && e.up && c.peer == nil

	var reqs []nl.Request
	if len(m.b) > unix.SizeofIfInfomsg {
		reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
	}
	if len(slave.names) > 0 {
		reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: slave.b, Names: linkNames})
	}
	if port {
		reqs = append(reqs, setPort(e.index, &s.Port))
	}
	if len(s.AltNames) > 0 {
		reqs = append(reqs, linkProps(unix.RTM_NEWLINKPROP, e.index, s.AltNames))
	}
	if len(sysctls) > 0 {
		if err := c.exec(e, reqs, len(reqs), nil); err != nil {
			return err
		}
		for _, v := range sysctls {
			if err := e.ns.SetSysctl(c.ctx, v.key(s.Name), v.text()); err != nil {
				return fail.New(c.op, e.ns, subject(s.Name), err)
			}
		}
		reqs = nil
	}
	if e.up {
		// Not with the master in one message: before Linux 6.0 the kernel
		// brings the link up first then, and a bond takes only ports that
		// are down.
		reqs = append(reqs, setFlags(e.index, true))
	}
	addrs := len(reqs)
	reqs = append(reqs, addrRequests(unix.RTM_NEWADDR, e.index, s.Addrs, s.DAD)...)
	if e == &c.end && e.up {
		c.link.Up = true
	}
	if !look {
		return c.exec(e, reqs, addrs, nil)
	}
	get := getLink("", e.index)
	if s.IPv6.AddrGenMode != nil || s.IPv6.Token.IsValid() {
		get = withStats(get) // without them, Linux 5.10 leaves these two out
	}
	reqs = append(reqs, get)
	var bad error
	err := c.exec(e, reqs, addrs, func(i int, m nl.Message) error {
		if i != len(reqs)-1 || m.Type != unix.RTM_NEWLINK {
			return nil
		}
		if compare {
			bad = c.verify(e, m.Body, false)
		}
		if e != &c.end {
			return nil
		}
		err := decodeLink(&c.link, m.Body)
		c.link.ns = e.ns
		return err
	})
	if err == nil && bad != nil {
		err = fail.New(c.op, e.ns, subject(s.Name), bad)
	}
	return err
}

// mayBePassedOver reports whether there may be kernels that neither take an option
// nor refuse it. Without such an option, a new link need not be compared with what
// was asked for.
func mayBePassedOver(name string) bool {
	switch name {
	case "IFLA_IFNAME", "IFLA_NUM_TX_QUEUES", "IFLA_NUM_RX_QUEUES", "VETH_INFO_PEER", "IFLA_IFALIAS", "IFLA_INET6_ADDR_GEN_MODE":
		return false
	}
	return true
}

// exec sends the requests in the namespace of an end. Those from the one at addrs
// on are its addresses, then questions.
func (c *creation) exec(e *end, reqs []nl.Request, addrs int, reply func(int, nl.Message) error) error {
	op := c.op
	if len(reqs) == 0 {
		return nil
	}
	err := change(c.ctx, func(ctx context.Context) error { return e.conn.Exec(ctx, reqs, reply) })
	i, why, ok := refused(err)
	s := e.spec
	switch {
	case err == nil:
		return nil
	case !ok:
		return fail.New(op, e.ns, subject(s.Name), err)
	case i >= addrs && i-addrs < len(s.Addrs):
		p := s.Addrs[i-addrs]
		return fail.New(op, e.ns, addrSubject(p, s.Name), addrCause(p, true, why))
	case reqs[i].Type == unix.RTM_SETLINK:
		return fail.New(op, e.ns, subject(s.Name), explainPort(why, &s.Port))
	case reqs[i].Type == unix.RTM_NEWLINKPROP:
		return fail.New(op, e.ns, subject(s.Name), explainNames(s.AltNames, why))
	}
	return fail.New(op, e.ns, subject(s.Name), c.explainMaster(why, e))
}

// linkProps builds the message that adds or removes alternative names.
func linkProps(typ uint16, index int, names []string) nl.Request {
	b := appendIfInfo(nil, index, 0, 0)
	b, at := nl.Begin(b, unix.IFLA_PROP_LIST)
	for _, n := range names {
		b = nl.AppendString(b, unix.IFLA_ALT_IFNAME, n)
	}
	nl.End(b, at)
	r := nl.Request{Type: typ, Body: b, Names: linkNames}
	if typ == unix.RTM_NEWLINKPROP {
		r.Flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_APPEND
	}
	return r
}

func explainNames(names []string, e *nl.Error) error {
	list := strings.Join(names, ", ")
	switch e.Errno {
	case unix.EEXIST:
		return exist(e, "one of the alternative names %s is taken", list)
	case unix.EOPNOTSUPP:
		return &causeError{text: "alternative names need Linux 5.5: " + e.Error(), err: e}
	}
	return e
}

// verify compares what was asked for with what the kernel shows of the link: of
// the message that made it, or of that which settled it. The kernel passes over
// attributes that it does not know.
func (c *creation) verify(e *end, body []byte, made bool) error {
	have := states.Get().(*state)
	*have = state{}
	defer states.Put(have)
	if err := have.parse(body); err != nil {
		return err
	}
	s := *e.spec
	m := message{have: have}
	if made || e.common {
		if s.Master != 0 { // which may have changed them
			s.MAC, s.MTU = nil, 0
		}
		if made && e.mtu {
			s.MTU = 0
		}
		m.put(placeLink, s.common)
	}
	if made {
		if h, ok := s.Kind.(interface{ hidden(*attrs) }); ok {
			h.hidden(&have.at[placeData])
		}
		m.nest(unix.IFLA_LINKINFO, func() { m.kind(s.Kind, -1) })
	} else {
		if e.mtu {
			m.put(placeLink, s.mtu)
		}
		m.later(&s)
		m.slave(&s)
		if s.Port != (PortOptions{}) {
			var p Port
			if err := errors.Join(decodePort(&p, have.slaveData), s.Port.missing(&p.PortOptions)); err != nil {
				return err
			}
		}
	}
	if len(m.names) == 0 {
		return nil
	}
	slices.Sort(m.names)
	return &causeError{
		text: fmt.Sprintf("the kernel did not take %s: this option or value is unknown to it", strings.Join(slices.Compact(m.names), ", ")),
		is:   errors.ErrUnsupported, err: unix.EOPNOTSUPP,
	}
}
