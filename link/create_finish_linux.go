package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// finish sends to an end what the message that made it could not do, and reads back
// what a kernel may have ignored.
func (c *creation) finish(s *step) error {
	e := c.at(s.side)
	for i := range s.reqs {
		setIndex(&s.reqs[i], e.index)
	}
	var reply func(int, nl.Message) error
	if s.read {
		reply = func(i int, m nl.Message) error { return c.readBack(s, i, m) }
	}
	if err := execChange(c.ctx, e.conn, s.reqs, reply); err != nil {
		return c.explainFinish(s, err)
	}
	if s.up && s.side == outer && !s.read {
		c.link.Up = true
	}
	if err := c.bad; err != nil || !s.left.common {
		return c.failAt(e.ns, e.spec, err)
	}
	return c.fail(c.keepMAC())
}

// readBack takes the end as the kernel shows it in its answer to the last request.
func (c *creation) readBack(s *step, i int, m nl.Message) error {
	if i != len(s.reqs)-1 || m.Type != unix.RTM_NEWLINK {
		return nil
	}
	e := c.at(s.side)
	if s.compare {
		c.bad = e.verify(s.left, m.Body)
	}
	if s.side == inner {
		return nil
	}
	err := decodeLink(&c.link, m.Body)
	c.link.ns = e.ns
	return err
}

// setIndex fills in the index of the link, which stands at the same place in struct
// ifinfomsg and struct ifaddrmsg.
func setIndex(r *nl.Request, index int) {
	binary.NativeEndian.PutUint32(r.Body[4:], uint32(index))
}

// explainFinish says which of the requests failed, and why.
func (c *creation) explainFinish(s *step, err error) error {
	e := c.at(s.side)
	i, why, ok := refused(err)
	if !ok {
		return c.failAt(e.ns, e.spec, err)
	}
	switch s.reqs[i].Type {
	case unix.RTM_NEWADDR:
		n := 0
		for _, r := range s.reqs[:i] {
			if r.Type == unix.RTM_NEWADDR {
				n++
			}
		}
		a := Addr{Prefix: s.prefixes[n]}
		return fail.New(c.op, e.ns, addrSubject(&a, e.spec.Name), addrCause(&a, editAdd, why))
	case unix.RTM_SETLINK:
		return c.failAt(e.ns, e.spec, explainPort(why, &e.spec.Port))
	case unix.RTM_NEWLINKPROP:
		return c.failAt(e.ns, e.spec, explainNames(e.spec.AltNames, why, e.index, func(name string) (Link, error) {
			return c.find(e, name, 0)
		}))
	}
	return c.failAt(e.ns, e.spec, c.explainMaster(why, e))
}

// verifyMade compares what was asked for in the message that made the link with what
// the kernel shows of it. The kernel ignores attributes that it does not know.
func (e *end) verifyMade(o *options, body []byte) error {
	have := states.Get().(*state)
	*have = state{}
	defer states.Put(have)
	if err := have.parse(body); err != nil {
		return err
	}
	s := *e.spec
	if isBridge(s.Kind) {
		s.MTU = 0 // see planMake
	}
	m := message{have: have}
	m.shared(&s)
	if h, ok := s.Kind.(unreporter); ok {
		h.addUnreported(&have.at[placeData])
	}
	m.data(o)
	return notTaken(m.names)
}

// verify compares the rest with what the kernel shows.
func (e *end) verify(left pending, body []byte) error {
	have := states.Get().(*state)
	*have = state{}
	defer states.Put(have)
	if err := have.parse(body); err != nil {
		return err
	}
	s := *e.spec
	m := message{have: have}
	if left.mtu {
		m.put(placeLink, s.mtu())
	}
	if left.common {
		s.MAC = nil // see keepMAC
		m.shared(&s)
	}
	m.late(&s)
	m.slave(&s)
	if s.Port != (PortOptions{}) {
		var p Port
		if err := errors.Join(decodePort(&p, have.slaveData), s.Port.missing(&p.PortOptions)); err != nil {
			return err
		}
	}
	return notTaken(m.names)
}

// shared compares what any message about a link may have. The address
// and the MTU of a port are its master's to change.
func (m *message) shared(s *Spec) {
	if s.Master.Index != 0 {
		s.MAC, s.MTU = nil, 0
	}
	m.common(s)
}

// notTaken names the options that the kernel has ignored.
func notTaken(names []string) error {
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return &causeError{
		text: fmt.Sprintf("the kernel did not take %s: this option or value is unknown to it", strings.Join(slices.Compact(names), ", ")),
		is:   errors.ErrUnsupported, err: unix.EOPNOTSUPP,
	}
}
