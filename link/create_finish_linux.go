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
		reply = func(i int, m nl.Message) error {
			if i != len(s.reqs)-1 || m.Type != unix.RTM_NEWLINK {
				return nil
			}
			return c.show(s, m)
		}
	}
	if err := execChange(c.ctx, e.conn, s.reqs, reply); err != nil {
		return c.explainFinish(s, err)
	}
	if s.up && s.side == outer && !s.read {
		c.link.Up = true
	}
	return c.failAt(e.ns, e.spec, c.bad)
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

// verify compares what the requests of a step have with what the kernel shows: a kernel
// ignores attributes that it does not know.
func (c *creation) verify(s *step, body []byte) error {
	have := states.Get().(*state)
	*have = state{}
	defer states.Put(have)
	if err := have.parse(body); err != nil {
		return err
	}
	m, want := message{have: have}, *s.spec
	if s.has.mtu {
		m.put(placeLink, want.mtu())
	}
	if want.Master.Index != 0 {
		want.MAC, want.MTU = nil, 0 // those of a port are its master's to change
	}
	if s.has.common {
		m.common(&want)
	}
	if s.has.kind {
		if h, ok := want.Kind.(unreporter); ok {
			h.addUnreported(&have.at[placeData])
		}
		m.data(&c.kind)
	}
	if s.kind == stepSend {
		m.late(&want)
		m.slave(&want)
	}
	if s.kind == stepSend && want.Port != (PortOptions{}) {
		var p Port
		if err := errors.Join(decodePort(&p, have.slaveData), want.Port.missing(&p.PortOptions)); err != nil {
			return err
		}
	}
	return notTaken(m.names)
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
